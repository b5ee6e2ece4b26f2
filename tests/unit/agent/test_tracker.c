/* SPDX-License-Identifier: Apache-2.0 */
/* The reference's tracker tests (peering-reference 14.3), and our own. */
#include "tests/unit/test.h"

#include "tests/unit/agent/fleet.h"

#define SECOND 1000

/* A lease that a proxy answered. */
static void lease_and_claim(struct tracker *tracker, int n, int64_t now)
{
	assert_true(tracker_lease(tracker, now));
	assert_true(tracker_claim(tracker, proxy_id(n), now));
}

static void test_the_first_lease_needs_no_knowledge(void **state)
{
	struct tracker *tracker = tracker_new();

	assert_true(tracker_lease(tracker, 0));
	assert_false(tracker_lease(tracker, 0)); /* one at a time */
	tracker_return(tracker);
	lease_and_claim(tracker, 1, 0);
	/* its own push will soon tell more */
	assert_false(tracker_lease(tracker, 0));
	assert_true(tracker_lease(tracker, TRACKER_YOUNG_MS));
	tracker_free(tracker);
}

static void test_peering_wants_one_and_mesh_all(void **state)
{
	const struct said three[] = {{.n = 1}, {.n = 2}, {.n = 3}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 1);
	mention(tracker, three, 3, 0);
	lease_and_claim(tracker, 2, 0);
	assert_false(tracker_lease(tracker, 0));
	tracker_set_count(tracker, 0);
	lease_and_claim(tracker, 1, 0);
	lease_and_claim(tracker, 3, 0);
	assert_false(tracker_lease(tracker, 0));
	assert_int_equal(tracker_claimed(tracker), 3);
	tracker_free(tracker);
}

/* Proxies behind a load balancer that answers with any living one. */
struct fleet {
	struct tracker *tracker;
	bool alive[32];
	int64_t now;
	unsigned seed;
};

static void fleet_mention(struct fleet *fleet)
{
	struct said said[32] = {0};
	size_t count = 0;

	for (int n = 0; n < 32; n++)
		if (fleet->alive[n])
			said[count++].n = n;
	/* only who has a tunnel to a living proxy hears */
	for (int n = 0; n < 32; n++) {
		if (!fleet->alive[n] ||
			!tracker_is_claimed(fleet->tracker, proxy_id(n)))
			continue;
		mention(fleet->tracker, said, count, fleet->now);
		return;
	}
}

static int fleet_pick(struct fleet *fleet)
{
	int count = 0, which;

	for (int n = 0; n < 32; n++)
		count += fleet->alive[n];
	which = rand_r(&fleet->seed) % count;
	for (int n = 0; n < 32; n++)
		if (fleet->alive[n] && which-- == 0)
			return n;
	return -1;
}

/* A second of the agent's life: every lease dials once. */
static void fleet_second(struct fleet *fleet)
{
	int granted = 0;

	fleet->now += SECOND;
	tracker_expire(fleet->tracker, fleet->now);
	fleet_mention(fleet);
	while (tracker_lease(fleet->tracker, fleet->now))
		granted++;
	while (granted--)
		if (!tracker_claim(fleet->tracker, proxy_id(fleet_pick(fleet)),
			    fleet->now))
			tracker_return(fleet->tracker);
}

static void fleet_kill(struct fleet *fleet, int n)
{
	fleet->alive[n] = false;
	tracker_release(fleet->tracker, proxy_id(n));
}

static bool fleet_is_covered(const struct fleet *fleet)
{
	for (int n = 0; n < 32; n++)
		if (fleet->alive[n] &&
			!tracker_is_claimed(fleet->tracker, proxy_id(n)))
			return false;
	return true;
}

