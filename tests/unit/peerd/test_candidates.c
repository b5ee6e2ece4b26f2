/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/candidates: who is asked first, who is not asked twice, for how long,
 * and what is said of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "peerd/candidates.h"

static bool add(struct candidates *c, const char *id, enum candidate_health h)
{
	return candidates_add(c, id, (struct candidate_rank){.health = h}) !=
	       NULL;
}

static void the_near_and_the_fast_come_first(void **state)
{
	struct candidates c = {0};
	const struct candidate_rank slow = {.latency_us = 30000};
	const struct candidate_rank fast = {.latency_us = 4000};
	const struct candidate_rank far = {.far = true, .latency_us = 100};
	const struct candidate_rank sick = {.health = CANDIDATE_DEGRADED};

	candidates_add(&c, "sick", sick);
	candidates_add(&c, "far", far);
	candidates_add(&c, "slow", slow);
	candidates_add(&c, "fast", fast);
	assert_string_equal(candidates_next(&c)->proxy_id, "fast");
	assert_string_equal(candidates_next(&c)->proxy_id, "slow");
	assert_string_equal(candidates_next(&c)->proxy_id, "far");
	assert_string_equal(candidates_next(&c)->proxy_id, "sick");
}

static void the_healthy_come_first_in_their_order(void **state)
{
	struct candidates c = {0};

	assert_true(add(&c, "down", CANDIDATE_UNREACHABLE));
	assert_true(add(&c, "leaving", CANDIDATE_DRAINING));
	assert_true(add(&c, "first", CANDIDATE_READY));
	assert_true(add(&c, "new", CANDIDATE_UNKNOWN));
	assert_true(add(&c, "second", CANDIDATE_READY));
	assert_string_equal(candidates_next(&c)->proxy_id, "first");
	assert_string_equal(candidates_next(&c)->proxy_id, "second");
	assert_string_equal(candidates_next(&c)->proxy_id, "new");
	assert_int_equal(candidates_untried(&c), 2);
	assert_string_equal(candidates_next(&c)->proxy_id, "leaving");
	assert_string_equal(candidates_next(&c)->proxy_id, "down");
	assert_null(candidates_next(&c));
}

static void nobody_is_asked_twice(void **state)
{
	struct candidates c = {0};

	assert_true(add(&c, "a", CANDIDATE_READY));
	assert_non_null(candidates_next(&c));
	assert_false(add(&c, "a", CANDIDATE_READY));
	assert_null(candidates_next(&c));
}

static void the_list_is_bounded(void **state)
{
	struct candidates c = {0};
	char id[37];

	for (int i = 0; i < CANDIDATES_MAX; i++) {
		snprintf(id, sizeof(id), "proxy-%d", i);
		assert_true(add(&c, id, CANDIDATE_READY));
	}
	assert_false(add(&c, "one-more", CANDIDATE_READY));
}

static void time_is_shared(void **state)
{
	assert_int_equal(candidates_share(10000, 1), 10000);
	assert_int_equal(candidates_share(10000, 2), 5000);
	assert_int_equal(candidates_share(10000, 50), CANDIDATE_MIN_MS);
	assert_int_equal(candidates_share(500, 3), 500);
	assert_int_equal(candidates_share(0, 3), 0);
	assert_int_equal(candidates_share(-5, 3), 0);
	assert_int_equal(candidates_share(INT64_MAX, 1), UINT32_MAX);
}

static void a_late_answer_is_measured_by_the_peer_itself(void **state)
{
	struct candidate_rank rank = {.health = CANDIDATE_READY};

	assert_int_equal(candidates_hedge_ms(&rank), 250); /* not known */
	rank.latency_us = 400;
	assert_int_equal(candidates_hedge_ms(&rank), CANDIDATE_HEDGE_MIN_MS);
	rank.latency_us = 40000;
	assert_int_equal(candidates_hedge_ms(&rank), 50 + 4 * 40);
	rank.latency_us = 10 * 1000 * 1000;
	assert_int_equal(candidates_hedge_ms(&rank), CANDIDATE_HEDGE_MAX_MS);
	rank.latency_us = INT64_MAX / 8;
	assert_int_equal(candidates_hedge_ms(&rank), CANDIDATE_HEDGE_MAX_MS);
	/* nobody waits for the one that is known to be silent */
	rank.health = CANDIDATE_UNREACHABLE;
	assert_int_equal(candidates_hedge_ms(&rank), CANDIDATE_HEDGE_MIN_MS);
}

static void a_rank_is_explained(void **state)
{
	struct candidate candidate = {
		.rank = {.health = CANDIDATE_READY, .latency_us = 440},
	};
	char text[CANDIDATE_REASON_SIZE];

	candidates_reason(&candidate, text);
	assert_string_equal(text, "ready, own region, 0.4 ms");
	candidate.rank.health = CANDIDATE_UNREACHABLE;
	candidate.rank.far = true;
	candidate.rank.latency_us = 0;
	candidate.from_authd = true;
	candidates_reason(&candidate, text);
	assert_string_equal(text,
		"unreachable, another region, latency unknown, named by "
		"authd");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_near_and_the_fast_come_first),
		cmocka_unit_test(the_healthy_come_first_in_their_order),
		cmocka_unit_test(nobody_is_asked_twice),
		cmocka_unit_test(the_list_is_bounded),
		cmocka_unit_test(time_is_shared),
		cmocka_unit_test(a_late_answer_is_measured_by_the_peer_itself),
		cmocka_unit_test(a_rank_is_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
