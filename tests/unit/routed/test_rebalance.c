/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "routed/rebalance.h"

static const struct rebalance_settings ten = {.threshold = 10, .rate = 10};

static size_t next(struct rebalance *rebalance, const size_t *tunnels,
	size_t count, size_t under_way, int64_t now)
{
	return rebalance_next(
		rebalance, &ten, tunnels, count, 0, under_way, now);
}

static void test_what_is_about_even_is_left_alone(void **state)
{
	const size_t tunnels[] = {110, 90, 100};
	const size_t few[] = {4, 0, 0};
	struct rebalance rebalance = {0};

	assert_int_equal(next(&rebalance, tunnels, 3, 0, 1000), 0);
	assert_int_equal(next(&rebalance, tunnels, 3, 0, 2000), 0);
	assert_false(rebalance.active);
	assert_int_equal(next(&rebalance, few, 3, 0, 3000), 0);
	assert_false(rebalance.active);
}

static void test_no_faster_than_the_rate(void **state)
{
	const size_t tunnels[] = {1000, 1000, 0, 0};
	struct rebalance rebalance = {0};

	assert_int_equal(next(&rebalance, tunnels, 4, 0, 1000), 0);
	assert_true(rebalance.active);
	assert_int_equal(next(&rebalance, tunnels, 4, 0, 1500), 5);
	assert_int_equal(next(&rebalance, tunnels, 4, 5, 2500), 10);
	assert_int_equal(next(&rebalance, tunnels, 4, 15, 2550), 0);
	/* no burst after a pause */
	assert_int_equal(next(&rebalance, tunnels, 4, 15, 100000), 20);
}

static void test_on_to_the_average_and_no_further(void **state)
{
	size_t tunnels[] = {112, 94, 94};
	struct rebalance rebalance = {0};

	next(&rebalance, tunnels, 3, 0, 1000);
	assert_true(rebalance.active);
	/* who is asked is as good as gone */
	assert_int_equal(next(&rebalance, tunnels, 3, 5, 10000), 7);
	assert_int_equal(next(&rebalance, tunnels, 3, 12, 20000), 0);
	tunnels[0] = 103; /* below the threshold, but once begun */
	tunnels[1] = 97;
	assert_int_equal(next(&rebalance, tunnels, 3, 0, 30000), 5);
	tunnels[0] = tunnels[1] = tunnels[2] = 98;
	assert_int_equal(next(&rebalance, tunnels, 3, 0, 40000), 0);
	assert_false(rebalance.active);
}

/* One new proxy among many: nobody holds 10 % too much, and it has nothing. */
static void test_who_lacks_much_is_given_by_all(void **state)
{
	size_t tunnels[20];
	struct rebalance rebalance = {0};

	for (int i = 0; i < 20; i++)
		tunnels[i] = i == 19 ? 5 : 105;
	next(&rebalance, tunnels, 20, 0, 1000);
	assert_true(rebalance.active);
	assert_int_equal(next(&rebalance, tunnels, 20, 0, 10000), 5);
	tunnels[19] = 91; /* about even */
	tunnels[0] = 100;
	next(&rebalance, tunnels, 20, 0, 11000);
	assert_false(rebalance.active);
	tunnels[0] = 101;
	next(&rebalance, tunnels, 20, 0, 12000);
	assert_false(rebalance.active);
}

static void test_who_is_compared(void **state)
{
	const struct rebalance_host own = {true, "g", 2, "eu", "a", 1};
	struct rebalance_host other = own, two = own;

	assert_true(rebalance_is_compared(&own, &other));
	other.zone = "b";
	assert_true(rebalance_is_compared(&own, &other));
	two.agent_connection_count = 2;
	assert_false(rebalance_is_compared(&two, &other));
	other = own;
	other.takes = false; /* drains, or runs agent_mesh */
	assert_false(rebalance_is_compared(&own, &other));
	assert_false(rebalance_is_compared(&other, &own));
	other = own;
	other.region = "us";
	assert_false(rebalance_is_compared(&own, &other));
	other = own;
	other.generation = 3;
	assert_false(rebalance_is_compared(&own, &other));
	other = own;
	other.group = "h";
	assert_false(rebalance_is_compared(&own, &other));
}

static void test_rate_0_never(void **state)
{
	const struct rebalance_settings off = {.threshold = 10};
	const size_t tunnels[] = {1000, 0};
	struct rebalance rebalance = {0};

	for (int64_t now = 1000; now < 100000; now += 1000)
		assert_int_equal(
			rebalance_next(&rebalance, &off, tunnels, 2, 0, 0, now),
			0);
	assert_false(rebalance.active);
}

static void test_targets_are_drawn_by_what_they_lack(void **state)
{
	const size_t tunnels[] = {1000, 1000, 0, 400}; /* average 600 */
	const size_t even[] = {7, 7, 7};
	unsigned drawn[4] = {0};
	uint32_t random = 1;

	for (int i = 0; i < 8000; i++) {
		int target = rebalance_target(tunnels, 4, random >> 8);

		random = random * 1664525 + 1013904223;
		assert_in_range(target, 2, 3);
		drawn[target]++;
	}
	assert_in_range(drawn[2], 5700, 6300);
	assert_int_equal(rebalance_target(even, 3, 17), -1);
	assert_int_equal(rebalance_target(even, 1, 17), -1);
}

/* Several, each for itself, from counts that are two seconds old. */
static void test_together_they_come_out_even(void **state)
{
	size_t tunnels[4] = {1000, 1000, 0, 0};
	size_t arriving[4][2] = {{0}}, leaving[4][2] = {{0}};
	struct rebalance rebalance[4] = {{0}};
	uint32_t random = 7;

	for (int64_t now = 1000; now < 120000; now += 1000) {
		for (size_t i = 0; i < 4; i++) {
			size_t asked =
				rebalance_next(&rebalance[i], &ten, tunnels, 4,
					i, leaving[i][0] + leaving[i][1], now);

			leaving[i][1] += asked;
			while (asked--) {
				random = random * 1664525 + 1013904223;
				arriving[rebalance_target(
					tunnels, 4, random >> 8)][1]++;
			}
		}
		for (size_t i = 0; i < 4; i++) {
			tunnels[i] += arriving[i][0] - leaving[i][0];
			arriving[i][0] = arriving[i][1];
			leaving[i][0] = leaving[i][1];
			arriving[i][1] = leaving[i][1] = 0;
		}
	}
	for (size_t i = 0; i < 4; i++)
		assert_in_range(tunnels[i], 475, 525);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_about_even_is_left_alone),
		cmocka_unit_test(test_no_faster_than_the_rate),
		cmocka_unit_test(test_on_to_the_average_and_no_further),
		cmocka_unit_test(test_who_lacks_much_is_given_by_all),
		cmocka_unit_test(test_who_is_compared),
		cmocka_unit_test(test_rate_0_never),
		cmocka_unit_test(test_targets_are_drawn_by_what_they_lack),
		cmocka_unit_test(test_together_they_come_out_even),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
