/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/ext: lists from the network, and what we announce. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "peerd/ext.h"

static unsigned parse(const char *text)
{
	return ext_parse(text, strlen(text));
}

static void names_are_read_and_unknown_ones_skipped(void **state)
{
	assert_int_equal(parse("eof"), EXT_EOF);
	assert_int_equal(parse("credit,eof"), EXT_CREDIT | EXT_EOF);
	assert_int_equal(
		parse(" trace , future,,frame64k"), EXT_TRACE | EXT_FRAME64K);
	assert_int_equal(parse(""), 0);
	assert_int_equal(parse("eo,eofx,EOF"), 0);
	assert_int_equal(ext_parse("eofx", 3), EXT_EOF); /* not terminated */
}

static void what_is_announced_is_read_back(void **state)
{
	char text[EXT_TEXT_MAX];

	for (unsigned set = 0; set <= EXT_ALL; set++) {
		size_t len = ext_format(set, text);

		assert_int_equal(len, strlen(text));
		assert_int_equal(ext_parse(text, len), set);
	}
	ext_format(EXT_ALL, text);
	assert_string_equal(text, "eof,credit,frame64k,reason,trace");
}

static void a_first_credit_is_a_number_within_bounds(void **state)
{
	assert_int_equal(ext_parse_credit("262144", 6, 1 << 20), 262144);
	assert_int_equal(ext_parse_credit("262144x", 7, 1 << 20), 0);
	assert_int_equal(ext_parse_credit("-1", 2, 1 << 20), 0);
	assert_int_equal(ext_parse_credit("1048577", 7, 1 << 20), 0);
	assert_int_equal(
		ext_parse_credit("99999999999999999999999", 23, 1ull << 40), 0);
	assert_int_equal(ext_parse_credit("", 0, 1 << 20), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_read_and_unknown_ones_skipped),
		cmocka_unit_test(what_is_announced_is_read_back),
		cmocka_unit_test(a_first_credit_is_a_number_within_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
