/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/plain.h"
#include "shared/sock.h"

/* Reads text, written in one go and then closed, as a head of at most max. */
static struct plain *read_text(
	const char *text, size_t max, int *ret_out, int *fd_out)
{
	struct plain *plain = plain_new(max);
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	assert_int_equal(write(fds[1], text, strlen(text)), strlen(text));
	close(fds[1]);
	*ret_out = plain_read(plain, fds[0]);
	if (fd_out)
		*fd_out = fds[0];
	else
		close(fds[0]);
	return plain;
}

static uint32_t retry_of(const char *header)
{
	char text[256];
	struct plain *plain;
	uint32_t retry;
	int ret;

	snprintf(text, sizeof(text),
		"HTTP/1.1 503 Service Unavailable\r\n%s\r\n\r\n", header);
	plain = read_text(text, 1024, &ret, NULL);
	assert_int_equal(ret, 0);
	assert_int_equal(plain_status(plain), 503);
	assert_string_equal(plain_reason(plain), "Service Unavailable");
	retry = plain_retry_after_ms(plain);
	plain_free(plain);
	return retry;
}

static void test_retry_after_is_bounded(void **state)
{
	assert_int_equal(retry_of("Retry-After: 7"), 7000);
	assert_int_equal(retry_of("retry-after: 0"), PLAIN_RETRY_MIN_MS);
	assert_int_equal(retry_of("Retry-After: 86400"), PLAIN_RETRY_MAX_MS);
	assert_int_equal(retry_of("Retry-After: 99999999999999999999999"),
		PLAIN_RETRY_MAX_MS);
	assert_int_equal(retry_of("Retry-After: -1"), 0);
	assert_int_equal(retry_of("Retry-After: 7s"), 0);
	assert_int_equal(retry_of("Retry-After:"), 0);
	assert_int_equal(
		retry_of("Retry-After: Fri, 31 Dec 2027 23:59:59 GMT"), 0);
	assert_int_equal(retry_of("Server: haproxy"), 0);
}

static void test_what_follows_the_head_stays_in_the_socket(void **state)
{
	char buf[16];
	int ret, fd;
	struct plain *plain = read_text(
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x16\x03", 1024,
		&ret, &fd);

	assert_int_equal(ret, 0);
	assert_int_equal(plain_status(plain), 200);
	assert_int_equal(read(fd, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "\x16\x03", 2);
	close(fd);
	plain_free(plain);
}

static void test_a_head_in_pieces(void **state)
{
	static const char head[] = "HTTP/1.1 407 Log in,\x01 please\r\n"
				   "Retry-After: 3\r\n\r\n";
	struct plain *plain = plain_new(1024);
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	for (size_t i = 0; i < sizeof(head) - 1; i++) {
		assert_int_equal(plain_read(plain, fds[0]), -EAGAIN);
		assert_int_equal(write(fds[1], &head[i], 1), 1);
	}
	assert_int_equal(plain_read(plain, fds[0]), 0);
	assert_int_equal(plain_status(plain), 407);
	assert_string_equal(plain_reason(plain), "Log in,? please");
	assert_int_equal(plain_retry_after_ms(plain), 3000);
	close(fds[0]);
	close(fds[1]);
	plain_free(plain);
}

static void check_bad(const char *text, int expected)
{
	int ret;

	plain_free(read_text(text, 1024, &ret, NULL));
	assert_int_equal(ret, expected);
}

static void test_what_is_no_head_is_told(void **state)
{
	char *long_head = calloc(1, 3000);

	check_bad("HELO there\r\n", -EBADMSG);
	check_bad("HTTP/1.1 503 Service Unav", -ECONNRESET);
	check_bad("", -ECONNRESET);
	strcpy(long_head, "HTTP/1.1 503 No\r\nX: ");
	memset(long_head + strlen(long_head), 'x', 2000);
	check_bad(long_head, -EBADMSG);
	free(long_head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_retry_after_is_bounded),
		cmocka_unit_test(
			test_what_follows_the_head_stays_in_the_socket),
		cmocka_unit_test(test_a_head_in_pieces),
		cmocka_unit_test(test_what_is_no_head_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
