/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "shared/backoff.h"

static void test_grows_by_a_step_up_to_the_limit(void **state)
{
	static const uint32_t want[] = {1000, 2000, 3000, 3500, 3500};
	struct backoff backoff = {.step_ms = 1000, .max_ms = 3500};

	for (int i = 0; i < 5; i++)
		assert_int_equal(backoff_failed(&backoff, 0), want[i]);
	backoff_succeeded(&backoff);
	assert_int_equal(backoff_failed(&backoff, 0), 1000);
}

static void test_half_of_it_is_jitter(void **state)
{
	struct backoff backoff = {.step_ms = 1000, .max_ms = 8000};

	assert_int_equal(backoff_failed(&backoff, UINT32_MAX), 500);
	assert_in_range(backoff_failed(&backoff, UINT32_MAX / 2), 1499, 1501);
}

static void test_counting_does_not_overflow(void **state)
{
	struct backoff backoff = {.step_ms = UINT32_MAX,
		.max_ms = UINT32_MAX,
		.failures = UINT32_MAX};

	assert_int_equal(backoff_failed(&backoff, 0), UINT32_MAX);
	assert_int_equal(
		backoff_failed(&backoff, UINT32_MAX), UINT32_MAX / 2 + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows_by_a_step_up_to_the_limit),
		cmocka_unit_test(test_half_of_it_is_jitter),
		cmocka_unit_test(test_counting_does_not_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
