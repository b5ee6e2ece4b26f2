/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/strategy.h"
#include "tests/unit/agent/fleet.h"

#define AGENT "0a1b2c3d-0000-4000-8000-00000000000a"
#define PEERING .strategy = DISCOVERY_PROXY_PEERING

static struct strategy of(const struct said *said, size_t n)
{
	struct tracker *tracker = tracker_new();
	const struct tracker_proxy *known;
	struct strategy strategy;
	size_t count;

	mention(tracker, said, n, 0);
	known = tracker_proxies(tracker, &count);
	strategy = strategy_in_force(known, count);
	tracker_free(tracker);
	return strategy;
}

static void test_one_voice_for_mesh_is_enough(void **state)
{
	const struct said all[] = {{.n = 1, PEERING, .count = 2},
		{.n = 2, PEERING, .count = 2},
		{.n = 3, .strategy = DISCOVERY_AGENT_MESH}};

	assert_int_equal(of(all, 3).type, DISCOVERY_AGENT_MESH);
	assert_int_equal(of(all, 3).count, 0);
	assert_int_equal(of(all, 2).type, DISCOVERY_PROXY_PEERING);
	assert_int_equal(of(all, 2).count, 2);
}

static void test_nobody_known_is_mesh(void **state)
{
	assert_int_equal(of(NULL, 0).type, DISCOVERY_AGENT_MESH);
	assert_int_equal(of(NULL, 0).count, 0);
}

static void test_the_largest_count_holds_and_is_at_least_one(void **state)
{
	const struct said all[] = {{.n = 1, PEERING, .count = 0},
		{.n = 2, PEERING, .count = 3}, {.n = 3, PEERING, .count = 2}};

	assert_int_equal(of(all, 1).count, 1);
	assert_int_equal(of(all, 3).count, 3);
}

/* Tunnels to proxies 0..count-1, all desired. */
static size_t mark(const char *agent, uint32_t keep,
	struct strategy_tunnel *tunnels, size_t count)
{
	static char ids[16][37];
	struct strategy strategy = {DISCOVERY_PROXY_PEERING, keep};

	for (size_t i = 0; i < count; i++) {
		strcpy(ids[i], proxy_id(i));
		tunnels[i].proxy_id = ids[i];
	}
	return strategy_mark_surplus(&strategy, agent, tunnels, count);
}

static void test_all_but_the_count_go(void **state)
{
	struct strategy_tunnel tunnels[5] = {0};

	for (int i = 0; i < 5; i++)
		tunnels[i].desired = true;
	assert_int_equal(mark(AGENT, 2, tunnels, 5), 3);
	assert_int_equal(mark(AGENT, 5, tunnels, 5), 0);
	assert_int_equal(mark(AGENT, 7, tunnels, 5), 0);
	assert_int_equal(mark(AGENT, 0, tunnels, 5), 0); /* mesh */
}

static void test_desired_ones_stay(void **state)
{
	struct strategy_tunnel tunnels[5] = {0};

	for (int i = 0; i < 5; i++) {
		for (int j = 0; j < 5; j++)
			tunnels[j].desired = j == i;
		assert_int_equal(mark(AGENT, 1, tunnels, 5), 4);
		assert_false(tunnels[i].surplus);
	}
}

static void test_agents_stay_spread(void **state)
{
	unsigned kept[4] = {0};

	for (int agent = 0; agent < 4000; agent++) {
		struct strategy_tunnel tunnels[4] = {0};
		char id[37];

		snprintf(id, sizeof(id), "%08x-0000-4000-8000-00000000000a",
			agent);
		assert_int_equal(mark(id, 1, tunnels, 4), 3);
		for (int i = 0; i < 4; i++)
			kept[i] += !tunnels[i].surplus;
	}
	for (int i = 0; i < 4; i++)
		assert_in_range(kept[i], 850, 1150);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_voice_for_mesh_is_enough),
		cmocka_unit_test(test_nobody_known_is_mesh),
		cmocka_unit_test(
			test_the_largest_count_holds_and_is_at_least_one),
		cmocka_unit_test(test_all_but_the_count_go),
		cmocka_unit_test(test_desired_ones_stay),
		cmocka_unit_test(test_agents_stay_spread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
