/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses one after another, names among them. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/dial.h"

struct scene {
	struct loop *loop;
	struct resolver *resolver;
	int listener;
	uint16_t port;
	struct dial *dial;
	unsigned calls;
	int fd; /* of the last call */
	char text[512];
};

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	struct sockaddr_in in;
	struct sock_addr addr;

	scene->loop = loop_new();
	scene->resolver = resolver_new(scene->loop);
	sock_parse("127.0.0.1:0", 1, &addr);
	scene->listener = sock_listen(&addr, false, 8);
	addr.len = sizeof(in);
	getsockname(scene->listener, (struct sockaddr *)&in, &addr.len);
	scene->port = ntohs(in.sin_port);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	dial_free(scene->dial);
	resolver_free(scene->resolver);
	loop_turn(scene->loop, false);
	loop_free(scene->loop);
	close(scene->listener);
	free(scene);
	return 0;
}

static void on_dialed(void *arg, int fd, const char *text)
{
	struct scene *scene = arg;

	scene->calls++;
	scene->fd = fd;
	snprintf(scene->text, sizeof(scene->text), "%s", text);
	if (fd >= 0)
		close(fd);
}

static void start(struct scene *scene, const char *const *addrs, unsigned count,
	uint32_t try_ms)
{
	scene->dial = dial_new(scene->loop, scene->resolver, addrs, count,
		scene->port, try_ms, 0, on_dialed, scene);
	assert_int_equal(scene->calls, 0);
}

static void wait_for_call(struct scene *scene, unsigned calls)
{
	while (scene->calls < calls)
		loop_turn(scene->loop, true);
	assert_int_equal(scene->calls, calls);
}

static void test_the_first_that_answers(void **state)
{
	struct scene *scene = *state;
	const char *addrs[] = {"127.0.0.1:1", "no port:x", "127.0.0.1"};
	char want[32];

	start(scene, addrs, 3, 5000);
	wait_for_call(scene, 1);
	assert_true(scene->fd >= 0);
	snprintf(want, sizeof(want), "127.0.0.1:%u", scene->port);
	assert_string_equal(scene->text, want);
}

static void test_a_name(void **state)
{
	struct scene *scene = *state;
	const char *addrs[] = {"localhost"};

	start(scene, addrs, 1, 5000);
	wait_for_call(scene, 1);
	/* ::1 may come first, where nobody listens */
	assert_true(scene->fd >= 0);
}

static void test_all_fail_with_the_last_reason(void **state)
{
	struct scene *scene = *state;
	const char *addrs[] = {"no port:x", "127.0.0.1:1"};

	start(scene, addrs, 2, 5000);
	wait_for_call(scene, 1);
	assert_int_equal(scene->fd, -ECONNREFUSED);
	assert_string_equal(scene->text, "127.0.0.1:1: Connection refused");
}

static void test_going_on_to_the_next(void **state)
{
	struct scene *scene = *state;
	const char *addrs[] = {"127.0.0.1", "127.0.0.1"};

	start(scene, addrs, 2, 5000);
	wait_for_call(scene, 1);
	dial_next(scene->dial);
	wait_for_call(scene, 2);
	assert_true(scene->fd >= 0);
	dial_next(scene->dial);
	wait_for_call(scene, 3);
	assert_true(scene->fd < 0);
}

static void test_nothing_to_dial(void **state)
{
	struct scene *scene = *state;

	start(scene, NULL, 0, 5000);
	wait_for_call(scene, 1);
	assert_int_equal(scene->fd, -EADDRNOTAVAIL);
	assert_string_equal(scene->text, "no address to dial");
}

/* A full backlog drops the SYN: an address that says nothing. */
static void test_an_address_that_says_nothing_times_out(void **state)
{
	struct scene *scene = *state;
	const char *addrs[] = {"127.0.0.1"};
	struct sock_addr addr;
	int fds[64], count = 0;

	sock_parse("127.0.0.1", scene->port, &addr);
	listen(scene->listener, 0);
	for (int i = 0; i < 64; i++)
		fds[count++] = sock_connect(&addr);
	for (int i = 0; i < 20; i++) {
		usleep(1000);
		loop_turn(scene->loop, false);
	}
	start(scene, addrs, 1, 200);
	wait_for_call(scene, 1);
	assert_int_equal(scene->fd, -ETIMEDOUT);
	assert_non_null(strstr(scene->text, "did not answer"));
	while (count--)
		close(fds[count]);
}

static void test_freed_while_it_looks_up_and_connects(void **state)
{
	struct scene *scene = *state;
	const char *names[] = {"localhost"}, *addrs[] = {"127.0.0.1"};

	for (int turns = 0; turns < 4; turns++) {
		start(scene, names, 1, 5000);
		for (int i = 0; i < turns; i++)
			loop_turn(scene->loop, false);
		dial_free(scene->dial);
		start(scene, addrs, 1, 5000);
		for (int i = 0; i < turns && !scene->calls; i++)
			loop_turn(scene->loop, false);
		dial_free(scene->dial);
		scene->dial = NULL;
		scene->calls = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_the_first_that_answers),
		CASE(test_a_name),
		CASE(test_all_fail_with_the_last_reason),
		CASE(test_going_on_to_the_next),
		CASE(test_nothing_to_dial),
		CASE(test_an_address_that_says_nothing_times_out),
		CASE(test_freed_while_it_looks_up_and_connects),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
