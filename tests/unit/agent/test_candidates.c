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

	f->candidates =
		candidates_new(servers, 2, &(struct place){"eu", "a"}, 8000);
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
	assert_string_equal(f->got.addrs[0], "proxy.example.com:3080");
	assert_int_equal(f->got.addr_count, 1);
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
	int first = 0;

	for (uint32_t random = 0; random < 1000; random++) {
		assert_true(pick(f, random * 2654435761u));
		first += strcmp(f->got.key, "b:1") == 0;
		candidates_idle(f->candidates, f->got.key);
	}
	assert_in_range(first, 400, 600);
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
	assert_string_equal(f->got.key, "p2:3080");
	/* 3 told no address: only a load balancer may lead there */
	assert_true(pick(f, 0));
	assert_string_equal(f->got.addrs[0], "proxy.example.com:3080");
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
	assert_string_equal(f->got.addrs[0], "proxy.example.com:3080");
}

static void test_only_a_settled_tunnel_resets_the_backoff(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 2; i++) {
		f->now = i * 100000;
		assert_true(pick(f, 0));
		candidates_idle(f->candidates, "proxy.example.com:3080");
		went_wrong(f); /* its tunnel has ended */
		assert_true(pick(f, 0));
		went_wrong(f);
	}
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 102000);
	candidates_settled(f->candidates, "proxy.example.com:3080");
	went_wrong(f);
	candidates_failed(f->candidates, "proxy.example.com:3080", f->now, 0);
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 101000);
}

/* Cut off, it does not run through all that it knows. */
static void test_after_failures_in_a_row_there_is_a_pause(void **state)
{
	struct fixture *f = *state;
	struct said known[8];
	char addrs[8][8];

	for (int n = 0; n < 8; n++) {
		snprintf(addrs[n], sizeof(addrs[n]), "p%d:1", n);
		known[n] = (struct said){.n = n, .addr = addrs[n]};
	}
	mention(f->tracker, known, 8, 0);
	for (int n = 0; n <= CANDIDATES_FREE; n++) {
		assert_true(pick(f, 0));
		went_wrong(f);
	}
	assert_false(pick(f, 0));
	assert_int_equal(f->due, CANDIDATES_PAUSE_STEP_MS);
	f->now = f->due;
	assert_true(pick(f, 0));
	went_wrong(f);
	assert_false(pick(f, 0));
	assert_int_equal(f->due, f->now + 2 * CANDIDATES_PAUSE_STEP_MS);
	/* there is news */
	mention(f->tracker, known, 7, f->now);
	assert_true(pick(f, 0));
	/* a success, and they are free again */
	candidates_settled(f->candidates, f->got.key);
	candidates_idle(f->candidates, f->got.key);
	assert_true(pick(f, 0));
	went_wrong(f);
	assert_true(pick(f, 0));
}

static void test_a_forgotten_proxy_is_no_candidate(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {
		{.n = 1, .addr = "p1:1"}, {.n = 2, .addr = "p2:1"}};

	mention(f->tracker, known, 2, 0);
	claim(f, 1);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p2:1");
	f->now = TRACKER_EXPIRY_MS;
	tracker_expire(f->tracker, f->now);
	candidates_idle(f->candidates, "p2:1");
	for (int i = 0; i < 2; i++) {
		assert_true(pick(f, i));
		assert_string_not_equal(f->got.key, "p2:1");
	}
	assert_false(pick(f, 0));
	candidates_settled(f->candidates, "nobody"); /* nothing to find */
}

/* Back in the list, an address is tried at once, however often it failed. */
static void test_who_comes_back_waits_no_longer(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {
		{.n = 1, .addr = "p1:1"}, {.n = 2, .addr = "p2:1"}};

	mention(f->tracker, known, 2, 0);
	claim(f, 1);
	for (int i = 0; i < 5; i++)
		candidates_failed(f->candidates, "p2:1", 0, 0);
	assert_true(pick(f, 0));
	assert_true(pick(f, 0));
	assert_false(pick(f, 0)); /* both names are under way, p2 waits */
	assert_int_equal(f->due, 5000);
	mention(f->tracker, known, 1, 1);
	assert_false(pick(f, 0));
	mention(f->tracker, known, 2, 2);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p2:1");
}

