/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels by themselves: reads fill over record bounds, a blocked write goes
 * on from moved memory, what a failed handshake or a reset says, descriptors
 * given back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "shared/sock.h"
#include "tests/unit/shared/endpoint.h"
#include "tests/unit/shared/tls_pair.h"

static void nothing(void *arg)
{
}

static void test_tls_read_fills_over_records(void **state)
{
	static uint8_t buf[30000];
	struct loop *loop = loop_new();
	struct chan *chans[2];
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	tls_pair_chans(loop, fds, chans);
	for (int i = 0; i < 30; i++)
		assert_int_equal(
			chan_write(chans[1], pattern_at(1, 1000u * i), 1000),
			1000);
	assert_int_equal(chan_read(chans[0], buf, 16375), 16375);
	assert_int_equal(chan_read(chans[0], buf + 16375, 16375), 13625);
	assert_memory_equal(buf, pattern_at(1, 0), sizeof(buf));
	assert_int_equal(chan_read(chans[0], buf, 1), -EAGAIN);
	chan_free(chans[0]);
	chan_free(chans[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

/* Offers the rest of the pattern from a fresh copy each time: memory moves. */
static void test_tls_write_resumes_from_moved_memory(void **state)
{
	const size_t total = 2 << 20;
	static uint8_t buf[65536];
	struct loop *loop = loop_new();
	struct chan *chans[2];
	size_t sent = 0;
	size_t got = 0;
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	tls_pair_chans(loop, fds, chans);
	while (got < total) {
		size_t len = total - sent < 50000 ? total - sent : 50000;
		uint8_t *copy = malloc(len + 1);
		ssize_t n;

		assert_non_null(copy);
		memcpy(copy, pattern_at(3, sent), len);
		n = len ? chan_write(chans[1], copy, len) : -EAGAIN;
		free(copy);
		assert_true(n > 0 || n == -EAGAIN);
		if (n > 0) {
			sent += (size_t)n;
			continue;
		}
		n = chan_read(chans[0], buf, sizeof(buf));
		assert_true(n > 0);
		assert_memory_equal(buf, pattern_at(3, got), (size_t)n);
		got += (size_t)n;
	}
	chan_free(chans[0]);
	chan_free(chans[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

static void test_garbage_fails_the_handshake(void **state)
{
	struct loop *loop = loop_new();
	SSL_CTX *ctx = tls_pair_ctx(true);
	SSL *ssl = SSL_new(ctx);
	struct chan *chan;
	int fds[2];

	SSL_CTX_free(ctx);
	assert_int_equal(sock_pair(fds), 0);
	SSL_set_accept_state(ssl);
	chan = chan_new_tls(loop, fds[0], ssl);
	assert_int_equal(chan_handshake(chan), -EAGAIN);
	assert_int_equal(write(fds[1], "GET / HTTP/1.1\r\n\r\n", 18), 18);
	assert_int_equal(chan_handshake(chan), -EPROTO);
	chan_free(chan);
	close(fds[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

static void test_peer_gone_in_the_handshake(void **state)
{
	struct loop *loop = loop_new();
	SSL_CTX *ctx = tls_pair_ctx(true);
	SSL *ssl = SSL_new(ctx);
	struct chan *chan;
	int fds[2];

	SSL_CTX_free(ctx);
	assert_int_equal(sock_pair(fds), 0);
	SSL_set_accept_state(ssl);
	chan = chan_new_tls(loop, fds[0], ssl);
	close(fds[1]);
	assert_true(chan_handshake(chan) < 0);
	assert_int_not_equal(chan_handshake(chan), -EAGAIN);
	chan_free(chan);
	loop_turn(loop, false);
	loop_free(loop);
}

static int wait_once(SSL *ssl, int *alert, void *arg)
{
	int *calls = arg;

	return ++*calls == 1 ? SSL_CLIENT_HELLO_RETRY
			     : SSL_CLIENT_HELLO_SUCCESS;
}

static void test_a_client_hello_can_be_made_to_wait(void **state)
{
	struct loop *loop = loop_new();
	SSL_CTX *ctx = tls_pair_ctx(true);
	SSL_CTX *client_ctx = tls_pair_ctx(false);
	struct chan *chans[2];
	char text[16];
	int calls = 0;
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	SSL_CTX_set_client_hello_cb(ctx, wait_once, &calls);
	chans[0] = chan_new_tls(loop, fds[0], SSL_new(ctx));
	chans[1] = chan_new_tls(loop, fds[1], SSL_new(client_ctx));
	SSL_CTX_free(ctx);
	SSL_CTX_free(client_ctx);
	SSL_set_accept_state(chan_ssl(chans[0]));
	SSL_set_connect_state(chan_ssl(chans[1]));
	assert_int_equal(chan_handshake(chans[1]), -EAGAIN);
	assert_int_equal(chan_handshake(chans[0]), -EINPROGRESS);
	/* nothing was sent: a plain answer is still possible */
	assert_int_equal(recv(fds[1], text, 1, MSG_DONTWAIT), -1);
	assert_int_equal(chan_handshake(chans[0]), -EAGAIN);
	assert_int_equal(calls, 2);
	assert_int_equal(chan_handshake(chans[1]), 0);
	assert_int_equal(chan_handshake(chans[0]), 0);
	chan_free(chans[0]);
	chan_free(chans[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

static void test_reset_is_told_more_than_once(void **state)
{
	struct loop *loop = loop_new();
	struct sock_addr addr;
	struct chan *chan;
	int listener;
	int client;
	int fd;
	char byte;

	assert_int_equal(sock_parse("127.0.0.1:1", 1, &addr), 0);
	((struct sockaddr_in *)&addr.ss)->sin_port = 0;
	listener = sock_listen(&addr, false, 1);
	assert_true(listener >= 0);
	addr.len = sizeof(addr.ss);
	getsockname(listener, (struct sockaddr *)&addr.ss, &addr.len);
	client = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(
		connect(client, (struct sockaddr *)&addr.ss, addr.len), 0);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	chan = chan_new_fd(loop, client);
	chan_abort(chan);
	chan_free(chan);
	chan = chan_new_fd(loop, fd);
	assert_int_equal(chan_read(chan, &byte, 1), -ECONNRESET);
	assert_int_equal(chan_read(chan, &byte, 1), -ECONNRESET);
	chan_free(chan);
	close(listener);
	loop_turn(loop, false);
	loop_free(loop);
}

static void test_released_descriptor_stays_open(void **state)
{
	struct loop *loop = loop_new();
	struct chan *chan;
	int fds[2];
	int fd;

	assert_int_equal(sock_pair(fds), 0);
	chan = chan_new_fd(loop, fds[0]);
	chan_watch(chan, nothing, NULL);
	loop_turn(loop, false);
	fd = chan_release_fd(chan);
	loop_turn(loop, false);
	assert_int_equal(fd, fds[0]);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	close(fds[1]);
	loop_free(loop);
}

static void count(void *arg)
{
	++*(int *)arg;
}

static void test_blocked_answer_is_kept_until_the_edge(void **state)
{
	struct loop *loop = loop_new();
	struct chan *chan;
	int calls = 0;
	char text[8];
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	chan = chan_new_fd(loop, fds[0]);
	chan_watch(chan, count, &calls);
	loop_turn(loop, false);
	loop_turn(loop, false);
	assert_true(calls >= 1);
	assert_int_equal(chan_read(chan, text, 8), -EAGAIN);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(chan_read(chan, text, 8), -EAGAIN);
	calls = 0;
	loop_turn(loop, true);
	assert_int_equal(calls, 1);
	assert_int_equal(chan_read(chan, text, 8), 1);
	chan_free(chan);
	close(fds[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tls_read_fills_over_records),
		cmocka_unit_test(test_tls_write_resumes_from_moved_memory),
		cmocka_unit_test(test_garbage_fails_the_handshake),
		cmocka_unit_test(test_peer_gone_in_the_handshake),
		cmocka_unit_test(test_a_client_hello_can_be_made_to_wait),
		cmocka_unit_test(test_reset_is_told_more_than_once),
		cmocka_unit_test(test_released_descriptor_stays_open),
		cmocka_unit_test(test_blocked_answer_is_kept_until_the_edge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
