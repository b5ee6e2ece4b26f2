/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "auth.pb-c.h"
#include "proxy/join.h"

static uint8_t *packed(bool renew, const char *body, size_t *len_out)
{
	const char *reason = NULL;
	uint8_t *bytes =
		join_request_pack(renew, body, strlen(body), len_out, &reason);

	if (!bytes)
		fail_msg("%s: %s", body, reason);
	return bytes;
}

static void test_a_join_becomes_a_node_s_request(void **state)
{
	size_t len;
	uint8_t *bytes = packed(false,
		"{\"token\":\"t\",\"host_uuid\":\"u\",\"name\":\"db-1\","
		"\"csr\":\"AQIDBA==\",\"role\":\"Proxy\",\"names\":[\"x\"]}",
		&len);
	Peerway__Auth__JoinRequest *request =
		peerway__auth__join_request__unpack(NULL, len, bytes);

	(void)state;
	assert_non_null(request);
	assert_string_equal(request->token, "t");
	assert_string_equal(request->host_uuid, "u");
	assert_string_equal(request->name, "db-1");
	/* whatever the sender would like to be */
	assert_int_equal(request->role, PEERWAY__AUTH__ROLE__ROLE_NODE);
	assert_int_equal(request->n_names, 0);
	assert_int_equal(request->csr.len, 4);
	assert_memory_equal(request->csr.data, "\1\2\3\4", 4);
	peerway__auth__join_request__free_unpacked(request, NULL);
	free(bytes);
}

static void test_a_renewal_is_passed_on(void **state)
{
	size_t len;
	uint8_t *bytes =
		packed(true, "{\"cert\":\"AQID\",\"csr\":\"AQI=\"}", &len);
	Peerway__Auth__RenewRequest *request =
		peerway__auth__renew_request__unpack(NULL, len, bytes);

	(void)state;
	assert_non_null(request);
	assert_int_equal(request->cert.len, 3);
	assert_int_equal(request->csr.len, 2);
	peerway__auth__renew_request__free_unpacked(request, NULL);
	free(bytes);
}

static void test_other_bodies_are_refused(void **state)
{
	static const char *const rows[] = {"", "[]", "{}", "{\"token\":1}",
		"{\"token\":\"t\",\"host_uuid\":\"u\",\"name\":\"n\"}",
		"{\"token\":\"t\",\"host_uuid\":\"u\",\"name\":\"n\","
		"\"csr\":\"?\"}",
		"{\"token\":\"t\",\"host_uuid\":\"u\",\"name\":\"n\","
		"\"csr\":\"!!!!\"}",
		"{\"token\":\"t\",\"host_uuid\":\"u\",\"name\":\"n\","
		"\"csr\":\"====\"}",
		"{\"token\":\"t\",\"token\":\"t\",\"host_uuid\":\"u\","
		"\"name\":\"n\",\"csr\":\"AQID\"}"};
	char large[JOIN_BODY_MAX + 1];
	const char *reason = NULL;
	size_t len = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int renew = 0; renew < 2; renew++) {
			reason = NULL;
			assert_null(join_request_pack(renew, rows[i],
				strlen(rows[i]), &len, &reason));
			assert_non_null(reason);
		}
	}
	memset(large, ' ', sizeof(large));
	assert_null(
		join_request_pack(false, large, sizeof(large), &len, &reason));
	assert_string_equal(reason, "the body is too large");
}

static void test_the_answer_becomes_json(void **state)
{
	Peerway__Auth__JoinResponse response =
		PEERWAY__AUTH__JOIN_RESPONSE__INIT;
	uint8_t bytes[100];
	size_t len;
	char *text;

	(void)state;
	response.cert_chain = (char *)"C\n";
	response.host_ca = (char *)"H";
	response.user_ca = (char *)"U";
	response.cluster_name = (char *)"example";
	len = peerway__auth__join_response__pack(&response, bytes);
	text = join_response_to_json(bytes, len);
	assert_string_equal(text,
		"{\"cert_chain\":\"C\\n\",\"host_ca\":\"H\",\"user_ca\":\"U\","
		"\"cluster_name\":\"example\"}");
	free(text);
	assert_null(join_response_to_json((const uint8_t *)"\x0a\xff", 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_join_becomes_a_node_s_request),
		cmocka_unit_test(test_a_renewal_is_passed_on),
		cmocka_unit_test(test_other_bodies_are_refused),
		cmocka_unit_test(test_the_answer_becomes_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
