/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/trace_report: what a callee says of a dial. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "peerd/trace_report.h"

static void what_is_written_is_read_back(void **state)
{
	const struct trace_report report = {.worker = 3, .us = 123456};
	struct trace_report back = {0};
	char text[TRACE_REPORT_SIZE];

	trace_report_format(&report, text);
	assert_string_equal(text, "worker=3;us=123456");
	assert_true(trace_report_parse(text, strlen(text), &back));
	assert_int_equal(back.worker, 3);
	assert_int_equal(back.us, 123456);
}

static void what_is_not_known_is_skipped(void **state)
{
	const char *text = "v=2;us=7;;agent=x;worker=0;";
	struct trace_report back = {.worker = 9};

	assert_true(trace_report_parse(text, strlen(text), &back));
	assert_int_equal(back.worker, 0);
	assert_int_equal(back.us, 7);
}

static void anything_else_is_no_report(void **state)
{
	static const char *const texts[] = {"", ";", "worker=1", "us=1",
		"worker=;us=1", "worker=-1;us=1", "worker=1;us=x",
		"worker=99999999999;us=1", "worker=1;us=9999999999999999999999",
		"workers=1;us=1", "worker=1,us=1"};
	struct trace_report back = {.worker = 9, .us = 9};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_false(
			trace_report_parse(texts[i], strlen(texts[i]), &back));
	assert_int_equal(back.worker, 9);
	assert_int_equal(back.us, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(what_is_not_known_is_skipped),
		cmocka_unit_test(anything_else_is_no_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
