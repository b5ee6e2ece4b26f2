/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/strategy.h"
#include "tests/unit/agent/fleet.h"

#define AGENT "0a1b2c3d-0000-4000-8000-00000000000a"

static const struct place nowhere = {"", ""};

/* Tunnels to proxies 0..count-1, all desired and published. */
static void prepare(struct strategy_tunnel *tunnels, size_t count)
{
	static char ids[16][37];

	for (size_t i = 0; i < count; i++) {
		strcpy(ids[i], proxy_id(i));
		tunnels[i] = (struct strategy_tunnel){.proxy_id = ids[i],
			.place = nowhere,
			.desired = true,
			.published = true};
	}
}

static size_t judge(
	uint32_t keep, struct strategy_tunnel *tunnels, size_t count)
{
	return strategy_judge(
		keep, keep ? keep : count, &nowhere, AGENT, tunnels, count);
}

static void test_all_but_the_count_go(void **state)
{
	struct strategy_tunnel tunnels[5];

	prepare(tunnels, 5);
	assert_int_equal(judge(2, tunnels, 5), 3);
	assert_int_equal(judge(5, tunnels, 5), 0);
	assert_int_equal(judge(7, tunnels, 5), 0);
	assert_int_equal(judge(0, tunnels, 5), 0); /* mesh */
}

static void test_desired_ones_stay(void **state)
{
	struct strategy_tunnel tunnels[5];

	for (int i = 0; i < 5; i++) {
		prepare(tunnels, 5);
		for (int j = 0; j < 5; j++)
			tunnels[j].desired = j == i;
		assert_int_equal(judge(1, tunnels, 5), 4);
		for (int j = 0; j < 5; j++)
			assert_int_equal(tunnels[j].verdict,
				j == i ? STRATEGY_STAY : STRATEGY_LEAVE);
	}
}

static void test_nothing_goes_before_enough_are_published(void **state)
{
	struct strategy_tunnel tunnels[3];

	prepare(tunnels, 3);
	tunnels[0].desired = false; /* drains, say */
	tunnels[1].published = false;
	tunnels[2].published = false;
	assert_int_equal(judge(2, tunnels, 3), 0);
	tunnels[1].published = true;
	assert_int_equal(judge(2, tunnels, 3), 0);
	assert_int_equal(judge(1, tunnels, 3), 1);
	assert_int_equal(tunnels[0].verdict, STRATEGY_LEAVE);
	/* nor is what is not published yet one too many */
	assert_int_equal(tunnels[2].verdict, STRATEGY_STAY);
	tunnels[2].published = true;
	assert_int_equal(judge(2, tunnels, 3), 1);
}

static void test_nothing_goes_when_there_is_nowhere_to_be(void **state)
{
	struct strategy_tunnel tunnels[2];

	prepare(tunnels, 2);
	tunnels[0].desired = tunnels[1].desired = false;
	assert_int_equal(strategy_judge(1, 0, &nowhere, AGENT, tunnels, 2), 0);
}

static void test_in_a_mesh_a_draining_proxy_is_left(void **state)
{
	struct strategy_tunnel tunnels[3];

	prepare(tunnels, 3);
	tunnels[1].desired = false;
	assert_int_equal(strategy_judge(0, 2, &nowhere, AGENT, tunnels, 3), 1);
	assert_int_equal(tunnels[1].verdict, STRATEGY_LEAVE);
}

static void test_agents_stay_spread(void **state)
{
	unsigned kept[4] = {0};

	for (int agent = 0; agent < 4000; agent++) {
		struct strategy_tunnel tunnels[4];
		char id[37];

		snprintf(id, sizeof(id), "%08x-0000-4000-8000-00000000000a",
			agent);
		prepare(tunnels, 4);
		assert_int_equal(
			strategy_judge(1, 1, &nowhere, id, tunnels, 4), 3);
		for (int i = 0; i < 4; i++)
			kept[i] += tunnels[i].verdict == STRATEGY_STAY;
	}
	for (int i = 0; i < 4; i++)
		assert_in_range(kept[i], 850, 1150);
}

