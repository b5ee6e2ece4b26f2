/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credit: announced by quarter windows, never more or less than was used, and
 * windows that grow only for fast senders, within their bounds.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include "shared/tunnel_window.h"

#define KIB 1024u

static const struct tunnel_window_facts slow = {
	.rtt_us = 0,
	.max = 1024 * KIB,
	.room = 1024 * KIB,
	.drains = true,
};

static void test_credit_comes_by_quarter_windows(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};

	assert_int_equal(tunnel_window_credit(&window, 10 * KIB, &slow), 0);
	assert_int_equal(
		tunnel_window_credit(&window, 6 * KIB, &slow), 16 * KIB);
	assert_int_equal(tunnel_window_credit(&window, 15 * KIB, &slow), 0);
	assert_int_equal(
		tunnel_window_credit(&window, 15 * KIB, &slow), 30 * KIB);
	assert_int_equal(window.size, 64 * KIB);
}

static void test_large_windows_are_credited_by_steps(void **state)
{
	struct tunnel_window window = {.size = 16384 * KIB};

	assert_int_equal(
		tunnel_window_credit(&window, TUNNEL_WINDOW_STEP - 1, &slow),
		0);
	assert_int_equal(
		tunnel_window_credit(&window, 1, &slow), TUNNEL_WINDOW_STEP);
}

static void test_window_doubles_when_half_comes_in_a_round_trip(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};
	struct tunnel_window_facts facts = slow;

	facts.rtt_us = 20000;
	facts.now_us = 1000000;
	assert_int_equal(
		tunnel_window_credit(&window, 16 * KIB, &facts), 16 * KIB);
	facts.now_us += 10000;
	assert_int_equal(tunnel_window_credit(&window, 16 * KIB, &facts),
		(16 + 64) * KIB);
	assert_int_equal(window.size, 128 * KIB);
}

static void test_slow_sender_gets_no_larger_window(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};
	struct tunnel_window_facts facts = slow;

	facts.rtt_us = 20000;
	for (int i = 0; i < 1000; i++) {
		facts.now_us += 21000;
		tunnel_window_credit(&window, 31 * KIB, &facts);
	}
	assert_int_equal(window.size, 64 * KIB);
}

static void test_stream_that_does_not_drain_gets_no_larger_window(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};
	struct tunnel_window_facts facts = slow;

	facts.rtt_us = 20000;
	facts.drains = false;
	for (int i = 0; i < 100; i++)
		tunnel_window_credit(&window, 64 * KIB, &facts);
	assert_int_equal(window.size, 64 * KIB);
}

static void test_growth_keeps_to_both_bounds(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};
	struct tunnel_window_facts facts = slow;

	facts.rtt_us = 20000;
	facts.max = 300 * KIB;
	for (int i = 0; i < 100; i++)
		tunnel_window_credit(&window, 300 * KIB, &facts);
	assert_int_equal(window.size, 300 * KIB);
	window = (struct tunnel_window){.size = 64 * KIB};
	facts.room = 63 * KIB;
	for (int i = 0; i < 100; i++)
		tunnel_window_credit(&window, 64 * KIB, &facts);
	assert_int_equal(window.size, 64 * KIB);
}

/* All that is announced is what was used plus the growth. */
static void test_nothing_is_announced_twice(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};
	struct tunnel_window_facts facts = slow;
	uint64_t used = 0;
	uint64_t announced = 0;

	facts.rtt_us = 20000;
	for (uint32_t i = 0; i < 5000; i++) {
		uint32_t bytes = i * 7919 % 20011;

		facts.now_us += i % 700;
		used += bytes;
		announced += tunnel_window_credit(&window, bytes, &facts);
		assert_int_equal(announced,
			used - window.credit + window.size - 64 * KIB);
	}
	assert_true(window.size > 64 * KIB);
}

static void test_widening(void **state)
{
	struct tunnel_window window = {.size = 64 * KIB};

	assert_int_equal(tunnel_window_widen(&window, 32 * KIB, UINT64_MAX), 0);
	assert_int_equal(tunnel_window_widen(&window, 256 * KIB, 100), 0);
	assert_int_equal(window.size, 64 * KIB);
	assert_int_equal(
		tunnel_window_widen(&window, 256 * KIB, 192 * KIB), 192 * KIB);
	assert_int_equal(window.size, 256 * KIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_credit_comes_by_quarter_windows),
		cmocka_unit_test(test_large_windows_are_credited_by_steps),
		cmocka_unit_test(
			test_window_doubles_when_half_comes_in_a_round_trip),
		cmocka_unit_test(test_slow_sender_gets_no_larger_window),
		cmocka_unit_test(
			test_stream_that_does_not_drain_gets_no_larger_window),
		cmocka_unit_test(test_growth_keeps_to_both_bounds),
		cmocka_unit_test(test_nothing_is_announced_twice),
		cmocka_unit_test(test_widening),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
