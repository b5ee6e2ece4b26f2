/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "shared/cidr.h"

static bool holds(const char *range, const char *address)
{
	struct cidr cidr;
	struct sock_addr addr;

	assert_int_equal(cidr_parse(range, &cidr), 0);
	assert_int_equal(sock_parse(address, 1, &addr), 0);
	return cidr_contains(&cidr, &addr);
}

static void test_ranges_hold_their_addresses(void **state)
{
	(void)state;
	assert_true(holds("127.0.0.0/8", "127.255.0.1"));
	assert_false(holds("127.0.0.0/8", "128.0.0.1"));
	assert_true(holds("10.1.2.3", "10.1.2.3"));
	assert_false(holds("10.1.2.3", "10.1.2.2"));
	assert_true(holds("10.1.2.128/25", "10.1.2.129"));
	assert_false(holds("10.1.2.128/25", "10.1.2.127"));
	assert_true(holds("0.0.0.0/0", "8.8.8.8"));
	assert_false(holds("0.0.0.0/0", "[::1]:1"));
	assert_true(holds("::1", "[::1]:1"));
	assert_true(holds("fe80::/10", "[febf::1]:1"));
	assert_false(holds("fe80::/10", "[fec0::1]:1"));
	assert_true(holds("::/0", "8.8.8.8"));
}

static void test_ipv4_through_an_ipv6_socket_is_ipv4(void **state)
{
	(void)state;
	assert_true(holds("10.0.0.0/8", "[::ffff:10.1.1.1]:1"));
	assert_false(holds("10.0.0.0/8", "[::ffff:11.1.1.1]:1"));
}

static void test_no_range_is_refused(void **state)
{
	static const char *const rows[] = {"", "/", "/8", "10.0.0.0/", "10/8",
		"10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/-1", "::1/129",
		"10.0.0.0/8 ", "localhost", "10.0.0.0/1000",
		"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111"};
	struct cidr cidr;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!cidr_parse(rows[i], &cidr))
			fail_msg("accepted: %s", rows[i]);
	}
}

static void test_another_family_is_in_no_range(void **state)
{
	struct cidr cidr;
	struct sock_addr addr = {.ss = {.ss_family = AF_UNIX}};

	(void)state;
	assert_int_equal(cidr_parse("::/0", &cidr), 0);
	assert_false(cidr_contains(&cidr, &addr));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges_hold_their_addresses),
		cmocka_unit_test(test_ipv4_through_an_ipv6_socket_is_ipv4),
		cmocka_unit_test(test_no_range_is_refused),
		cmocka_unit_test(test_another_family_is_in_no_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
