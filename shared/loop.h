/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One event loop per process: libevent for readiness and timers, plus what
 * libevent lacks. A turn is: wait for events, run their callbacks, run the
 * tasks that asked for the end of this turn (flushes that gather what the
 * callbacks queued), free what died in it.
 *
 * Nothing is freed inside a callback: hand it to loop_free_later().
 * Only loop_post() and loop_stop() may be called from another thread.
 */

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct loop;

/* Embedded in the object that wants to be called; zeroed before first use. */
struct loop_task {
	TAILQ_ENTRY(loop_task) entry;
	void (*run)(struct loop_task *task);
	bool queued;
};

/* Ignores SIGPIPE; never NULL. */
struct loop *loop_new(void);
void loop_free(struct loop *loop);

/* For event_new() and the like; borrowed. */
struct event_base *loop_base(struct loop *loop);

/* Runs turns until loop_stop(). */
void loop_run(struct loop *loop);
/* One turn; waits only when block is set and nothing is queued. For tests. */
void loop_turn(struct loop *loop, bool block);
void loop_stop(struct loop *loop);

/* Monotonic milliseconds, read once per turn. */
int64_t loop_now(struct loop *loop);

/* Runs task at the end of this turn (or of the next one when called by a
 * task); the next wait then does not block. Queueing twice is once. */
void loop_defer(struct loop *loop, struct loop_task *task);
/* The same behind all other tasks of the turn: for work that can wait, and
 * that should take only a small piece of a turn. */
void loop_defer_late(struct loop *loop, struct loop_task *task);
void loop_cancel(struct loop *loop, struct loop_task *task);

/* Calls fn(ptr) after the tasks of this turn. */
void loop_free_later(struct loop *loop, void (*fn)(void *), void *ptr);

/* From any thread: task runs in the loop's thread. Queueing twice is once. */
void loop_post(struct loop *loop, struct loop_task *task);

/* fn(signal, arg) in the loop's thread; returns nothing to free, lives as long
 * as the loop. Not called any more once loop_run() has returned. */
void loop_on_signal(struct loop *loop, int signal,
	void (*fn)(int signal, void *arg), void *arg);

/* A one-shot or repeating timer; fn runs in the loop. Gives. timer_free(NULL)
 * is fine; a timer may be freed or set again inside its own callback. */
struct timer;
struct timer *timer_new(struct loop *loop, void (*fn)(void *arg), void *arg);
void timer_set(struct timer *timer, int64_t ms);
void timer_clear(struct timer *timer);
bool timer_is_set(const struct timer *timer);
void timer_free(struct timer *timer);
