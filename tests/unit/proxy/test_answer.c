/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/answer.h"

static void test_an_answer_is_whole(void **state)
{
	char *text = answer_text(404, "text/plain", "no agent x is online\n");

	(void)state;
	assert_non_null(strstr(text, "HTTP/1.1 404 Not Found\r\n"));
	assert_non_null(strstr(text, "\r\nContent-Length: 21\r\n"));
	assert_non_null(strstr(text, "\r\nConnection: close\r\n"));
	assert_non_null(strstr(text, "\r\n\r\nno agent x is online\n"));
	free(text);
}

static void test_the_route_is_named(void **state)
{
	struct answer_route route = {
		.route = PEERWAY__IPC__ROUTE__ROUTE_PEER,
		.proxy_id = "p2",
		.client_worker = 1,
		.tunnel_worker = -1,
		.connection_id = "0a",
	};
	char *text = answer_connected(&route);

	(void)state;
	assert_string_equal(text, "HTTP/1.1 200 Connection established\r\n"
				  "Peerway-Route: peer\r\n"
				  "Peerway-Proxy: p2\r\n"
				  "Peerway-Worker: 1\r\n"
				  "Peerway-Tunnel-Worker: -\r\n"
				  "Peerway-Connection-Id: 0a\r\n"
				  "\r\n");
	free(text);
	route.tunnel_worker = 3;
	text = answer_connected(&route);
	assert_non_null(strstr(text, "\r\nPeerway-Tunnel-Worker: 3\r\n"));
	free(text);
}

static void test_every_code_has_its_status(void **state)
{
	(void)state;
	assert_int_equal(
		answer_status_of(PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND), 404);
	assert_int_equal(
		answer_status_of(PEERWAY__IPC__DIAL_CODE__DIAL_DENIED), 403);
	assert_int_equal(
		answer_status_of(PEERWAY__IPC__DIAL_CODE__DIAL_REFUSED), 502);
	assert_int_equal(
		answer_status_of(PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE), 503);
	assert_int_equal(
		answer_status_of(PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT), 504);
	assert_int_equal(
		answer_status_of(PEERWAY__IPC__DIAL_CODE__DIAL_INTERNAL), 503);
	assert_int_equal(answer_status_of((Peerway__Ipc__DialCode)99), 503);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_answer_is_whole),
		cmocka_unit_test(test_the_route_is_named),
		cmocka_unit_test(test_every_code_has_its_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