static void test_proxies_behind_one_name_are_one_candidate(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {{.n = 1, .addr = "lb:3080"},
		{.n = 2, .addr = "lb"}, {.n = 3, .addr = "lb:3080"},
		{.n = 4, .addr = "proxy.example.com"}};

	mention(f->tracker, known, 4, 0);
	claim(f, 1);
	/* 4 is what proxy_server already names */
	for (int i = 0; i < 3; i++)
		assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "b:1");
	assert_false(pick(f, 0));
	candidates_idle(f->candidates, "lb:3080");
	claim(f, 2);
	claim(f, 3);
	assert_false(pick(f, 0));
	candidates_idle(f->candidates, "proxy.example.com:3080");
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "proxy.example.com:3080");
}

static void test_who_asked_for_patience_is_no_failure(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {
		{.n = 1, .addr = "p1:1"}, {.n = 2, .addr = "p2:1"}};

	mention(f->tracker, known, 2, 0);
	claim(f, 1);
	assert_true(pick(f, 0));
	candidates_idle(f->candidates, "p2:1");
	candidates_hold(f->candidates, "p2:1", 700, f->now, 0);
	assert_true(pick(f, 0));
	assert_true(pick(f, 0));
	assert_false(pick(f, 0));
	assert_int_equal(f->due, 700);
	assert_int_equal(candidates_failed(f->candidates, "p2:1", 0, 0), 1);
	candidates_reset(f->candidates);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p2:1");
}

static void test_near_ones_come_first_and_zones_take_turns(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {
		{.n = 1, .addr = "p1:1", .region = "us", .zone = "a"},
		{.n = 2, .addr = "p2:1", .region = "eu", .zone = "b"},
		{.n = 3, .addr = "p3:1", .region = "eu", .zone = "a"},
		{.n = 4, .addr = "p4:1", .region = "eu", .zone = "a"}};

	for (uint32_t random = 0; random < 8; random++) {
		mention(f->tracker, known, 3, 0);
		assert_true(pick(f, random));
		assert_string_equal(f->got.key, "p3:1");
		candidates_idle(f->candidates, f->got.key);
	}
	mention(f->tracker, known, 4, 0);
	assert_true(pick(f, 0)); /* p3 or p4; meanwhile another */
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p2:1");
	for (int n = 2; n <= 4; n++)
		candidates_idle(f->candidates, known[n - 1].addr);
	claim(f, 3);
	assert_true(pick(f, 0)); /* not p4: its zone has one */
	assert_string_equal(f->got.key, "p2:1");
	claim(f, 2);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p4:1");
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p1:1");
}

static void test_where_we_are_asked_to_go_comes_first(void **state)
{
	struct fixture *f = *state;
	struct said known[5];

	for (int n = 0; n < 5; n++)
		known[n] = (struct said){.n = n + 1,
			.addr = (const char *[]){
				"p1:1", "p2:1", "p3:1", "p4:1", "p5:1"}[n]};
	mention(f->tracker, known, 5, 0);
	claim(f, 1);
	for (int n = 2; n <= 5; n++) {
		mention(f->tracker, known, 5, f->now);
		assert_true(tracker_leave(
			f->tracker, proxy_id(1), proxy_id(n), f->now));
		assert_true(pick(f, n));
		assert_string_equal(f->got.key, known[n - 1].addr);
		candidates_idle(f->candidates, f->got.key);
		f->now += TRACKER_LEAVE_MS;
		tracker_expire(f->tracker, f->now);
	}
}

static void test_draining_ones_are_the_last_resort(void **state)
{
	struct fixture *f = *state;
	const struct said known[] = {{.n = 2, .addr = "p2:1", .draining = true},
		{.n = 1, .addr = "p1:1"}};

	mention(f->tracker, known, 2, 0);
	assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p1:1");
	for (int i = 0; i < 3; i++)
		assert_true(pick(f, 0));
	assert_string_equal(f->got.key, "p2:1"); /* with no tunnel at all */
	assert_false(pick(f, 0));
	candidates_idle(f->candidates, "p1:1");
	candidates_idle(f->candidates, "p2:1");
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
		CASE(test_after_failures_in_a_row_there_is_a_pause),
		CASE(test_a_forgotten_proxy_is_no_candidate),
		CASE(test_who_comes_back_waits_no_longer),
		CASE(test_proxies_behind_one_name_are_one_candidate),
		CASE(test_who_asked_for_patience_is_no_failure),
		CASE(test_near_ones_come_first_and_zones_take_turns),
		CASE(test_where_we_are_asked_to_go_comes_first),
		CASE(test_draining_ones_are_the_last_resort),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
