/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdlib.h>

#include "shared/loop.h"

struct counter {
	struct loop_task task; /* first, so that the task is the counter */
	struct loop *loop;
	int runs;
	bool again;
};

static void count_run(struct loop_task *task)
{
	struct counter *counter = (struct counter *)task;

	counter->runs++;
	if (counter->again)
		loop_defer(counter->loop, task);
}

static void a_deferred_task_runs_once_at_the_end_of_the_turn(void **state)
{
	struct loop *loop = loop_new();
	struct counter c = {.task.run = count_run, .loop = loop};

	loop_defer(loop, &c.task);
	loop_defer(loop, &c.task);
	loop_turn(loop, true);
	assert_int_equal(c.runs, 1);
	loop_turn(loop, false);
	assert_int_equal(c.runs, 1);
	loop_free(loop);
}

static void a_task_that_queues_itself_waits_for_the_next_turn(void **state)
{
	struct loop *loop = loop_new();
	struct counter c = {.task.run = count_run, .loop = loop, .again = true};

	loop_defer(loop, &c.task);
	loop_turn(loop, true);
	assert_int_equal(c.runs, 1);
	loop_turn(loop, true);
	assert_int_equal(c.runs, 2);
	loop_free(loop);
}

struct late {
	struct loop_task task;
	struct counter *other;
	int others_runs; /* when it ran itself; -1: not yet */
};

static void late_run(struct loop_task *task)
{
	struct late *late = (struct late *)task;

	late->others_runs = late->other->runs;
}

static void a_late_task_runs_behind_all_others_of_the_turn(void **state)
{
	struct loop *loop = loop_new();
	struct counter c = {.task.run = count_run, .loop = loop};
	struct late late = {
		.task.run = late_run, .other = &c, .others_runs = -1};

	loop_defer_late(loop, &late.task);
	loop_defer(loop, &c.task);
	loop_turn(loop, true);
	assert_int_equal(late.others_runs, 1);

	late.others_runs = -1;
	loop_defer_late(loop, &late.task);
	loop_cancel(loop, &late.task);
	loop_turn(loop, false);
	assert_int_equal(late.others_runs, -1);
	loop_free(loop);
}

static void a_cancelled_task_does_not_run(void **state)
{
	struct loop *loop = loop_new();
	struct counter c = {.task.run = count_run, .loop = loop};

	loop_defer(loop, &c.task);
	loop_cancel(loop, &c.task);
	loop_turn(loop, false);
	assert_int_equal(c.runs, 0);
	loop_free(loop);
}

struct canceller {
	struct loop_task task;
	struct loop *loop;
	struct loop_task *victim;
};

static void cancel_other(struct loop_task *task)
{
	struct canceller *canceller = (struct canceller *)task;

	loop_cancel(canceller->loop, canceller->victim);
}

static void a_task_may_cancel_one_of_the_same_turn(void **state)
{
	struct loop *loop = loop_new();
	struct counter c = {.task.run = count_run, .loop = loop};
	struct canceller k = {
		.task.run = cancel_other, .loop = loop, .victim = &c.task};

	loop_defer(loop, &k.task);
	loop_defer(loop, &c.task);
	loop_turn(loop, false);
	assert_int_equal(c.runs, 0);
	loop_turn(loop, false);
	assert_int_equal(c.runs, 0);
	loop_free(loop);
}

static void set_true(void *ptr)
{
	*(bool *)ptr = true;
}

static void the_dead_are_freed_after_the_tasks(void **state)
{
	struct loop *loop = loop_new();
	bool freed = false;

	loop_free_later(loop, set_true, &freed);
	assert_false(freed);
	loop_turn(loop, false);
	assert_true(freed);
	loop_free(loop);
}

#define POSTS 20000

struct poster {
	struct loop_task task;
	struct loop *loop;
	int *left;
};

static void on_posted(struct loop_task *task)
{
	struct poster *poster = (struct poster *)task;

	if (--*poster->left == 0)
		loop_stop(poster->loop);
	free(poster);
}

static void *post_many(void *arg)
{
	struct poster *model = arg;

	for (int i = 0; i < POSTS; i++) {
		struct poster *poster = malloc(sizeof(*poster));

		*poster = *model;
		loop_post(model->loop, &poster->task);
	}
	return NULL;
}

static void all_that_other_threads_post_is_run(void **state)
{
	struct loop *loop = loop_new();
	int left = 2 * POSTS;
	struct poster model = {
		.task.run = on_posted, .loop = loop, .left = &left};
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, post_many, &model);
	loop_run(loop);
	assert_int_equal(left, 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	loop_free(loop);
}

static void stop(void *arg)
{
	loop_stop(arg);
}

static void a_timer_wakes_the_loop(void **state)
{
	struct loop *loop = loop_new();
	struct timer *timer = timer_new(loop, stop, loop);
	int64_t start = loop_now(loop);

	timer_set(timer, 30);
	assert_true(timer_is_set(timer));
	loop_run(loop);
	assert_true(loop_now(loop) - start >= 29);
	assert_false(timer_is_set(timer));
	timer_free(timer);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_deferred_task_runs_once_at_the_end_of_the_turn),
		cmocka_unit_test(
			a_task_that_queues_itself_waits_for_the_next_turn),
		cmocka_unit_test(
			a_late_task_runs_behind_all_others_of_the_turn),
		cmocka_unit_test(a_cancelled_task_does_not_run),
		cmocka_unit_test(a_task_may_cancel_one_of_the_same_turn),
		cmocka_unit_test(the_dead_are_freed_after_the_tasks),
		cmocka_unit_test(all_that_other_threads_post_is_run),
		cmocka_unit_test(a_timer_wakes_the_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
