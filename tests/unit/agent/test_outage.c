/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/outage.h"

#define A "a.example.com:3080"
#define B "192.0.2.1:3080"
#define REFUSED B ": Connection refused"

static int setup(void **state)
{
	*state = outage_new();
	outage_begin(*state, 1000);
	return 0;
}

static int teardown(void **state)
{
	outage_free(*state);
	return 0;
}

/* NULL: silent. */
static void check_said(
	struct outage *outage, bool complete, int64_t now, const char *expected)
{
	char *line = outage_say(outage, complete, now);

	if (expected)
		assert_string_equal(line, expected);
	else if (line)
		fail_msg("said: %s", line);
	free(line);
}

static void test_one_line_names_all(void **state)
{
	struct outage *outage = *state;

	check_said(outage, true, 1000, NULL);
	outage_failed(
		outage, A, "192.0.2.9:3080: did not answer", false, 1000, 2001);
	check_said(outage, false, 1000, NULL);
	outage_failed(outage, B, REFUSED, false, 1500, 2500);
	check_said(outage, true, 1500,
		"no proxy can be reached: a.example.com:3080 (192.0.2.9:3080: "
		"did not answer), next attempt in 1 s; 192.0.2.1:3080: "
		"Connection refused, next attempt in 1 s");
	check_said(outage, true, 1600, NULL);
}

static void test_what_hangs_does_not_keep_it_back(void **state)
{
	struct outage *outage = *state;

	outage_failed(outage, B, REFUSED, false, 2000, 3000);
	check_said(outage, false, 2000 + OUTAGE_GATHER_MS - 1, NULL);
	check_said(outage, false, 2000 + OUTAGE_GATHER_MS,
		"no proxy can be reached: " REFUSED ", next attempt in 0 s");
}

static void fail_until(struct outage *outage, int64_t from, int64_t until)
{
	for (int64_t now = from; now < until; now += 1000) {
		outage_failed(outage, B, REFUSED, false, now, now + 1000);
		check_said(outage, true, now, NULL);
	}
}

static void test_again_each_minute_or_for_another_reason(void **state)
{
	struct outage *outage = *state;
	const char *refused =
		"no proxy can be reached: " REFUSED ", next attempt in 1 s";
	int64_t now = 1000;

	outage_failed(outage, B, REFUSED, false, now, now + 1000);
	check_said(outage, true, now, refused);
	fail_until(outage, now, now + OUTAGE_REPEAT_MS);
	now += OUTAGE_REPEAT_MS;
	outage_failed(outage, B, REFUSED, false, now, now + 1000);
	check_said(outage, true, now, refused);
	/* another reason waits only for its turn */
	fail_until(outage, now, now + 5000);
	outage_failed(outage, B, B ": No route to host", false, now + 5000,
		now + 6000);
	check_said(outage, true, now + 5000, NULL);
	now += OUTAGE_CHANGE_MS;
	check_said(outage, true, now,
		"no proxy can be reached: 192.0.2.1:3080: No route to host, "
		"next attempt in 0 s");
	fail_until(outage, now + 1000, now + OUTAGE_CHANGE_MS);
}

static void test_how_long_it_lasted(void **state)
{
	struct outage *outage = *state;

	outage_failed(outage, B, REFUSED, false, 2000, 3000);
	/* nothing was said, so nothing is over */
	assert_int_equal(outage_end(outage, 3000), 0);
	assert_null(outage_text(outage, 3000));
	outage_begin(outage, 5000);
	outage_begin(outage, 6000);
	outage_failed(outage, B, REFUSED, false, 7000, 8000);
	free(outage_say(outage, true, 7000));
	assert_int_equal(outage_end(outage, 9000), 4000);
	assert_int_equal(outage_end(outage, 9500), 0);
	/* the next one is news again */
	outage_begin(outage, 10000);
	outage_failed(outage, B, REFUSED, false, 10000, 11000);
	check_said(outage, true, 10000,
		"no proxy can be reached: " REFUSED ", next attempt in 1 s");
}

static void test_busy_is_not_news_each_time(void **state)
{
	struct outage *outage = *state;

	outage_failed(
		outage, B, B ": busy, come back in 7 s", true, 1000, 8000);
	assert_true(outage_is_busy(outage));
	free(outage_say(outage, true, 1000));
	outage_failed(
		outage, B, B ": busy, come back in 9 s", true, 8000, 17000);
	check_said(outage, true, 12000, NULL);
	outage_failed(outage, A, "a: gone", false, 12000, 13000);
	assert_false(outage_is_busy(outage));
	check_said(outage, true, 12000,
		"no proxy can be reached: 192.0.2.1:3080: busy, come back in 9 "
		"s, next attempt in 5 s; a.example.com:3080 (a: gone), next "
		"attempt in 1 s");
}

static void test_bounds(void **state)
{
	struct outage *outage = *state;
	char addr[32], *line;

	for (int i = 0; i < 2 * OUTAGE_ADDRS_MAX; i++) {
		snprintf(addr, sizeof(addr), "192.0.2.%d:1", i);
		outage_failed(outage, addr, "no", false, 1000, 2000);
	}
	line = outage_say(outage, true, 1000);
	assert_non_null(strstr(line, "; and 24 others"));
	assert_null(strstr(line, "192.0.2.8:1"));
	free(line);
	/* what is tried no more is forgotten */
	check_said(outage, true, 2001 + OUTAGE_REPEAT_MS, NULL);
	assert_null(outage_text(outage, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_one_line_names_all),
		CASE(test_what_hangs_does_not_keep_it_back),
		CASE(test_again_each_minute_or_for_another_reason),
		CASE(test_how_long_it_lasted),
		CASE(test_busy_is_not_news_each_time),
		CASE(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
