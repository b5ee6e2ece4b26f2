/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "agent/candidates.h"
#include "tests/unit/agent/fleet.h"

struct fixture {
	struct candidates *candidates;
	struct tracker *tracker;
	int64_t now;
	struct candidate got;
	int64_t due;
	bool servers_first;
};

static int setup(void **state)
{
	static const char *const servers[] = {"proxy.example.com", "b:1"};
	struct fixture *f = calloc(1, sizeof(*f));

	f->candidates = candidates_new(servers, 2);
	f->tracker = tracker_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	candidates_free(f->candidates);
	tracker_free(f->tracker);
	free(f);
	return 0;
}

static bool pick(struct fixture *f, uint32_t random)
{
	return candidates_pick(f->candidates, f->tracker, f->servers_first,
		f->now, random, &f->got, &f->due);
}

static void claim(struct fixture *f, int n)
{
	assert_true(tracker_lease(f->tracker, f->now));
	assert_true(tracker_claim(f->tracker, proxy_id(n), f->now));
}

static void went_wrong(struct fixture *f)
{
	candidates_idle(f->candidates, f->got.key);
	candidates_failed(f->candidates, f->got.key, f->now, 0);
}

static void test_proxy_server_comes_first_if_wanted(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {{.n = 1, .addr = "p1:3080"}};

	f->servers_first = true;
	mention(f->tracker, known, 1, 0);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "proxy.example.com");
	assert_int_equal(f->got.addr_count, 1);
	assert_int_equal(f->got.default_port, 3080);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "b:1");
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "p1:3080");
	/* all are under way */
	assert_false(pick(f, 0));
	assert_true(f->due == INT64_MAX);
}

static void test_chance_decides_among_equals(void **state)
{
	struct fixture *f = *state;

	assert_true(pick(f, 1));
	assert_string_equal(f->got.addrs[0], "b:1");
}

static void test_else_the_proxies_that_lack_a_tunnel(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {{.n = 1, .addr = "p1:3080"},
		{.n = 2, .addr = "p2:3080"}, {.n = 3}};

	mention(f->tracker, known, 3, 0);
	claim(f, 1);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "p2:3080");
	assert_string_equal(f->got.key, proxy_id(2));
	/* 3 told no address: only a load balancer may lead there */
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "proxy.example.com");
}

static void test_who_failed_waits_and_does_not_hold_up_others(void **state)
{
	struct fixture *f = *state;

	assert_true(pick(f, 0));
	went_wrong(f);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "b:1");
	went_wrong(f);
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 1000);
	f->now = 1000;
	assert_true(pick(f, 0));
	went_wrong(f);
	assert_true(pick(f, 0));
	went_wrong(f);
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 3000);
}

static void test_fewest_failures_first(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {
		{.n = 1, .addr = "p1:3080"}, {.n = 2, .addr = "p2:3080"}};

	mention(f->tracker, known, 2, 0);
	claim(f, 1);
	assert_true(pick(f, 0)); /* p2 */
	went_wrong(f);
	f->now = 60000;
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "proxy.example.com");
}

static void test_only_a_settled_tunnel_resets_the_backoff(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++) {
		f->now = i * 100000;
		assert_true(pick(f, 0));
		candidates_idle(f->candidates, "server 0");
		went_wrong(f); /* its tunnel has ended */
		assert_true(pick(f, 0));
		went_wrong(f);
	}
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 203000);
	candidates_settled(f->candidates, "server 0");
	went_wrong(f);
	candidates_failed(f->candidates, "server 0", f->now, 0);
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 201000);
}

static void test_a_forgotten_proxy_is_no_candidate(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {
		{.n = 1, .addr = "p1:1"}, {.n = 2, .addr = "p2:1"}};

	mention(f->tracker, known, 2, 0);
	claim(f, 1);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, proxy_id(2));
	f->now = TRACKER_EXPIRY_MS;
	tracker_expire(f->tracker, f->now);
	candidates_idle(f->candidates, proxy_id(2));
	for (int i = 0; i < 2; i++) {
		assert_true(pick(f, i));
		assert_memory_equal(f->got.key, "server", 6);
	}
	assert_false(pick(f, 0));
	candidates_failed(f->candidates, proxy_id(2), f->now, 0);
	candidates_settled(f->candidates, "nobody"); /* nothing to find */
}

static void test_draining_ones_are_the_last_resort(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {{.n = 1, .addr = "p1:1"},
		{.n = 2, .addr = "p2:1", .draining = true}};

	mention(f->tracker, known, 2, 0);
	for (int i = 0; i < 4; i++) {
		assert_true(pick(f, 0));
	}
	assert_false(pick(f, 0)); /* with no tunnel at all, even p2 */
	candidates_idle(f->candidates, proxy_id(1));
	candidates_idle(f->candidates, proxy_id(2));
	claim(f, 1);
	assert_false(pick(f, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_proxy_server_comes_first_if_wanted),
		CASE(test_chance_decides_among_equals),
		CASE(test_else_the_proxies_that_lack_a_tunnel),
		CASE(test_who_failed_waits_and_does_not_hold_up_others),
		CASE(test_fewest_failures_first),
		CASE(test_only_a_settled_tunnel_resets_the_backoff),
		CASE(test_a_forgotten_proxy_is_no_candidate),
		CASE(test_draining_ones_are_the_last_resort),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
