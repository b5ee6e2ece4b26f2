/* SPDX-License-Identifier: Apache-2.0 */
/* Each message is given whole and byte by byte: both must come out alike. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/http.h"

/* Feeds text in pieces of step bytes; stops at the first verdict. */
static enum http_result feed(struct http_message *message, const char *text,
	size_t len, size_t step, size_t *used_out)
{
	enum http_result result = HTTP_MORE;
	size_t used = 0;

	while (used < len && result == HTTP_MORE) {
		size_t n = len - used < step ? len - used : step;
		size_t taken;

		result = http_feed(message, text + used, n, &taken);
		used += taken;
	}
	*used_out = used;
	return result;
}

static enum http_result verdict(
	enum http_kind kind, bool body, const char *text, size_t step)
{
	struct http_message *message = http_message_new(kind, body);
	size_t used;
	enum http_result result =
		feed(message, text, strlen(text), step, &used);

	http_message_free(message);
	return result;
}

static void test_connect_head_ends_where_the_first_bytes_begin(void **state)
{
	const char text[] = "CONNECT pg.db-1:5432 HTTP/1.1\r\n"
			    "Host: pg.db-1:5432\r\nX-Empty:\r\n\r\nSSH-2.0-x";

	for (size_t step = 1; step < sizeof(text); step++) {
		struct http_message *message =
			http_message_new(HTTP_REQUEST_MESSAGE, true);
		size_t used, len;

		assert_int_equal(HTTP_DONE,
			feed(message, text, strlen(text), step, &used));
		assert_string_equal(text + used, "SSH-2.0-x");
		assert_string_equal(http_method(message), "CONNECT");
		assert_string_equal(http_target(message), "pg.db-1:5432");
		assert_string_equal(
			http_header(message, "host"), "pg.db-1:5432");
		assert_string_equal(http_header(message, "x-empty"), "");
		assert_null(http_header(message, "x"));
		http_body(message, &len);
		assert_int_equal(len, 0);
		http_message_free(message);
	}
}

static void test_body_by_length(void **state)
{
	const char text[] = "POST /v1/agent/join HTTP/1.1\r\n"
			    "Content-Length: 5\r\n\r\nhelloGET";

	for (size_t step = 1; step < sizeof(text); step++) {
		struct http_message *message =
			http_message_new(HTTP_REQUEST_MESSAGE, true);
		size_t used, len;

		assert_int_equal(HTTP_DONE,
			feed(message, text, strlen(text), step, &used));
		assert_string_equal(text + used, "GET");
		assert_memory_equal(http_body(message, &len), "hello", 5);
		assert_int_equal(len, 5);
		http_message_free(message);
	}
}

