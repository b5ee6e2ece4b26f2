/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: see loop.h. A turn's tasks are moved to a list of their own
 * before they run, so that a task which queues itself again waits for the next
 * turn and events are never starved.
 */
#include "shared/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/log.h"

TAILQ_HEAD(task_list, loop_task);

struct corpse {
	TAILQ_ENTRY(corpse) entry;
	void (*fn)(void *);
	void *ptr;
};
TAILQ_HEAD(corpse_list, corpse);

struct signal_watch {
	TAILQ_ENTRY(signal_watch) entry;
	struct loop *loop;
	struct event *ev;
	int signal;
	void (*fn)(int signal, void *arg);
	void *arg;
};
TAILQ_HEAD(signal_list, signal_watch);

struct loop {
	struct event_base *base;
	struct task_list tasks;
	struct task_list late;
	struct task_list running;
	struct corpse_list corpses;
	struct signal_list signals;
	int64_t now;
	_Atomic bool stopped;
	bool over; /* loop_run() has returned */

	/* what other threads have posted */
	pthread_mutex_t lock;
	struct task_list posted;
	int wake_fd;
	struct event *wake_ev;
};

struct timer {
	struct event *ev;
	void (*fn)(void *arg);
	void *arg;
};

static int64_t monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static void wake(struct loop *loop)
{
	uint64_t one = 1;

	if (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		fatal("cannot write the loop's eventfd: %m");
}

/* Runs what other threads posted, a bounded number so that events get their
 * turn; run() may post or free its own task. */
static void on_woken(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	struct loop_task *task;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		fatal("cannot read the loop's eventfd: %m");
	pthread_mutex_lock(&loop->lock);
	for (int n = 0; n < 1024; n++) {
		task = TAILQ_FIRST(&loop->posted);
		if (!task)
			break;
		TAILQ_REMOVE(&loop->posted, task, entry);
		task->queued = false;
		pthread_mutex_unlock(&loop->lock);
		task->run(task);
		pthread_mutex_lock(&loop->lock);
	}
	if (!TAILQ_EMPTY(&loop->posted))
		wake(loop);
	pthread_mutex_unlock(&loop->lock);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
	bool was_empty;

	pthread_mutex_lock(&loop->lock);
	was_empty = TAILQ_EMPTY(&loop->posted);
	if (!task->queued) {
		task->queued = true;
		TAILQ_INSERT_TAIL(&loop->posted, task, entry);
	}
	pthread_mutex_unlock(&loop->lock);
	if (was_empty)
		wake(loop);
}

struct loop *loop_new(void)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));
	struct event_config *config = event_config_new();

	signal(SIGPIPE, SIG_IGN);
	/* One clock reading a turn is precise enough for milliseconds. */
	if (!config || event_config_set_flag(
			       config, EVENT_BASE_FLAG_NO_CACHE_TIME) < 0)
		fatal("cannot configure the event loop");
	loop->base = event_base_new_with_config(config);
	event_config_free(config);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!loop->base || loop->wake_fd < 0)
		fatal("cannot make the event loop: %m");
	TAILQ_INIT(&loop->tasks);
	TAILQ_INIT(&loop->late);
	TAILQ_INIT(&loop->running);
	TAILQ_INIT(&loop->corpses);
	TAILQ_INIT(&loop->signals);
	TAILQ_INIT(&loop->posted);
	pthread_mutex_init(&loop->lock, NULL);
	loop->wake_ev = event_new(loop->base, loop->wake_fd,
		EV_READ | EV_PERSIST, on_woken, loop);
	if (!loop->wake_ev || event_add(loop->wake_ev, NULL) < 0)
		fatal("cannot make the event loop");
	loop->now = monotonic_ms();
	return loop;
}

static void bury(struct loop *loop)
{
	struct corpse *corpse;

	while ((corpse = TAILQ_FIRST(&loop->corpses))) {
		TAILQ_REMOVE(&loop->corpses, corpse, entry);
		corpse->fn(corpse->ptr);
		free(corpse);
	}
}

