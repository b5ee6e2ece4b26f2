/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/refusal, peerd/attempts, peerd/connection_id: what is told of a dial.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "peerd/attempts.h"
#include "peerd/connection_id.h"
#include "peerd/refusal.h"

#define CODE(name) PEERWAY__IPC__DIAL_CODE__DIAL_##name

static void every_code_crosses_the_mesh_by_its_word(void **state)
{
	static const Peerway__Ipc__DialCode codes[] = {CODE(NOT_FOUND),
		CODE(DENIED), CODE(REFUSED), CODE(OFFLINE), CODE(TIMED_OUT),
		CODE(INVALID), CODE(INTERNAL)};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		assert_non_null(refusal_word(codes[i]));
		assert_int_equal(refusal_code(refusal_status(codes[i]),
					 refusal_word(codes[i])),
			codes[i]);
	}
}

static void without_a_word_the_status_speaks(void **state)
{
	assert_int_equal(
		refusal_code(GRPC_STATUS_UNAVAILABLE, NULL), CODE(OFFLINE));
	assert_int_equal(refusal_code(GRPC_STATUS_DEADLINE_EXCEEDED, NULL),
		CODE(TIMED_OUT));
	/* a peer that does not want us is not the user's fault */
	assert_int_equal(refusal_code(GRPC_STATUS_PERMISSION_DENIED, NULL),
		CODE(INTERNAL));
	assert_int_equal(refusal_code(GRPC_STATUS_UNAVAILABLE, "no such word"),
		CODE(OFFLINE));
}

static void a_missing_tunnel_is_unavailable_to_the_reference(void **state)
{
	assert_int_equal(
		refusal_status(CODE(OFFLINE)), GRPC_STATUS_UNAVAILABLE);
	assert_int_equal(
		refusal_status(CODE(REFUSED)), GRPC_STATUS_UNAVAILABLE);
	assert_int_equal(
		refusal_status(CODE(INVALID)), GRPC_STATUS_INVALID_ARGUMENT);
}

static void only_what_may_be_better_elsewhere_is_retried(void **state)
{
	assert_true(refusal_may_retry(CODE(OFFLINE)));
	assert_true(refusal_may_retry(CODE(TIMED_OUT)));
	assert_false(refusal_may_retry(CODE(REFUSED)));
	assert_false(refusal_may_retry(CODE(NOT_FOUND)));
	assert_false(refusal_may_retry(CODE(DENIED)));
}

static void attempts_keep_their_history(void **state)
{
	struct attempts attempts = {0};

	/* two at a time, ending in the other order */
	size_t a = attempts_begin(&attempts, PEERWAY__IPC__ROUTE__ROUTE_PEER,
		"a", "host-a", 100);
	size_t b = attempts_begin(&attempts, PEERWAY__IPC__ROUTE__ROUTE_PEER,
		"b", "", 120);

	attempts_end(&attempts, b, NULL, 135);
	attempts_end(&attempts, a, "two\nlines\x1b[31m", 140);
	assert_int_equal(attempts.count, 2);
	assert_string_equal(attempts.pointers[0]->proxy_id, "a");
	assert_string_equal(attempts.pointers[0]->hostname, "host-a");
	assert_string_equal(attempts.pointers[0]->error, "two lines [31m");
	assert_int_equal(attempts.pointers[0]->ms, 40);
	assert_string_equal(attempts.pointers[1]->error, "");
	assert_int_equal(attempts.pointers[1]->ms, 15);
	attempts_deinit(&attempts);
}

static void attempts_are_bounded(void **state)
{
	struct attempts attempts = {0};
	char error[1000];

	memset(error, 'e', sizeof(error) - 1);
	error[sizeof(error) - 1] = '\0';
	for (int i = 0; i < ATTEMPTS_MAX + 5; i++) {
		size_t number = attempts_begin(&attempts,
			PEERWAY__IPC__ROUTE__ROUTE_PEER, "a", "", i);

		attempts_end(&attempts, number, error, i);
	}
	assert_int_equal(attempts.count, ATTEMPTS_MAX);
	assert_int_equal(
		strlen(attempts.pointers[3]->error), ATTEMPT_ERROR_MAX);
	attempts_deinit(&attempts);
}

static void connection_ids_are_read_back(void **state)
{
	uint8_t id[CONNECTION_ID_SIZE], again[CONNECTION_ID_SIZE];
	char text[2 * CONNECTION_ID_SIZE + 1];

	connection_id_make(id);
	connection_id_format(id, text);
	assert_int_equal(strlen(text), 32);
	assert_true(connection_id_parse(text, again));
	assert_memory_equal(id, again, sizeof(id));
	text[5] = 'G';
	assert_false(connection_id_parse(text, again));
	assert_false(connection_id_parse("", again));
	assert_false(connection_id_parse(
		"00112233445566778899aabbccddeeff0", again));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_crosses_the_mesh_by_its_word),
		cmocka_unit_test(without_a_word_the_status_speaks),
		cmocka_unit_test(
			a_missing_tunnel_is_unavailable_to_the_reference),
		cmocka_unit_test(only_what_may_be_better_elsewhere_is_retried),
		cmocka_unit_test(attempts_keep_their_history),
		cmocka_unit_test(attempts_are_bounded),
		cmocka_unit_test(connection_ids_are_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