static void test_chunked_body(void **state)
{
	const char text[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
			    "\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n";

	for (size_t step = 1; step < sizeof(text); step++) {
		struct http_message *message =
			http_message_new(HTTP_RESPONSE_MESSAGE, true);
		size_t used, len;

		assert_int_equal(HTTP_DONE,
			feed(message, text, strlen(text), step, &used));
		assert_int_equal(used, strlen(text));
		assert_int_equal(http_status(message), 200);
		assert_memory_equal(http_body(message, &len), "abcde", 5);
		assert_int_equal(len, 5);
		/* a trailer is not a header */
		assert_null(http_header(message, "T"));
		http_message_free(message);
	}
}

static void test_body_without_length_ends_with_the_connection(void **state)
{
	struct http_message *message =
		http_message_new(HTTP_RESPONSE_MESSAGE, true);
	const char text[] = "HTTP/1.1 503 No\r\n\r\nsorry";
	size_t used, len;

	assert_int_equal(HTTP_MORE,
		feed(message, text, strlen(text), sizeof(text), &used));
	assert_int_equal(HTTP_DONE, http_end(message));
	assert_memory_equal(http_body(message, &len), "sorry", 5);
	assert_int_equal(len, 5);
	http_message_free(message);
}

static void test_response_to_connect_has_no_body(void **state)
{
	struct http_message *message =
		http_message_new(HTTP_RESPONSE_MESSAGE, false);
	const char text[] = "HTTP/1.1 200 Connection established\r\n"
			    "Peerway-Route: peer\r\n\r\n\x01\x02";
	size_t used;

	assert_int_equal(HTTP_DONE,
		feed(message, text, strlen(text), sizeof(text), &used));
	assert_int_equal(used, strlen(text) - 2);
	assert_string_equal(http_header(message, "peerway-route"), "peer");
	http_message_free(message);
}

static void test_malformed_messages_are_invalid(void **state)
{
	static const char *const requests[] = {
		"\x16\x03\x01",
		"GET\r\n\r\n",
		"GET / HTTP/2.0\r\n\r\n",
		"GET / HTTP/1.1\r\nNo colon here\r\n\r\n",
		"GET / HTTP/1.1\r\nA: b\x01\r\n\r\n",
		"GET / HTTP/1.1\r\n: b\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 1\r\n"
		"Content-Length: 2\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 1\r\n"
		"Transfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"FROB / HTTP/1.1\r\n\r\n",
		"CONNECT a b HTTP/1.1\r\n\r\n",
	};

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		for (size_t step = 1; step < 200; step += 198)
			if (verdict(HTTP_REQUEST_MESSAGE, true, requests[i],
				    step) != HTTP_INVALID)
				fail_msg("not refused: %s", requests[i]);
	assert_int_equal(HTTP_INVALID, verdict(HTTP_RESPONSE_MESSAGE, true,
					       "SSH-2.0-OpenSSH\r\n", 100));
}

static void test_end_in_the_middle_is_invalid(void **state)
{
	static const char *const texts[] = {"", "GET / HT",
		"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct http_message *message =
			http_message_new(HTTP_REQUEST_MESSAGE, true);
		size_t used;

		assert_int_equal(HTTP_MORE,
			feed(message, texts[i], strlen(texts[i]), 100, &used));
		assert_int_equal(HTTP_INVALID, http_end(message));
		http_message_free(message);
	}
}

static void test_head_is_bounded(void **state)
{
	static char text[HTTP_HEAD_MAX * 3];
	size_t len = sprintf(text, "GET / HTTP/1.1\r\nA: ");

	memset(text + len, 'x', sizeof(text) - len - 1);
	for (size_t step = 1; step < sizeof(text); step += 7000)
		assert_int_equal(HTTP_TOO_LARGE,
			verdict(HTTP_REQUEST_MESSAGE, true, text, step));
	/* exactly as much as is allowed */
	strcpy(text + HTTP_HEAD_MAX - 4, "\r\n\r\n");
	assert_int_equal(HTTP_DONE,
		verdict(HTTP_REQUEST_MESSAGE, true, text, sizeof(text)));
	memset(text + HTTP_HEAD_MAX - 4, 'x', 4);
	strcpy(text + HTTP_HEAD_MAX - 3, "\r\n\r\n");
	assert_int_equal(HTTP_TOO_LARGE,
		verdict(HTTP_REQUEST_MESSAGE, true, text, sizeof(text)));
}

static void test_headers_are_counted(void **state)
{
	char text[4096];
	size_t len = sprintf(text, "GET / HTTP/1.1\r\n");

	for (int i = 0; i < HTTP_HEADERS_MAX; i++)
		len += sprintf(text + len, "H: v\r\n");
	strcpy(text + len, "\r\n");
	assert_int_equal(HTTP_DONE,
		verdict(HTTP_REQUEST_MESSAGE, true, text, sizeof(text)));
	strcpy(text + len, "H: v\r\n\r\n");
	assert_int_equal(HTTP_TOO_LARGE,
		verdict(HTTP_REQUEST_MESSAGE, true, text, sizeof(text)));
}

static void test_body_is_bounded(void **state)
{
	struct http_message *message =
		http_message_new(HTTP_RESPONSE_MESSAGE, true);
	char head[128];
	char *much = calloc(1, HTTP_BODY_MAX + 1);
	size_t used;

	sprintf(head, "POST / HTTP/1.1\r\nContent-Length: %u\r\n\r\n",
		HTTP_BODY_MAX + 1);
	assert_int_equal(HTTP_TOO_LARGE,
		verdict(HTTP_REQUEST_MESSAGE, true, head, sizeof(head)));
	strcpy(head, "HTTP/1.1 200 OK\r\n\r\n");
	http_feed(message, head, strlen(head), &used);
	assert_int_equal(
		HTTP_MORE, http_feed(message, much, HTTP_BODY_MAX, &used));
	assert_int_equal(HTTP_TOO_LARGE, http_feed(message, much, 1, &used));
	http_message_free(message);
	free(much);
}

static void test_nothing_is_taken_after_the_end(void **state)
{
	struct http_message *message =
		http_message_new(HTTP_REQUEST_MESSAGE, true);
	size_t used;

	assert_int_equal(HTTP_DONE,
		feed(message, "GET / HTTP/1.1\r\n\r\n", 18, 100, &used));
	assert_int_equal(HTTP_DONE, http_feed(message, "more", 4, &used));
	assert_int_equal(used, 0);
	http_message_free(message);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_connect_head_ends_where_the_first_bytes_begin),
		cmocka_unit_test(test_body_by_length),
		cmocka_unit_test(test_chunked_body),
		cmocka_unit_test(
			test_body_without_length_ends_with_the_connection),
		cmocka_unit_test(test_response_to_connect_has_no_body),
		cmocka_unit_test(test_malformed_messages_are_invalid),
		cmocka_unit_test(test_end_in_the_middle_is_invalid),
		cmocka_unit_test(test_head_is_bounded),
		cmocka_unit_test(test_headers_are_counted),
		cmocka_unit_test(test_body_is_bounded),
		cmocka_unit_test(test_nothing_is_taken_after_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
