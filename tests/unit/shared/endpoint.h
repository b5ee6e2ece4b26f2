/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Test help: the far end of a channel. Sends a pattern of a given length and
 * then half-closes; checks every byte that comes against the other end's
 * pattern. Can be told not to read.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/chan.h"
#include "shared/loop.h"

/* The pattern repeats after so many random bytes (a prime, so that no buffer
 * size divides it); seeds start at different places. */
#define PATTERN_PERIOD 1048583u

struct endpoint {
	struct loop *loop;
	struct chan *chan;
	unsigned seed_out;
	unsigned seed_in;
	uint64_t to_send;
	uint64_t sent;
	uint64_t received;
	bool hold_end; /* do not half-close when all is sent */
	bool paused;   /* do not read */
	bool shut;
	bool eof;
	bool corrupt;
	int error;	/* of reading */
	int send_error; /* reading goes on */
};

static inline const uint8_t *pattern(void)
{
	static uint8_t *block;

	if (!block) {
		uint64_t x = 88172645463325252u;

		block = malloc(2 * PATTERN_PERIOD);
		assert(block);
		for (size_t i = 0; i < PATTERN_PERIOD; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			block[i] = block[i + PATTERN_PERIOD] = (uint8_t)x;
		}
	}
	return block;
}

static inline const uint8_t *pattern_at(unsigned seed, uint64_t offset)
{
	return pattern() + (offset + seed * 7919ull) % PATTERN_PERIOD;
}

static inline void endpoint_send(struct endpoint *end)
{
	while (!end->send_error && end->sent < end->to_send) {
		uint64_t left = end->to_send - end->sent;
		ssize_t n = chan_write(end->chan,
			pattern_at(end->seed_out, end->sent),
			left < 65536 ? left : 65536);

		if (n == -EAGAIN)
			return;
		if (n < 0)
			end->send_error = (int)n;
		else
			end->sent += (uint64_t)n;
	}
	if (!end->send_error && !end->shut && !end->hold_end)
		end->shut = chan_shutdown(end->chan) == 0;
}

static inline void endpoint_receive(struct endpoint *end)
{
	static uint8_t buf[65536];

	while (!end->paused && !end->eof && !end->error) {
		ssize_t n = chan_read(end->chan, buf, sizeof(buf));

		if (n == -EAGAIN)
			return;
		if (n == 0)
			end->eof = true;
		if (n < 0)
			end->error = (int)n;
		if (n > 0 &&
			memcmp(buf, pattern_at(end->seed_in, end->received),
				(size_t)n))
			end->corrupt = true;
		if (n > 0)
			end->received += (uint64_t)n;
	}
}

static inline void endpoint_ready(void *arg)
{
	struct endpoint *end = arg;

	endpoint_send(end);
	endpoint_receive(end);
}

/* Takes chan; end is the caller's and must stay. */
static inline void endpoint_start(struct endpoint *end, struct loop *loop,
	struct chan *chan, unsigned seed_out, unsigned seed_in,
	uint64_t to_send)
{
	end->loop = loop;
	end->chan = chan;
	end->seed_out = seed_out;
	end->seed_in = seed_in;
	end->to_send = to_send;
	chan_watch(chan, endpoint_ready, end);
}

static inline void endpoint_resume(struct endpoint *end)
{
	end->paused = false;
	chan_watch(end->chan, endpoint_ready, end);
}

static inline void endpoint_stop(struct endpoint *end)
{
	chan_free(end->chan);
	end->chan = NULL;
}

static inline bool endpoint_done(const struct endpoint *end)
{
	return end->error || (end->eof && (end->shut || end->send_error));
}

static inline void run_until_tick(void *arg)
{
	timer_set(*(struct timer **)arg, 20);
}

/* Turns the loop until done(arg); fails after seconds. */
static inline void run_until(
	struct loop *loop, bool (*done)(void *arg), void *arg, int seconds)
{
	struct timer *tick = timer_new(loop, run_until_tick, &tick);
	int64_t deadline;

	loop_turn(loop, false); /* what came before took time, too */
	deadline = loop_now(loop) + 1000 * seconds;
	timer_set(tick, 20);
	while (!done(arg)) {
		loop_turn(loop, true);
		if (loop_now(loop) > deadline) {
			fprintf(stderr, "nothing came of it in %d s\n",
				seconds);
			abort();
		}
	}
	timer_free(tick);
}

static inline bool never(void *arg)
{
	return loop_now((struct loop *)((void **)arg)[0]) >=
	       *(int64_t *)((void **)arg)[1];
}

static inline void run_for(struct loop *loop, int ms)
{
	int64_t until = loop_now(loop) + ms;
	void *arg[2] = {loop, &until};

	run_until(loop, never, arg, 60);
}
