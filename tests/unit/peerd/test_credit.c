/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/credit: what a far side may send, out of one pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "peerd/credit.h"

#define MIB (1 << 20)

static void a_reader_that_stalls_gets_nothing_more(void **state)
{
	struct credit_pool pool = {.max = 256 * MIB};
	struct credit credit;

	assert_int_equal(credit_begin(&credit, &pool), CREDIT_START);
	/* all has come, nothing has been taken */
	assert_int_equal(credit_blocked(&credit, &pool, CREDIT_START), 0);
	assert_int_equal(credit_taken(&credit, &pool, 1000), 0);
	assert_int_equal(pool.out, CREDIT_START - 1000);
	credit_end(&credit, &pool);
	assert_int_equal(pool.out, 0);
}

static void a_reader_that_takes_gets_as_much_again(void **state)
{
	struct credit_pool pool = {.max = 256 * MIB};
	struct credit credit;
	int64_t granted = credit_begin(&credit, &pool);
	int64_t taken = 0;

	for (int i = 0; i < 1000; i++) {
		granted += credit_taken(&credit, &pool, 16384);
		taken += 16384;
		assert_true(granted - taken <= CREDIT_START);
		assert_true(granted - taken > CREDIT_START / 2);
	}
	assert_int_equal(pool.out, granted - taken);
}

static void the_window_grows_while_the_reader_keeps_up(void **state)
{
	struct credit_pool pool = {.max = 256 * MIB};
	struct credit credit;
	int64_t out = credit_begin(&credit, &pool);

	for (int i = 0; i < 20; i++) {
		int64_t more;

		out += credit_taken(&credit, &pool, out) - out;
		more = credit_blocked(&credit, &pool, 0);
		out += more;
		assert_int_equal(out, credit.out);
	}
	/* a quarter of the pool, and not more */
	assert_int_equal(credit.window, 64 * MIB);
	/* behind: what waits is more than an eighth of the window */
	credit.window = MIB;
	assert_int_equal(credit_blocked(&credit, &pool, MIB / 8 + 1), 0);
}

static void streams_beyond_the_pool_get_little(void **state)
{
	static struct credit credits[2000];
	struct credit_pool pool = {.max = 256 * MIB};

	for (int i = 0; i < 2000; i++) {
		int64_t first = credit_begin(&credits[i], &pool);

		assert_int_equal(first, i < 1024 ? CREDIT_START : CREDIT_SHORT);
	}
	assert_true(pool.out <= 256 * MIB + 976 * CREDIT_SHORT);
	/* Nobody grows, and who takes falls back. */
	assert_int_equal(credit_blocked(&credits[0], &pool, 0), 0);
	assert_int_equal(
		credit_taken(&credits[0], &pool, CREDIT_START), CREDIT_SHORT);
	assert_int_equal(credits[0].window, CREDIT_SHORT);
	for (int i = 0; i < 2000; i++)
		credit_end(&credits[i], &pool);
	assert_int_equal(pool.out, 0);
	/* There is room again. */
	assert_int_equal(credit_begin(&credits[1], &pool), CREDIT_START);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_that_stalls_gets_nothing_more),
		cmocka_unit_test(a_reader_that_takes_gets_as_much_again),
		cmocka_unit_test(the_window_grows_while_the_reader_keeps_up),
		cmocka_unit_test(streams_beyond_the_pool_get_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
