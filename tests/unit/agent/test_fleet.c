/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "tests/unit/agent/fleet.h"

#define PEERING .strategy = DISCOVERY_PROXY_PEERING

static struct strategy of(const struct said *said, size_t count)
{
	struct fleet *fleet = fleet_of(said, count);
	struct strategy strategy = fleet->strategy;

	fleet_unref(fleet);
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

static void test_the_newest_generation_of_each_group_is_desired(void **state)
{
	const struct said all[] = {{.n = 5, .group = "x", .generation = 1},
		{.n = 4, .group = "x", .generation = 3},
		{.n = 3, .group = "x", .generation = 3, .draining = true},
		{.n = 2, .group = "y"}, {.n = 1}};
	const bool desired[] = {true, true, false, true, false}; /* by number */
	struct fleet *fleet = fleet_of(all, 5);

	assert_int_equal(fleet->desired, 3);
	for (int i = 0; i < 5; i++) {
		assert_string_equal(fleet->proxies[i].id, proxy_id(i + 1));
		assert_int_equal(fleet->proxies[i].desired, desired[i]);
		assert_ptr_equal(
			fleet_find(fleet, proxy_id(i + 1)), &fleet->proxies[i]);
	}
	assert_null(fleet_find(fleet, proxy_id(6)));
	assert_null(fleet_find(NULL, proxy_id(1)));
	assert_null(fleet_find(fleet,
		"an id that is much longer than any id of a proxy can be"));
	fleet_unref(fleet);
}

static void test_tunnel_addresses_come_before_public_ones(void **state)
{
	struct discovery_proxy proxy = {.public_addr = {"p"},
		.public_addr_count = 1,
		.tunnel_addr = {"t:2", "u", "[::1]:7"},
		.tunnel_addr_count = 3};
	struct discovery discovery = {.proxies = &proxy, .proxy_count = 1};
	struct fleet *fleet;

	strcpy(proxy.id, proxy_id(1));
	fleet = fleet_new(&discovery);
	assert_int_equal(fleet->proxies[0].addr_count, 3);
	assert_string_equal(fleet->proxies[0].addrs[0], "t:2");
	assert_string_equal(fleet->proxies[0].addrs[1], "u:3024");
	assert_string_equal(fleet->proxies[0].addrs[2], "[::1]:7");
	assert_ptr_equal(fleet_at(fleet, "t:2"), &fleet->proxies[0]);
	assert_null(fleet_at(fleet, "u:3024"));
	fleet_unref(fleet);
	proxy.tunnel_addr_count = 0;
	fleet = fleet_new(&discovery);
	assert_int_equal(fleet->proxies[0].addr_count, 1);
	assert_string_equal(fleet->proxies[0].addrs[0], "p:3080");
	fleet_unref(fleet);
}

static void test_what_is_news(void **state)
{
	struct fleet a = {.store_id = "one", .revision = 5};
	struct fleet b = a;

	assert_true(fleet_is_news(NULL, &a));
	assert_true(fleet_is_news(&a, &b)); /* said again: it still holds */
	b.revision = 6;
	assert_true(fleet_is_news(&a, &b));
	assert_false(fleet_is_news(&b, &a));
	strcpy(a.store_id, "two"); /* the backend was restored */
	assert_true(fleet_is_news(&b, &a));
	a.revision = 0; /* a proxy that has no cache yet */
	assert_false(fleet_is_news(&b, &a));
	assert_true(fleet_is_news(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_voice_for_mesh_is_enough),
		cmocka_unit_test(test_nobody_known_is_mesh),
		cmocka_unit_test(
			test_the_largest_count_holds_and_is_at_least_one),
		cmocka_unit_test(
			test_the_newest_generation_of_each_group_is_desired),
		cmocka_unit_test(test_tunnel_addresses_come_before_public_ones),
		cmocka_unit_test(test_what_is_news),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
