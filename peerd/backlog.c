/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue of copied bytes: see backlog.h. A newcomer's trap: the taker works on
 * borrowed pieces without the lock, so the putter only ever appends: behind
 * what is there, never moving it.
 */
#include "peerd/backlog.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"

/* So that many small pieces share one chunk. */
#define CHUNK_MIN 4096

struct backlog_chunk {
	TAILQ_ENTRY(backlog_chunk) entry;
	size_t start; /* taken up to here */
	size_t end;   /* filled up to here */
	size_t size;
	uint8_t bytes[];
};

void backlog_init(struct backlog *backlog)
{
	pthread_mutex_init(&backlog->lock, NULL);
	TAILQ_INIT(&backlog->chunks);
	backlog->len = 0;
}

void backlog_deinit(struct backlog *backlog)
{
	backlog_drop(backlog, backlog->len);
	pthread_mutex_destroy(&backlog->lock);
}

static size_t room(const struct backlog_chunk *chunk)
{
	return chunk ? chunk->size - chunk->end : 0;
}

/* The chunk that the next bytes go into. */
static struct backlog_chunk *last_chunk(struct backlog *backlog, size_t want)
{
	struct backlog_chunk *last = TAILQ_LAST(&backlog->chunks, backlog_list);

	if (room(last) > 0)
		return last;
	if (want < CHUNK_MIN)
		want = CHUNK_MIN - sizeof(*last);
	last = malloc(sizeof(*last) + want);
	if (!last)
		fatal("out of memory");
	last->start = last->end = 0;
	last->size = want;
	TAILQ_INSERT_TAIL(&backlog->chunks, last, entry);
	return last;
}

void backlog_put(
	struct backlog *backlog, const struct iovec *pieces, size_t count)
{
	size_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += pieces[i].iov_len;
	pthread_mutex_lock(&backlog->lock);
	backlog->len += total;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *from = pieces[i].iov_base;
		size_t left = pieces[i].iov_len;

		while (left > 0) {
			struct backlog_chunk *to = last_chunk(backlog, total);
			size_t n = left < room(to) ? left : room(to);

			memcpy(to->bytes + to->end, from, n);
			to->end += n;
			from += n;
			left -= n;
			total -= n;
		}
	}
	pthread_mutex_unlock(&backlog->lock);
}

size_t backlog_len(struct backlog *backlog)
{
	size_t len;

	pthread_mutex_lock(&backlog->lock);
	len = backlog->len;
	pthread_mutex_unlock(&backlog->lock);
	return len;
}

size_t backlog_peek(struct backlog *backlog, struct iovec *pieces, size_t max)
{
	struct backlog_chunk *chunk;
	size_t count = 0;

	pthread_mutex_lock(&backlog->lock);
	TAILQ_FOREACH (chunk, &backlog->chunks, entry) {
		if (count == max)
			break;
		pieces[count].iov_base = chunk->bytes + chunk->start;
		pieces[count++].iov_len = chunk->end - chunk->start;
	}
	pthread_mutex_unlock(&backlog->lock);
	return count;
}

void backlog_drop(struct backlog *backlog, size_t len)
{
	pthread_mutex_lock(&backlog->lock);
	backlog->len -= len;
	while (len > 0) {
		struct backlog_chunk *chunk = TAILQ_FIRST(&backlog->chunks);
		size_t n = chunk->end - chunk->start;

		if (n > len) {
			chunk->start += len;
			break;
		}
		len -= n;
		TAILQ_REMOVE(&backlog->chunks, chunk, entry);
		free(chunk);
	}
	pthread_mutex_unlock(&backlog->lock);
}
