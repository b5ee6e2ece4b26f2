/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon tells the service manager, heard at the manager's socket. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/daemon.h"

static int manager;

static int set_up(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char name[64];
	int len = snprintf(
		name, sizeof(name), "@peerway-test-%ld", (long)getpid());

	memcpy(addr.sun_path + 1, name + 1, (size_t)len - 1);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return bind(manager, (struct sockaddr *)&addr,
		offsetof(struct sockaddr_un, sun_path) + (size_t)len);
}

static int tear_down(void **state)
{
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	return close(manager);
}

/* How many messages have arrived; the last one. */
static int heard(char *text, size_t size)
{
	int count = 0;
	ssize_t n;

	while ((n = recv(manager, text, size - 1, 0)) >= 0) {
		text[n] = '\0';
		count++;
	}
	return count;
}

static void on_end(void *arg)
{
	loop_stop(arg);
}

static void run_for(int64_t ms)
{
	struct loop *loop = loop_new();
	struct timer *end = timer_new(loop, on_end, loop);

	timer_set(end, ms);
	daemon_run(loop);
	timer_free(end);
	loop_free(loop);
}

static void watch(int64_t usec, long pid)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)usec);
	setenv("WATCHDOG_USEC", text, 1);
	snprintf(text, sizeof(text), "%ld", pid);
	setenv("WATCHDOG_PID", text, 1);
}

static void a_loop_that_turns_tells_so_twice_in_the_time(void **state)
{
	char text[128];
	int count;

	watch(40000, getpid());
	run_for(210);
	count = heard(text, sizeof(text));
	assert_string_equal(text, "WATCHDOG=1");
	assert_in_range(count, 3, 11); /* a busy machine makes it fewer */
}

static void another_process_is_not_spoken_for(void **state)
{
	char text[128];

	watch(40000, getppid());
	run_for(60);
	assert_int_equal(heard(text, sizeof(text)), 0);
}

static void nothing_is_told_when_nobody_watches(void **state)
{
	char text[128];

	run_for(20);
	assert_int_equal(heard(text, sizeof(text)), 0);
	watch(0, getpid());
	run_for(20);
	assert_int_equal(heard(text, sizeof(text)), 0);
}

static void who_stops_says_how_long_it_takes(void **state)
{
	char text[128];

	daemon_stopping(300000);
	assert_int_equal(heard(text, sizeof(text)), 1);
	assert_string_equal(text, "STOPPING=1\nEXTEND_TIMEOUT_USEC=315000000");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_loop_that_turns_tells_so_twice_in_the_time, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			another_process_is_not_spoken_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			nothing_is_told_when_nobody_watches, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			who_stops_says_how_long_it_takes, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
