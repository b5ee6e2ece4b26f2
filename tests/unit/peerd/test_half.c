/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/half: no wake-up is lost, and never do two hold one direction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "peerd/half.h"

static void a_wake_while_at_work_is_seen_when_parking(void **state)
{
	struct half half = {0};

	assert_false(half_wake(&half)); /* its holder is at work */
	assert_false(half_park(&half)); /* so it looks once more, */
	assert_true(half_park(&half));	/* and then waits */
	assert_true(half_wake(&half));
	assert_int_equal(half.state, HALF_BUSY);
}

static void one_waker_gets_a_waiting_half(void **state)
{
	struct half half = {0};

	assert_true(half_park(&half));
	assert_true(half_wake(&half));
	assert_false(half_wake(&half));
}

static void a_stop_is_not_slept_through(void **state)
{
	struct half half = {0};

	assert_false(half_stop(&half));
	assert_false(half_park(&half)); /* SIGNALLED */
	assert_false(half_park(&half)); /* told to stop: never parks again */
	half_finish(&half);
	assert_false(half_wake(&half));
	assert_false(half_stop(&half));
}

#define ROUNDS 200000

/* A counter that only the half's holder touches: lost updates or a lost
 * wake-up would show in it. */
static struct half shared;
static long work_done;
static _Atomic long work_wanted;

static void work(void)
{
	do {
		while (work_done < atomic_load(&work_wanted))
			work_done++;
	} while (!half_park(&shared));
}

static void *wake_often(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		atomic_fetch_add(&work_wanted, 1);
		if (half_wake(&shared))
			work();
	}
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	pthread_t threads[3];

	work(); /* nothing to do: parks */
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, wake_often, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(shared.state, HALF_WAITING);
	assert_int_equal(work_done, 3 * ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wake_while_at_work_is_seen_when_parking),
		cmocka_unit_test(one_waker_gets_a_waiting_half),
		cmocka_unit_test(a_stop_is_not_slept_through),
		cmocka_unit_test(threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
