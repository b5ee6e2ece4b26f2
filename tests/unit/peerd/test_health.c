/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/health: the score of a peer's pings. */
#include "tests/unit/test.h"

#include "peerd/health.h"

static void an_answer_makes_a_peer_good(void **state)
{
	struct health h = {0};

	assert_int_equal(h.verdict, HEALTH_UNKNOWN);
	assert_true(health_note(&h, HEALTH_ANSWERED, 800));
	assert_int_equal(h.verdict, HEALTH_GOOD);
	assert_false(health_note(&h, HEALTH_ANSWERED, 1600));
	assert_int_equal(h.latency_us, 1000);
	assert_int_equal(h.last_us, 1600);
	assert_int_equal(h.pings, 2);
	assert_int_equal(h.failed, 0);
}

static void one_missed_ping_makes_it_silent_and_one_answer_good(void **state)
{
	struct health h = {0};

	health_note(&h, HEALTH_ANSWERED, 800);
	assert_true(health_note(&h, HEALTH_MISSED, 5000000));
	assert_int_equal(h.verdict, HEALTH_SILENT);
	assert_int_equal(h.latency_us, 800); /* a wait is no latency */
	assert_false(health_note(&h, HEALTH_MISSED, 5000000));
	assert_int_equal(h.failed, 2);
	assert_true(health_note(&h, HEALTH_ANSWERED, 900));
	assert_int_equal(h.verdict, HEALTH_GOOD);
}

static void errors_and_slowness_degrade(void **state)
{
	struct health h = {0};

	health_note(&h, HEALTH_ANSWERED, 800);
	assert_true(health_note(&h, HEALTH_ERROR, 900));
	assert_int_equal(h.verdict, HEALTH_DEGRADED);
	assert_true(health_note(&h, HEALTH_ANSWERED, 900));
	assert_true(health_note(&h, HEALTH_ANSWERED, HEALTH_SLOW_US));
	assert_int_equal(h.verdict, HEALTH_DEGRADED);
}

static void a_long_way_is_not_slow(void **state)
{
	struct health h = {.latency_us = 400000};

	health_note(&h, HEALTH_ANSWERED, 600000);
	assert_int_equal(h.verdict, HEALTH_GOOD);
}

static void a_silent_peer_is_known_within_13_seconds(void **state)
{
	struct health h = {.verdict = HEALTH_GOOD};

	for (uint32_t r = 0; r < 5000; r++) {
		uint32_t pause = health_pause(&h, r);

		assert_true(pause >= 7000 && pause <= 8000);
	}
	h.verdict = HEALTH_SILENT;
	assert_int_equal(health_pause(&h, 77), HEALTH_RETRY_MS);
}

static void a_new_connection_starts_anew(void **state)
{
	struct health h = {.verdict = HEALTH_SILENT,
		.latency_us = 5,
		.pings = 3,
		.failed = 2};

	health_forget(&h);
	assert_int_equal(h.verdict, HEALTH_UNKNOWN);
	assert_int_equal(h.latency_us, 0);
	assert_int_equal(h.pings, 3); /* counters only grow */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_makes_a_peer_good),
		cmocka_unit_test(
			one_missed_ping_makes_it_silent_and_one_answer_good),
		cmocka_unit_test(errors_and_slowness_degrade),
		cmocka_unit_test(a_long_way_is_not_slow),
		cmocka_unit_test(a_silent_peer_is_known_within_13_seconds),
		cmocka_unit_test(a_new_connection_starts_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
