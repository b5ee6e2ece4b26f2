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

static void test_without_a_tunnel_a_further_way_is_tried(void **state)
{
	struct tracker *tracker = tracker_new();
	bool hedge;
	int64_t due;

	assert_true(tracker_may_begin(tracker, 0, 0, 10, &hedge, &due));
	assert_false(hedge);
	assert_false(tracker_may_begin(tracker, 1, 10, 11, &hedge, &due));
	assert_int_equal(due, 10 + TRACKER_HEDGE_MS);
	assert_true(tracker_may_begin(tracker, 1, 10, due, &hedge, &due));
	assert_true(hedge);
	assert_false(tracker_may_begin(
		tracker, TRACKER_ATTEMPTS_MAX, 0, 100000, &hedge, &due));
	assert_true(tracker_claim(tracker, proxy_id(1), 20));
	assert_int_equal(tracker_excess(tracker, 20), 1);
	assert_false(tracker_may_begin(tracker, 1, 0, 5000, &hedge, &due));
	assert_true(due == INT64_MAX);
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
struct cloud {
	struct tracker *tracker;
	bool alive[32];
	int64_t now;
	unsigned seed;
};

static void cloud_mention(struct cloud *cloud)
{
	struct said said[32] = {0};
	size_t count = 0;

	for (int n = 0; n < 32; n++)
		if (cloud->alive[n])
			said[count++].n = n;
	/* only who has a tunnel to a living proxy hears */
	for (int n = 0; n < 32; n++) {
		if (!cloud->alive[n] ||
			!tracker_is_claimed(cloud->tracker, proxy_id(n)))
			continue;
		mention(cloud->tracker, said, count, cloud->now);
		return;
	}
}

static int cloud_pick(struct cloud *cloud)
{
	int count = 0, which;

	for (int n = 0; n < 32; n++)
		count += cloud->alive[n];
	which = rand_r(&cloud->seed) % count;
	for (int n = 0; n < 32; n++)
		if (cloud->alive[n] && which-- == 0)
			return n;
	return -1;
}

/* A second of the agent's life: every lease dials once. */
static void cloud_second(struct cloud *cloud)
{
	int granted = 0;

	cloud->now += SECOND;
	tracker_expire(cloud->tracker, cloud->now);
	cloud_mention(cloud);
	while (tracker_lease(cloud->tracker, cloud->now))
		granted++;
	while (granted--)
		if (!tracker_claim(cloud->tracker, proxy_id(cloud_pick(cloud)),
			    cloud->now))
			tracker_return(cloud->tracker);
}

static void cloud_kill(struct cloud *cloud, int n)
{
	cloud->alive[n] = false;
	tracker_release(cloud->tracker, proxy_id(n));
}

static bool cloud_is_covered(const struct cloud *cloud)
{
	for (int n = 0; n < 32; n++)
		if (cloud->alive[n] &&
			!tracker_is_claimed(cloud->tracker, proxy_id(n)))
			return false;
	return true;
}

static void test_basic_proxies_of_random_lifetime_are_covered(void **state)
{
	struct cloud cloud = {.tracker = tracker_new(), .seed = 7};
	bool seen[16] = {false};
	int missing = 16;

	for (int second = 0; second < 3600 && missing; second++) {
		int n = rand_r(&cloud.seed) % 16;

		if (cloud.alive[n] && rand_r(&cloud.seed) % 20 == 0)
			cloud_kill(&cloud, n);
		else
			cloud.alive[n] = true;
		cloud.alive[0] = true;
		cloud_second(&cloud);
		for (n = 0; n < 16; n++) {
			if (seen[n] || !cloud.alive[n] ||
				!tracker_is_claimed(cloud.tracker, proxy_id(n)))
				continue;
			seen[n] = true;
			missing--;
		}
	}
	assert_int_equal(missing, 0);
	tracker_free(cloud.tracker);
}

static void test_full_rotation_is_followed_within_30_s(void **state)
{
	for (unsigned seed = 1; seed <= 20; seed++) {
		struct cloud cloud = {.tracker = tracker_new(), .seed = seed};
		int n;

		for (n = 0; n < 8; n++)
			cloud.alive[n] = true;
		for (n = 0; n < 600 && !cloud_is_covered(&cloud); n++)
			cloud_second(&cloud);
		assert_true(cloud_is_covered(&cloud));
		for (n = 0; n < 8; n++)
			cloud_kill(&cloud, n);
		for (n = 8; n < 16; n++)
			cloud.alive[n] = true;
		for (n = 0; n < 30; n++)
			cloud_second(&cloud);
		assert_true(cloud_is_covered(&cloud));
		tracker_free(cloud.tracker);
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
	const struct said all[] = {{.n = XE, .group = "x", .generation = 2},
		{.n = XF, .group = "x", .generation = 2},
		{.n = XA, .group = "x", .generation = 1},
		{.n = XB, .group = "x", .generation = 1},
		{.n = YC, .group = "y", .generation = 1},
		{.n = YD, .group = "y", .generation = 1}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 2);
	mention(tracker, all + 2, 4, 0);
	lease_and_claim(tracker, XA, 0);
	lease_and_claim(tracker, XB, 0);
	assert_false(tracker_lease(tracker, 0));
	/* xa and xb no longer count */
	mention(tracker, all, 6, 0);
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

static void test_without_lists_what_was_known_expires(void **state)
{
	const struct said two[] = {{.n = 1}, {.n = 2}};
	struct tracker *tracker = tracker_new();

	mention(tracker, two, 2, 0);
	mention(tracker, two + 1, 1, 1000);
	/* a list is the whole fleet */
	assert_int_equal(tracker_fleet(tracker)->count, 1);
	assert_int_equal(tracker_expire(tracker, TRACKER_EXPIRY_MS),
		TRACKER_EXPIRY_MS + 1000);
	assert_true(
		tracker_expire(tracker, TRACKER_EXPIRY_MS + 1000) == INT64_MAX);
	assert_null(tracker_fleet(tracker));
	tracker_free(tracker);
}

static void test_an_older_list_is_no_news(void **state)
{
	const struct said two[] = {{.n = 1}, {.n = 2}};
	struct tracker *tracker = tracker_new();

	said_revision = 7;
	assert_true(mention(tracker, two, 2, 0));
	said_revision = 6;
	assert_false(mention(tracker, two, 1, 0));
	said_revision = 0; /* a proxy that knows only itself */
	assert_false(mention(tracker, two, 1, 0));
	said_revision = 7;
	assert_true(mention(tracker, two, 1, 0));
	assert_int_equal(tracker_fleet(tracker)->count, 1);
	said_revision = 0;
	tracker_free(tracker);
}

/* 1 and 2 have a tunnel, 3 is there too. */
static void test_who_is_asked_to_leave_goes_where_there_is_room(void **state)
{
	const struct said three[] = {{.n = 1}, {.n = 2}, {.n = 3}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 2);
	mention(tracker, three, 3, 0);
	lease_and_claim(tracker, 1, 0);
	lease_and_claim(tracker, 2, 0);
	assert_false(tracker_leave(tracker, proxy_id(3), "", 0));
	assert_true(tracker_leave(tracker, proxy_id(1), proxy_id(3), 0));
	assert_string_equal(tracker_wanted_first(tracker), proxy_id(3));
	assert_true(tracker_is_leaving(tracker, proxy_id(1)));
	assert_false(tracker_is_desired(tracker, proxy_id(1)));
	/* one after the other */
	assert_false(tracker_leave(tracker, proxy_id(2), "", 0));
	lease_and_claim(tracker, 3, 0);
	assert_false(tracker_lease(tracker, 0));
	assert_true(tracker_is_needless(tracker, proxy_id(1), 0));
	tracker_release(tracker, proxy_id(1));
	/* having left, it is one like others again, and satisfied */
	assert_int_equal(tracker_target(tracker), 2);
	assert_false(tracker_lease(tracker, 0));
	tracker_expire(tracker, 1);
	assert_string_equal(tracker_wanted_first(tracker), "");
	tracker_free(tracker);
}

static void test_nobody_leaves_for_nowhere(void **state)
{
	const struct said two[] = {
		{.n = 1}, {.n = 2}, {.n = 3, .draining = true}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 2);
	mention(tracker, two, 3, 0);
	lease_and_claim(tracker, 1, 0);
	lease_and_claim(tracker, 2, 0);
	assert_false(tracker_leave(tracker, proxy_id(1), "", 0));
	tracker_free(tracker);
}

static void test_nobody_is_moved_out_of_its_zones(void **state)
{
	const struct said four[] = {{.n = 1, .zone = "a"},
		{.n = 2, .zone = "b"}, {.n = 3, .zone = "b"},
		{.n = 4, .zone = "a"}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 2);
	mention(tracker, four, 4, 0);
	lease_and_claim(tracker, 1, 0);
	lease_and_claim(tracker, 2, 0);
	assert_false(tracker_leave(tracker, proxy_id(1), proxy_id(3), 0));
	assert_true(tracker_leave(tracker, proxy_id(1), proxy_id(4), 0));
	tracker_free(tracker);
}

static void test_leaving_that_does_not_come_about_is_forgotten(void **state)
{
	const struct said two[] = {{.n = 1}, {.n = 2}};
	struct tracker *tracker = tracker_new();

	tracker_set_count(tracker, 1);
	mention(tracker, two, 2, 0);
	lease_and_claim(tracker, 1, 0);
	assert_true(tracker_leave(tracker, proxy_id(1), "", 0));
	assert_int_equal(tracker_expire(tracker, 1), TRACKER_LEAVE_MS);
	assert_true(tracker_lease(tracker, 1));
	tracker_return(tracker);
	tracker_expire(tracker, TRACKER_LEAVE_MS);
	assert_false(tracker_lease(tracker, TRACKER_LEAVE_MS));
	assert_true(tracker_is_desired(tracker, proxy_id(1)));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_first_lease_needs_no_knowledge),
		cmocka_unit_test(test_without_a_tunnel_a_further_way_is_tried),
		cmocka_unit_test(test_peering_wants_one_and_mesh_all),
		cmocka_unit_test(
			test_basic_proxies_of_random_lifetime_are_covered),
		cmocka_unit_test(test_full_rotation_is_followed_within_30_s),
		cmocka_unit_test(test_is_claimed),
		cmocka_unit_test(test_proxy_groups),
		cmocka_unit_test(test_a_draining_proxy_does_not_count),
		cmocka_unit_test(test_without_lists_what_was_known_expires),
		cmocka_unit_test(test_an_older_list_is_no_news),
		cmocka_unit_test(
			test_who_is_asked_to_leave_goes_where_there_is_room),
		cmocka_unit_test(test_nobody_leaves_for_nowhere),
		cmocka_unit_test(test_nobody_is_moved_out_of_its_zones),
		cmocka_unit_test(
			test_leaving_that_does_not_come_about_is_forgotten),
		cmocka_unit_test(
			test_a_claim_on_the_unmentioned_counts_while_young),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
