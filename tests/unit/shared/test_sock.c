/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/sock.h"

static void addresses_are_split(void **state)
{
	static const struct {
		const char *text, *host;
		uint16_t default_port, port;
		int ret;
	} cases[] = {
		{"a.example:3080", "a.example", 0, 3080, 0},
		{"a.example", "a.example", 3021, 3021, 0},
		{"[::1]:22", "::1", 0, 22, 0},
		{"[::1]", "::1", 7, 7, 0},
		{":80", "", 0, 80, 0},
		{"a.example", NULL, 0, 0, -EINVAL},
		{"::1", NULL, 80, 0, -EINVAL},
		{"a:65536", NULL, 0, 0, -EINVAL},
		{"a:-1", NULL, 0, 0, -EINVAL},
		{"a:", NULL, 80, 0, -EINVAL},
		{"a:8x", NULL, 80, 0, -EINVAL},
		{"[::1", NULL, 80, 0, -EINVAL},
		{"[::1]x:1", NULL, 80, 0, -EINVAL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char host[64];
		uint16_t port = 0;

		assert_int_equal(
			sock_split(cases[i].text, cases[i].default_port, host,
				sizeof(host), &port),
			cases[i].ret);
		if (cases[i].ret < 0)
			continue;
		assert_string_equal(host, cases[i].host);
		assert_int_equal(port, cases[i].port);
	}
}

static void numeric_addresses_round_trip(void **state)
{
	static const char *const cases[] = {
		"127.0.0.1:3080", "[::1]:22", "0.0.0.0:1"};
	struct sock_addr addr;
	char text[SOCK_ADDR_MAX];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(sock_parse(cases[i], 0, &addr), 0);
		sock_format(&addr, text, sizeof(text));
		assert_string_equal(text, cases[i]);
	}
	assert_int_equal(sock_parse("*:5", 0, &addr), 0);
	sock_format(&addr, text, sizeof(text));
	assert_string_equal(text, "0.0.0.0:5");
	assert_int_equal(sock_parse("name.example:5", 0, &addr), -EINVAL);
}

static void a_dead_unix_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	char dir[] = "/tmp/peerway-test-XXXXXX", path[64];
	int first, second;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	first = sock_unix_listen(path, 0600);
	assert_true(first >= 0);
	assert_int_equal(sock_unix_listen(path, 0600), -EADDRINUSE);
	close(first);
	second = sock_unix_listen(path, 0600);
	assert_true(second >= 0);
	close(second);
	unlink(path);
	rmdir(dir);
}

static void a_long_unix_path_is_refused(void **state)
{
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(sock_unix_listen(path, 0600), -ENAMETOOLONG);
	assert_int_equal(sock_unix_connect(path), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_split),
		cmocka_unit_test(numeric_addresses_round_trip),
		cmocka_unit_test(
			a_dead_unix_socket_is_replaced_and_a_live_one_is_not),
		cmocka_unit_test(a_long_unix_path_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
