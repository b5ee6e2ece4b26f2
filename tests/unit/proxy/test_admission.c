/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "proxy/admission.h"

#define BOUND 64
#define NO_JITTER (0x8000u << 16 | 0xffff) /* the middle, rounded down */

static void fill(struct admission *admission, int64_t now)
{
	while (admission_has_room(admission))
		admission_begin(admission, now);
}

/* All places taken for ms, while one handshake finishes every step_ms. */
static void work(
	struct admission *admission, int64_t *now, int64_t ms, int64_t step_ms)
{
	for (int64_t end = *now + ms; *now < end; *now += step_ms) {
		admission_end(admission, *now, true);
		fill(admission, *now);
	}
}

static void test_room_up_to_the_bound(void **state)
{
	struct admission admission;

	admission_init(&admission, 2);
	assert_true(admission_is_quiet(&admission));
	admission_begin(&admission, 0);
	assert_true(admission_has_room(&admission));
	assert_false(admission_is_quiet(&admission));
	admission_begin(&admission, 0);
	assert_false(admission_has_room(&admission));
	admission_end(&admission, 5, false);
	assert_true(admission_has_room(&admission));
}

static void test_each_refusal_takes_the_next_slot(void **state)
{
	struct admission admission;
	unsigned last = 0;

	admission_init(&admission, BOUND);
	fill(&admission, 0);
	/* 200 a second and a quarter more */
	for (int i = 0; i < 2500; i++) {
		unsigned seconds =
			admission_retry_after(&admission, 0, NO_JITTER);

		assert_in_range(seconds, 1 + i / 250 - (i >= 250), 1 + i / 250);
		assert_true(seconds >= last);
		last = seconds;
	}
	assert_in_range(last, 10, 11);
}

static void test_a_slot_that_nobody_used_lapses(void **state)
{
	struct admission admission;

	admission_init(&admission, BOUND);
	fill(&admission, 0);
	for (int i = 0; i < 2500; i++)
		admission_retry_after(&admission, 0, NO_JITTER);
	assert_in_range(
		admission_retry_after(&admission, 5000, NO_JITTER), 5, 6);
	assert_int_equal(
		admission_retry_after(&admission, 100000, NO_JITTER), 1);
}

static void test_never_later_than_the_most(void **state)
{
	struct admission admission;

	admission_init(&admission, BOUND);
	fill(&admission, 0);
	for (int i = 0; i < 100000; i++) {
		uint32_t random = (uint32_t)i * 2654435761u;

		assert_in_range(
			admission_retry_after(&admission, 0, random), 1, 72);
	}
	/* a minute later nothing of that crowd is left */
	assert_int_equal(
		admission_retry_after(&admission, 60000, NO_JITTER), 1);
}

static void test_jitter_is_a_fifth_either_way(void **state)
{
	assert_int_equal(admission_retry_late(0x0000ffff), 48);
	assert_int_equal(admission_retry_late(NO_JITTER), 60);
	assert_in_range(admission_retry_late(0xffff0000), 71, 72);
}

static void test_slots_follow_the_rate_of_handshakes(void **state)
{
	struct admission admission;
	int64_t now = 0;

	admission_init(&admission, BOUND);
	fill(&admission, now);
	work(&admission, &now, 3000, 1);
	assert_in_range((int)admission.rate, 950, 1050);
	work(&admission, &now, 20000, 20);
	assert_in_range((int)admission.rate, 48, 55);
	for (int i = 0; i < 625; i++)
		admission_retry_after(&admission, now, NO_JITTER);
	assert_in_range(
		admission_retry_after(&admission, now, NO_JITTER), 9, 11);
}

/* Arrivals that are few say nothing of what the host can do. */
static void test_the_rate_is_not_measured_while_there_is_room(void **state)
{
	struct admission admission;
	int64_t now = 0;

	admission_init(&admission, BOUND);
	for (int i = 0; i < 100; i++) {
		admission_begin(&admission, now);
		now += 500;
		admission_end(&admission, now, true);
	}
	assert_int_equal((int)admission.rate, 200);
}

/* Those who only hold their places make the clock slow, but never stop it. */
static void test_stalled_handshakes_slow_the_clock(void **state)
{
	struct admission admission;

	admission_init(&admission, BOUND);
	fill(&admission, 0);
	for (int64_t now = 0; now < 60000; now += 1000)
		admission_retry_after(&admission, now, NO_JITTER);
	assert_int_equal((int)admission.rate, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_room_up_to_the_bound),
		cmocka_unit_test(test_each_refusal_takes_the_next_slot),
		cmocka_unit_test(test_a_slot_that_nobody_used_lapses),
		cmocka_unit_test(test_never_later_than_the_most),
		cmocka_unit_test(test_jitter_is_a_fifth_either_way),
		cmocka_unit_test(test_slots_follow_the_rate_of_handshakes),
		cmocka_unit_test(
			test_the_rate_is_not_measured_while_there_is_room),
		cmocka_unit_test(test_stalled_handshakes_slow_the_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
