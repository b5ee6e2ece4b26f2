/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Test help: a line that takes its time. Bytes that go in at one end come out
 * at the other so many milliseconds later; it takes any amount meanwhile.
 */

#include "tests/unit/shared/endpoint.h"

struct slow_chunk {
	STAILQ_ENTRY(slow_chunk) entry;
	int64_t due;
	size_t start;
	size_t len;
	uint8_t data[];
};

struct slow_way {
	struct slow_line *line;
	struct chan *from;
	struct chan *to;
	STAILQ_HEAD(, slow_chunk) chunks;
};

struct slow_line {
	struct loop *loop;
	struct timer *timer;
	int64_t delay_ms;
	struct slow_way ways[2];
};

static inline void slow_take(struct slow_way *way)
{
	static uint8_t buf[262144];
	ssize_t n;

	while ((n = chan_read(way->from, buf, sizeof(buf))) > 0) {
		struct slow_chunk *chunk = malloc(sizeof(*chunk) + (size_t)n);

		assert(chunk);
		chunk->due = loop_now(way->line->loop) + way->line->delay_ms;
		chunk->start = 0;
		chunk->len = (size_t)n;
		memcpy(chunk->data, buf, (size_t)n);
		STAILQ_INSERT_TAIL(&way->chunks, chunk, entry);
	}
}

static inline void slow_give(struct slow_way *way)
{
	struct slow_chunk *chunk;

	while ((chunk = STAILQ_FIRST(&way->chunks)) &&
		chunk->due <= loop_now(way->line->loop)) {
		ssize_t n = chan_write(way->to, chunk->data + chunk->start,
			chunk->len - chunk->start);

		if (n <= 0)
			return;
		chunk->start += (size_t)n;
		if (chunk->start < chunk->len)
			continue;
		STAILQ_REMOVE_HEAD(&way->chunks, entry);
		free(chunk);
	}
}

static inline void slow_line_ready(void *arg)
{
	struct slow_line *line = arg;

	for (int i = 0; i < 2; i++) {
		slow_take(&line->ways[i]);
		slow_give(&line->ways[i]);
	}
}

static inline void slow_line_tick(void *arg)
{
	struct slow_line *line = arg;

	slow_line_ready(line);
	timer_set(line->timer, 1);
}

/* Takes both channels. */
static inline void slow_line_start(struct slow_line *line, struct loop *loop,
	struct chan *a, struct chan *b, int64_t delay_ms)
{
	*line = (struct slow_line){.loop = loop, .delay_ms = delay_ms};
	line->ways[0] = (struct slow_way){.line = line, .from = a, .to = b};
	line->ways[1] = (struct slow_way){.line = line, .from = b, .to = a};
	STAILQ_INIT(&line->ways[0].chunks);
	STAILQ_INIT(&line->ways[1].chunks);
	chan_watch(a, slow_line_ready, line);
	chan_watch(b, slow_line_ready, line);
	line->timer = timer_new(loop, slow_line_tick, line);
	timer_set(line->timer, 1);
}

static inline void slow_line_stop(struct slow_line *line)
{
	struct slow_chunk *chunk;

	timer_free(line->timer);
	for (int i = 0; i < 2; i++) {
		while ((chunk = STAILQ_FIRST(&line->ways[i].chunks))) {
			STAILQ_REMOVE_HEAD(&line->ways[i].chunks, entry);
			free(chunk);
		}
		chan_free(line->ways[i].from);
	}
}