static void test_basic_proxies_of_random_lifetime_are_covered(void **state)
{
	struct fleet fleet = {.tracker = tracker_new(), .seed = 7};
	bool seen[16] = {false};
	int missing = 16;

	for (int second = 0; second < 3600 && missing; second++) {
		int n = rand_r(&fleet.seed) % 16;

		if (fleet.alive[n] && rand_r(&fleet.seed) % 20 == 0)
			fleet_kill(&fleet, n);
		else
			fleet.alive[n] = true;
		fleet.alive[0] = true;
		fleet_second(&fleet);
		for (n = 0; n < 16; n++) {
			if (seen[n] || !fleet.alive[n] ||
				!tracker_is_claimed(fleet.tracker, proxy_id(n)))
				continue;
			seen[n] = true;
			missing--;
		}
	}
	assert_int_equal(missing, 0);
	tracker_free(fleet.tracker);
}

static void test_full_rotation_is_followed_within_30_s(void **state)
{
	for (unsigned seed = 1; seed <= 20; seed++) {
		struct fleet fleet = {.tracker = tracker_new(), .seed = seed};
		int n;

		for (n = 0; n < 8; n++)
			fleet.alive[n] = true;
		for (n = 0; n < 600 && !fleet_is_covered(&fleet); n++)
			fleet_second(&fleet);
		assert_true(fleet_is_covered(&fleet));
		for (n = 0; n < 8; n++)
			fleet_kill(&fleet, n);
		for (n = 8; n < 16; n++)
			fleet.alive[n] = true;
		for (n = 0; n < 30; n++)
			fleet_second(&fleet);
		assert_true(fleet_is_covered(&fleet));
		tracker_free(fleet.tracker);
	}
}

static void test_is_claimed(void **state)
{
	const struct said two[] = {{.n = 1}, {.n = 2}};
	struct tracker *tracker = tracker_new();

	mention(tracker, two, 2, 0);
	assert_false(tracker_is_claimed(tracker, proxy_id(1)));
	lease_and_claim(tracker, 1, 0);
	assert_true(tracker_is_claimed(tracker, proxy_id(1)));
	assert_false(tracker_is_claimed(tracker, proxy_id(2)));
	assert_true(tracker_lease(tracker, 0));
	assert_false(tracker_claim(tracker, proxy_id(1), 0));
	/* the refused lease is still out */
	assert_false(tracker_lease(tracker, 0));
	tracker_return(tracker);
	assert_true(tracker_lease(tracker, 0));
	tracker_release(tracker, proxy_id(1));
	assert_false(tracker_is_claimed(tracker, proxy_id(1)));
	tracker_release(tracker, proxy_id(1)); /* twice is fine */
	tracker_free(tracker);
}

enum { XA = 1, XB, XE, XF, YC, YD };

static void test_proxy_groups(void **state)
{
	const struct said x1[] = {{.n = XA, .group = "x", .generation = 1},
		{.n = XB, .group = "x", .generation = 1}};
	const struct said x2[] = {{.n = XE, .group = "x", .generation = 2},
		{.n = XF, .group = "x", .generation = 2}};
	const struct said y1[] = {{.n = YC, .group = "y", .generation = 1},
		{.n = YD, .group = "y", .generation = 1}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 2);
	mention(tracker, x1, 2, 0);
	mention(tracker, y1, 2, 0);
	lease_and_claim(tracker, XA, 0);
	lease_and_claim(tracker, XB, 0);
	assert_false(tracker_lease(tracker, 0));
	/* xa and xb no longer count */
	mention(tracker, x2, 2, 0);
	lease_and_claim(tracker, YC, 0);
	lease_and_claim(tracker, YD, 0);
	assert_false(tracker_lease(tracker, 0));
	tracker_set_count(tracker, 0);
	lease_and_claim(tracker, XE, 0);
	lease_and_claim(tracker, XF, 0);
	assert_false(tracker_lease(tracker, 0));
	tracker_release(tracker, proxy_id(XA));
	assert_false(tracker_lease(tracker, 0));
	tracker_release(tracker, proxy_id(YC));
	assert_true(tracker_lease(tracker, 0));
	assert_false(tracker_lease(tracker, 0));
	tracker_free(tracker);
}

