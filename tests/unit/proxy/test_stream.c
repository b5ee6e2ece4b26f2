/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/stream.h"

static void check_escaped(const char *text, const char *expected)
{
	char out[800];

	stream_escape(text, out, sizeof(out));
	assert_string_equal(out, expected);
}

static void test_what_a_header_cannot_carry_is_escaped(void **state)
{
	(void)state;
	check_escaped("", "");
	check_escaped("alice@example.org", "alice@example.org");
	check_escaped("a b%c", "a%20b%25c");
	check_escaped("x\r\nauthorization: y", "x%0D%0Aauthorization:%20y");
	check_escaped("\xc3\xa9\x7f", "%C3%A9%7F");
}

static void test_a_long_name_is_cut_between_characters(void **state)
{
	char out[6];

	(void)state;
	stream_escape("abcdefgh", out, sizeof(out));
	assert_string_equal(out, "abcde");
	stream_escape("abc\n\n", out, sizeof(out));
	assert_string_equal(out, "abc");
	stream_escape("ab\n\n", out, sizeof(out));
	assert_string_equal(out, "ab%0A");
	stream_escape("a", out, 1);
	assert_string_equal(out, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_a_header_cannot_carry_is_escaped),
		cmocka_unit_test(test_a_long_name_is_cut_between_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