void loop_free(struct loop *loop)
{
	struct signal_watch *watch;

	if (!loop)
		return;
	bury(loop);
	while ((watch = TAILQ_FIRST(&loop->signals))) {
		TAILQ_REMOVE(&loop->signals, watch, entry);
		event_free(watch->ev);
		free(watch);
	}
	event_free(loop->wake_ev);
	close(loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	event_base_free(loop->base);
	free(loop);
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

static void run_tasks(struct loop *loop, struct task_list *tasks)
{
	struct loop_task *task;

	TAILQ_CONCAT(&loop->running, tasks, entry);
	while ((task = TAILQ_FIRST(&loop->running))) {
		TAILQ_REMOVE(&loop->running, task, entry);
		task->queued = false;
		task->run(task);
	}
}

void loop_turn(struct loop *loop, bool block)
{
	int flags = EVLOOP_ONCE;

	if (!block || !TAILQ_EMPTY(&loop->tasks) || !TAILQ_EMPTY(&loop->late))
		flags |= EVLOOP_NONBLOCK;
	loop->now = monotonic_ms();
	if (event_base_loop(loop->base, flags) < 0)
		fatal("the event loop failed: %m");
	loop->now = monotonic_ms();
	run_tasks(loop, &loop->tasks);
	run_tasks(loop, &loop->late);
	bury(loop);
}

void loop_run(struct loop *loop)
{
	/* A stop that came before the first turn counts too. */
	loop->over = false;
	while (!loop->stopped)
		loop_turn(loop, true);
	loop->stopped = false;
	loop->over = true;
}

void loop_stop(struct loop *loop)
{
	loop->stopped = true;
	wake(loop);
}

int64_t loop_now(struct loop *loop)
{
	return loop->now;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	TAILQ_INSERT_TAIL(&loop->tasks, task, entry);
}

void loop_defer_late(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	TAILQ_INSERT_TAIL(&loop->late, task, entry);
}

static bool remove_from(struct task_list *list, struct loop_task *task)
{
	struct loop_task *other;

	TAILQ_FOREACH (other, list, entry) {
		if (other != task)
			continue;
		TAILQ_REMOVE(list, task, entry);
		return true;
	}
	return false;
}

void loop_cancel(struct loop *loop, struct loop_task *task)
{
	if (!task->queued)
		return;
	task->queued = false;
	if (!remove_from(&loop->running, task) &&
		!remove_from(&loop->late, task))
		TAILQ_REMOVE(&loop->tasks, task, entry);
}

void loop_free_later(struct loop *loop, void (*fn)(void *), void *ptr)
{
	struct corpse *corpse = xcalloc(1, sizeof(*corpse));

	corpse->fn = fn;
	corpse->ptr = ptr;
	TAILQ_INSERT_TAIL(&loop->corpses, corpse, entry);
}

static void on_signal(evutil_socket_t signal, short what, void *arg)
{
	struct signal_watch *watch = arg;

	/* teardown turns the loop too; whoever would be told may be gone */
	if (!watch->loop->over)
		watch->fn(watch->signal, watch->arg);
}

void loop_on_signal(struct loop *loop, int signal,
	void (*fn)(int signal, void *arg), void *arg)
{
	struct signal_watch *watch = xcalloc(1, sizeof(*watch));

	watch->loop = loop;
	watch->signal = signal;
	watch->fn = fn;
	watch->arg = arg;
	watch->ev = evsignal_new(loop->base, signal, on_signal, watch);
	if (!watch->ev || event_add(watch->ev, NULL) < 0)
		fatal("cannot watch signal %d", signal);
	TAILQ_INSERT_TAIL(&loop->signals, watch, entry);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct timer *timer = arg;

	timer->fn(timer->arg);
}

struct timer *timer_new(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct timer *timer = xcalloc(1, sizeof(*timer));

	timer->fn = fn;
	timer->arg = arg;
	timer->ev = evtimer_new(loop->base, on_timer, timer);
	if (!timer->ev)
		fatal("out of memory");
	return timer;
}

void timer_set(struct timer *timer, int64_t ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	if (ms < 0)
		tv = (struct timeval){0, 0};
	if (event_add(timer->ev, &tv) < 0)
		fatal("cannot set a timer");
}

void timer_clear(struct timer *timer)
{
	event_del(timer->ev);
}

bool timer_is_set(const struct timer *timer)
{
	return evtimer_pending(timer->ev, NULL);
}

void timer_free(struct timer *timer)
{
	if (!timer)
		return;
	event_free(timer->ev);
	free(timer);
}