static void test_near_ones_stay_and_spread_over_zones(void **state)
{
	const struct place own = {"eu", "a"};
	struct strategy_tunnel tunnels[5];

	for (int agent = 0; agent < 50; agent++) {
		char id[37];

		snprintf(id, sizeof(id), "%08x-0000-4000-8000-00000000000a",
			agent);
		prepare(tunnels, 5);
		tunnels[0].place = (struct place){"us", "a"};
		tunnels[1].place = tunnels[2].place = own;
		tunnels[3].place = tunnels[4].place = (struct place){"eu", "b"};
		assert_int_equal(strategy_judge(2, 2, &own, id, tunnels, 5), 3);
		assert_int_equal(tunnels[0].verdict, STRATEGY_SURPLUS);
		assert_int_not_equal(tunnels[1].verdict, tunnels[2].verdict);
		assert_int_not_equal(tunnels[3].verdict, tunnels[4].verdict);
		assert_int_equal(strategy_judge(1, 1, &own, id, tunnels, 5), 4);
		assert_true(tunnels[1].verdict == STRATEGY_STAY ||
			    tunnels[2].verdict == STRATEGY_STAY);
	}
}

static void test_a_verdict_is_carried_out_when_it_has_held(void **state)
{
	struct strategy_waits waits = {0};
	struct strategy_tunnel tunnels[2];
	bool ripe[STRATEGY_SURPLUS + 1];

	prepare(tunnels, 2);
	tunnels[0].verdict = STRATEGY_LEAVE;
	assert_int_equal(strategy_ripen(&waits, tunnels, 2, 100, ripe),
		100 + STRATEGY_LEAVE_MS);
	assert_false(ripe[STRATEGY_LEAVE]);
	tunnels[1].verdict = STRATEGY_SURPLUS;
	assert_int_equal(strategy_ripen(&waits, tunnels, 2,
				 100 + STRATEGY_LEAVE_MS, ripe),
		100 + STRATEGY_LEAVE_MS + STRATEGY_SURPLUS_MS);
	assert_true(ripe[STRATEGY_LEAVE]);
	assert_false(ripe[STRATEGY_SURPLUS] || ripe[STRATEGY_STAY]);
	/* taken back, it begins anew */
	tunnels[0].verdict = tunnels[1].verdict = STRATEGY_STAY;
	assert_true(
		strategy_ripen(&waits, tunnels, 2, 9000, ripe) == INT64_MAX);
	tunnels[1].verdict = STRATEGY_SURPLUS;
	strategy_ripen(&waits, tunnels, 2, 10000, ripe);
	assert_false(ripe[STRATEGY_SURPLUS]);
	strategy_ripen(&waits, tunnels, 2, 10000 + STRATEGY_SURPLUS_MS, ripe);
	assert_true(ripe[STRATEGY_SURPLUS]);
}

static void test_distance(void **state)
{
	const struct place own = {"eu", "a"}, zone = {"eu", "b"},
			   region = {"us", "a"}, unknown = {"", ""};

	assert_int_equal(strategy_distance(&own, &own, 0), 0);
	assert_int_equal(strategy_distance(&own, &unknown, 0), 0);
	assert_int_equal(strategy_distance(&unknown, &zone, 0), 0);
	assert_true(strategy_distance(&own, &zone, 0) > 0);
	/* a second tunnel rather goes to another zone */
	assert_true(strategy_distance(&own, &own, 1) >
		    strategy_distance(&own, &zone, 0));
	/* but stays in the region */
	assert_true(strategy_distance(&own, &region, 0) >
		    strategy_distance(&own, &own, 100000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_but_the_count_go),
		cmocka_unit_test(test_desired_ones_stay),
		cmocka_unit_test(test_nothing_goes_before_enough_are_published),
		cmocka_unit_test(test_nothing_goes_when_there_is_nowhere_to_be),
		cmocka_unit_test(test_in_a_mesh_a_draining_proxy_is_left),
		cmocka_unit_test(test_agents_stay_spread),
		cmocka_unit_test(test_near_ones_stay_and_spread_over_zones),
		cmocka_unit_test(
			test_a_verdict_is_carried_out_when_it_has_held),
		cmocka_unit_test(test_distance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
