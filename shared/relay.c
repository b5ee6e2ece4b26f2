/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins two channels. Talks to the loop and to chan.c; owns both channels and
 * the bytes on their way. A buffer exists only while bytes wait in it, so an
 * idle relay costs a few hundred bytes.
 *
 * What a newcomer gets wrong: readiness is edge-triggered, so pump_way() must
 * go on until it is blocked, and a turn that stops early for fairness has to
 * come back by itself.
 */
#include "shared/relay.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

/* What one direction may move per turn before others get theirs. */
#define TURN_MAX (16u * RELAY_BUFFER)

/* One direction. READING: until end of stream; DRAINING: what is buffered, then
 * the half-close; SHUT: over. */
enum way_state { WAY_READING, WAY_DRAINING, WAY_SHUT };

struct way {
	struct chan *from;
	struct chan *to;
	enum way_state state;
	uint8_t *buf; /* RELAY_BUFFER bytes, or NULL when empty */
	size_t start;
	size_t len;
	uint64_t moved;
};

struct relay {
	struct loop *loop;
	struct way ways[2]; /* a to b, b to a */
	struct loop_task again;
	void (*on_end)(void *arg, const struct relay_result *result);
	void *arg;
	bool dead;
};

static bool room(const struct way *way)
{
	return way->start + way->len < RELAY_BUFFER;
}

/* 0: read something or the end; -EAGAIN; -errno. */
static int fill(struct way *way)
{
	ssize_t n;

	if (!way->buf) {
		way->buf = malloc(RELAY_BUFFER);
		if (!way->buf)
			return -ENOMEM;
		way->start = 0;
	}
	n = chan_read(way->from, way->buf + way->start + way->len,
		RELAY_BUFFER - way->start - way->len);
	if (n < 0)
		return (int)n;
	if (n == 0)
		way->state = WAY_DRAINING;
	way->len += (size_t)n;
	return 0;
}

static int drain(struct way *way)
{
	ssize_t n = chan_write(way->to, way->buf + way->start, way->len);

	if (n < 0)
		return (int)n;
	way->start += (size_t)n;
	way->len -= (size_t)n;
	way->moved += (size_t)n;
	if (way->len == 0)
		way->start = 0;
	return 0;
}

/* One read, write or half-close; 0 when something moved. */
static int step(struct way *way)
{
	int ret;

	if (way->len > 0) {
		ret = drain(way);
		/* Blocked: what still fits is taken in meanwhile. */
		if (ret == -EAGAIN && way->state == WAY_READING && room(way))
			return fill(way);
		return ret;
	}
	if (way->state == WAY_READING)
		return fill(way);
	ret = chan_shutdown(way->to);
	if (ret == 0)
		way->state = WAY_SHUT;
	return ret;
}

/* Moves until blocked (0), over, failed (-errno) or it has had its share: then
 * *again is set. */
static int pump_way(struct way *way, bool *again)
{
	uint64_t until = way->moved + TURN_MAX;
	int ret = 0;

	while (way->state != WAY_SHUT && ret == 0) {
		if (way->moved >= until) {
			*again = true;
			break;
		}
		ret = step(way);
	}
	if (way->len == 0) {
		free(way->buf);
		way->buf = NULL;
	}
	return ret == -EAGAIN ? 0 : ret;
}

static void free_now(void *arg)
{
	struct relay *relay = arg;

	free(relay->ways[0].buf);
	free(relay->ways[1].buf);
	free(relay);
}

void relay_counts(
	const struct relay *relay, uint64_t *a_to_b_out, uint64_t *b_to_a_out)
{
	*a_to_b_out = relay->ways[0].moved;
	*b_to_a_out = relay->ways[1].moved;
}

static void finish(struct relay *relay, int error)
{
	struct relay_result result = {.error = error};

	relay_counts(relay, &result.a_to_b, &result.b_to_a);
	for (int i = 0; error && i < 2; i++)
		if (relay->ways[i].state != WAY_SHUT)
			chan_abort(relay->ways[i].to);
	relay_free(relay);
	relay->on_end(relay->arg, &result);
}

static void pump(struct relay *relay)
{
	bool again = false;
	int error = 0;

	for (int i = 0; error == 0 && i < 2; i++)
		error = pump_way(&relay->ways[i], &again);
	if (error || (relay->ways[0].state == WAY_SHUT &&
			     relay->ways[1].state == WAY_SHUT))
		finish(relay, error);
	else if (again)
		loop_defer(relay->loop, &relay->again);
}

static void on_ready(void *arg)
{
	struct relay *relay = arg;

	if (!relay->dead)
		pump(relay);
}

static void on_again(struct loop_task *task)
{
	on_ready((char *)task - offsetof(struct relay, again));
}

struct relay *relay_new(struct loop *loop, struct chan *a, struct chan *b,
	const void *first, size_t len,
	void (*on_end)(void *arg, const struct relay_result *result), void *arg)
{
	struct relay *relay = xcalloc(1, sizeof(*relay));
	struct way *way = &relay->ways[0];

	relay->loop = loop;
	relay->on_end = on_end;
	relay->arg = arg;
	relay->again.run = on_again;
	*way = (struct way){.from = a, .to = b};
	relay->ways[1] = (struct way){.from = b, .to = a};
	if (len > 0) {
		way->buf = xcalloc(1, RELAY_BUFFER);
		way->len = len < RELAY_BUFFER ? len : RELAY_BUFFER;
		memcpy(way->buf, first, way->len);
	}
	chan_watch(a, on_ready, relay);
	chan_watch(b, on_ready, relay);
	return relay;
}

void relay_free(struct relay *relay)
{
	if (!relay || relay->dead)
		return;
	relay->dead = true;
	loop_cancel(relay->loop, &relay->again);
	chan_free(relay->ways[0].from);
	chan_free(relay->ways[1].from);
	loop_free_later(relay->loop, free_now, relay);
}
