/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/request: the reference's checks, texts and codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "peerd/request.h"

#define AGENT "6f2b1c1e-0000-4000-8000-000000000001"

static void expect_refused(const char *frame, size_t len, const char *text)
{
	struct request request;
	char *why = NULL;

	assert_int_equal(
		request_parse((const uint8_t *)frame, len, &request, &why),
		REQUEST_INVALID);
	assert_string_equal(why, text);
	free(why);
}

#define EXPECT_REFUSED(frame, text) \
	expect_refused(frame, sizeof(frame) - 1, text)

static void what_is_made_is_read_back(void **state)
{
	const struct request_fields fields = {.agent_id = AGENT,
		.cluster = "example.com",
		.type = "db",
		.source = "192.0.2.7:4711",
		.service = "pg",
		.port = 5432};
	struct request request;
	char *why = NULL;
	size_t len;
	uint8_t *bytes = request_make(&fields, &len);

	assert_int_equal(request_parse(bytes, len, &request, &why), REQUEST_OK);
	assert_string_equal(request.node_id, AGENT ".example.com");
	assert_string_equal(request.agent_id, AGENT);
	assert_string_equal(request.cluster, "example.com");
	assert_string_equal(request.type, "db");
	assert_string_equal(request.source, "192.0.2.7:4711");
	assert_string_equal(request.destination, "pg:5432");
	assert_string_equal(request.frame->dialrequest->source->network, "tcp");
	request_deinit(&request);
	free(bytes);
}

static void a_first_frame_that_is_no_request_is_refused(void **state)
{
	static const char text[] =
		"invalid dial request: request must not be nil";

	EXPECT_REFUSED("\x1a\x03\x0a\x01x", text);
	EXPECT_REFUSED("\x12\x00", text);
	EXPECT_REFUSED("", text);
	EXPECT_REFUSED("\xff\xff", text);
	/* a DialRequest whose inside is malformed */
	EXPECT_REFUSED("\x0a\x02\x0a\x05", text);
}

static void source_and_destination_must_be_there(void **state)
{
	static const char text[] =
		"invalid dial request: source and destination must not be nil";

	EXPECT_REFUSED("\x0a\x00", text);
	EXPECT_REFUSED("\x0a\x05\x0a\x01i\x1a\x00", text);
	EXPECT_REFUSED("\x0a\x05\x0a\x01i\x22\x00", text);
}

static void node_id_must_have_a_host(void **state)
{
	EXPECT_REFUSED("\x0a\x04\x1a\x00\x22\x00", "invalid server id: \"\"");
	EXPECT_REFUSED("\x0a\x08\x0a\x02.c\x1a\x00\x22\x00",
		"invalid server id: \".c\"");
}

static void empty_addresses_are_no_error(void **state)
{
	static const char frame[] = "\x0a\x07\x0a\x01i\x1a\x00\x22\x00";
	struct request request;
	char *why;

	assert_int_equal(request_parse((const uint8_t *)frame,
				 sizeof(frame) - 1, &request, &why),
		REQUEST_OK);
	assert_string_equal(request.source, "");
	request_deinit(&request);
}

static void node_id_splits_at_the_first_dot(void **state)
{
	char id[8];
	const char *rest;

	assert_true(request_split_node_id("id.localhost", id, 8, &rest));
	assert_string_equal(id, "id");
	assert_string_equal(rest, "localhost");
	assert_true(request_split_node_id("id", id, 8, &rest));
	assert_string_equal(rest, "");
	assert_true(
		request_split_node_id("id.teleport.example.com", id, 8, &rest));
	assert_string_equal(rest, "teleport.example.com");
	assert_true(request_split_node_id("much-too-long.c", id, 8, &rest));
	assert_string_equal(id, "much-to");
	assert_string_equal(rest, "c");
	assert_false(request_split_node_id("", id, 8, &rest));
	assert_false(request_split_node_id(".c", id, 8, &rest));
}

static void destination_selects_a_service(void **state)
{
	char service[64];
	uint32_t port = 1;

	assert_true(request_service("", service, 64, &port));
	assert_string_equal(service, "");
	assert_int_equal(port, 0);
	assert_true(request_service("@local-node", service, 64, &port));
	assert_string_equal(service, "");
	assert_true(request_service("@local-node:0", service, 64, &port));
	assert_string_equal(service, "");
	assert_true(request_service("pg:5432", service, 64, &port));
	assert_string_equal(service, "pg");
	assert_int_equal(port, 5432);
	assert_true(request_service("ssh", service, 64, &port));
	assert_int_equal(port, 0);
	assert_false(request_service("10.0.0.1:22", service, 64, &port));
	assert_false(request_service("pg:", service, 64, &port));
	assert_false(request_service("pg:65536", service, 64, &port));
	assert_false(request_service("pg:-1", service, 64, &port));
	assert_false(request_service("Bad Name:1", service, 64, &port));
	assert_false(request_service("[::1]:22", service, 64, &port));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_made_is_read_back),
		cmocka_unit_test(a_first_frame_that_is_no_request_is_refused),
		cmocka_unit_test(source_and_destination_must_be_there),
		cmocka_unit_test(node_id_must_have_a_host),
		cmocka_unit_test(empty_addresses_are_no_error),
		cmocka_unit_test(node_id_splits_at_the_first_dot),
		cmocka_unit_test(destination_selects_a_service),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
