/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/listener: a queue that nobody takes from is noticed, a busy one is not
 * mistaken for it, and descriptors are kept for gRPC. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "peerd/listener.h"
#include "shared/sock.h"

static int listen_somewhere(char addr[SOCK_ADDR_MAX])
{
	struct sock_addr any;
	int fd;

	assert_int_equal(sock_parse("127.0.0.1:0", 1, &any), 0);
	fd = sock_listen(&any, false, 16);
	assert_true(fd >= 0);
	any.len = sizeof(any.ss);
	assert_int_equal(
		getsockname(fd, (struct sockaddr *)&any.ss, &any.len), 0);
	sock_format(&any, addr, SOCK_ADDR_MAX);
	return fd;
}

static int connect_to(const char *addr)
{
	struct sock_addr to;

	assert_int_equal(sock_parse(addr, 0, &to), 0);
	return sock_connect(&to);
}

static void a_queue_that_stays_is_noticed(void **state)
{
	char addr[SOCK_ADDR_MAX];
	int fd = listen_somewhere(addr);
	struct listener listener;
	int client;

	listener_init(&listener, addr);
	for (int i = 0; i < 5; i++)
		assert_false(listener_is_deaf(&listener));
	client = connect_to(addr);
	assert_false(listener_is_deaf(&listener));
	assert_false(listener_is_deaf(&listener));
	assert_true(listener_is_deaf(&listener));
	close(client);
	close(fd);
}

static void a_queue_that_is_taken_from_is_not(void **state)
{
	char addr[SOCK_ADDR_MAX];
	int fd = listen_somewhere(addr);
	struct listener listener;

	listener_init(&listener, addr);
	for (int i = 0; i < 4; i++) {
		int client = connect_to(addr);

		assert_false(listener_is_deaf(&listener));
		assert_false(listener_is_deaf(&listener));
		close(accept(fd, NULL, NULL));
		assert_false(listener_is_deaf(&listener));
		close(client);
	}
	close(fd);
}

static void a_closed_listener_is_looked_for_again(void **state)
{
	char addr[SOCK_ADDR_MAX];
	int fd = listen_somewhere(addr);
	struct listener listener;

	listener_init(&listener, addr);
	assert_false(listener_is_deaf(&listener));
	assert_int_equal(listener.fd, fd);
	close(fd);
	assert_false(listener_is_deaf(&listener));
	assert_int_equal(listener.fd, -1);
}

static void the_last_descriptors_are_kept(void **state)
{
	struct rlimit before, low;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	low.rlim_cur = 100;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_false(listener_needs_fd(10));
	assert_true(listener_needs_fd(99));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_queue_that_stays_is_noticed),
		cmocka_unit_test(a_queue_that_is_taken_from_is_not),
		cmocka_unit_test(a_closed_listener_is_looked_for_again),
		cmocka_unit_test(the_last_descriptors_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