static void test_a_draining_proxy_does_not_count(void **state)
{
	struct said two[] = {{.n = 1}, {.n = 2}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 1);
	mention(tracker, two, 2, 0);
	lease_and_claim(tracker, 1, 0);
	two[0].draining = true;
	mention(tracker, two, 2, 1);
	assert_false(tracker_is_desired(tracker, proxy_id(1)));
	lease_and_claim(tracker, 2, 1);
	assert_false(tracker_lease(tracker, 1));
	two[0].draining = false; /* it is reversible */
	mention(tracker, two, 2, 2);
	assert_false(tracker_lease(tracker, 2));
	tracker_free(tracker);
}

static void test_what_nobody_mentions_expires(void **state)
{
	const struct said two[] = {{.n = 1}, {.n = 2}};
	struct tracker *tracker = tracker_new();
	size_t count;

	mention(tracker, two, 2, 0);
	mention(tracker, two + 1, 1, 1000);
	assert_int_equal(tracker_expire(tracker, TRACKER_EXPIRY_MS - 1),
		TRACKER_EXPIRY_MS);
	assert_int_equal(tracker_expire(tracker, TRACKER_EXPIRY_MS),
		TRACKER_EXPIRY_MS + 1000);
	assert_string_equal(tracker_proxies(tracker, &count)->id, proxy_id(2));
	assert_int_equal(count, 1);
	assert_true(
		tracker_expire(tracker, TRACKER_EXPIRY_MS + 1000) == INT64_MAX);
	tracker_free(tracker);
}

static void test_a_claim_on_the_unmentioned_counts_while_young(void **state)
{
	const struct said one[] = {{.n = 1}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 1);
	mention(tracker, one, 1, 0);
	lease_and_claim(tracker, 9, 0);
	assert_false(tracker_lease(tracker, TRACKER_YOUNG_MS - 1));
	assert_true(tracker_lease(tracker, TRACKER_YOUNG_MS));
	tracker_free(tracker);
}

static void test_known_proxies_are_bounded(void **state)
{
	struct tracker *tracker = tracker_new();
	size_t count;

	for (int n = 0; n < TRACKER_PROXIES_MAX + 5; n++) {
		const struct said one = {.n = n};

		mention(tracker, &one, 1, 0);
	}
	tracker_proxies(tracker, &count);
	assert_int_equal(count, TRACKER_PROXIES_MAX);
	tracker_free(tracker);
}

static void test_tunnel_addresses_come_before_public_ones(void **state)
{
	struct discovery_proxy proxy = {.public_addr = {"p:1"},
		.public_addr_count = 1,
		.tunnel_addr = {"t:2", "u"},
		.tunnel_addr_count = 2};
	struct discovery discovery = {.proxies = &proxy, .proxy_count = 1};
	struct tracker *tracker = tracker_new();
	const struct tracker_proxy *known;
	size_t count;

	strcpy(proxy.id, proxy_id(1));
	tracker_mention(tracker, &discovery, 0);
	known = tracker_proxies(tracker, &count);
	assert_int_equal(known->addr_count, 2);
	assert_string_equal(known->addrs[1], "u");
	assert_int_equal(known->default_port, 3024);
	proxy.tunnel_addr_count = 0;
	tracker_mention(tracker, &discovery, 0);
	known = tracker_proxies(tracker, &count);
	assert_int_equal(known->addr_count, 1);
	assert_string_equal(known->addrs[0], "p:1");
	assert_int_equal(known->default_port, 3080);
	tracker_free(tracker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_first_lease_needs_no_knowledge),
		cmocka_unit_test(test_peering_wants_one_and_mesh_all),
		cmocka_unit_test(
			test_basic_proxies_of_random_lifetime_are_covered),
		cmocka_unit_test(test_full_rotation_is_followed_within_30_s),
		cmocka_unit_test(test_is_claimed),
		cmocka_unit_test(test_proxy_groups),
		cmocka_unit_test(test_a_draining_proxy_does_not_count),
		cmocka_unit_test(test_what_nobody_mentions_expires),
		cmocka_unit_test(
			test_a_claim_on_the_unmentioned_counts_while_young),
		cmocka_unit_test(test_known_proxies_are_bounded),
		cmocka_unit_test(test_tunnel_addresses_come_before_public_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
