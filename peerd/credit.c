/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of credit: see credit.h. Kept by stream_rx.c for each stream.
 *
 * A newcomer's trap: a grant cannot be taken back. So what counts against the
 * pool is not what is held but what may come, and a window that shrinks does so
 * by not being topped up.
 */
#include "peerd/credit.h"

/* One stream may have this part of the pool. */
#define SHARE 4
/* The reader keeps up when less than this part of the window waits for it. */
#define BEHIND 8

static bool fits(const struct credit_pool *pool, int64_t more)
{
	return atomic_load(&pool->out) + more <= pool->max;
}

/* Tops out up to the window. */
static int64_t grant(struct credit *credit, struct credit_pool *pool)
{
	int64_t due = credit->window - credit->out;

	if (due <= 0)
		return 0;
	credit->out += due;
	atomic_fetch_add(&pool->out, due);
	return due;
}

int64_t credit_begin(struct credit *credit, struct credit_pool *pool)
{
	credit->out = 0;
	credit->window = fits(pool, CREDIT_START) ? CREDIT_START : CREDIT_SHORT;
	return grant(credit, pool);
}

int64_t credit_taken(struct credit *credit, struct credit_pool *pool, int64_t n)
{
	credit->out -= n;
	atomic_fetch_sub(&pool->out, n);
	/* A Credit for every few bytes would cost more than it gives. */
	if (credit->window - credit->out < credit->window / 4)
		return 0;
	if (!fits(pool, credit->window - credit->out) &&
		credit->window > CREDIT_SHORT)
		credit->window = CREDIT_SHORT;
	return grant(credit, pool);
}

int64_t credit_blocked(
	struct credit *credit, struct credit_pool *pool, int64_t held)
{
	int64_t wider = credit->window * 2;

	if (held > credit->window / BEHIND || wider > pool->max / SHARE ||
		!fits(pool, wider - credit->out))
		return 0;
	credit->window = wider;
	return grant(credit, pool);
}

void credit_end(struct credit *credit, struct credit_pool *pool)
{
	atomic_fetch_sub(&pool->out, credit->out);
	credit->out = 0;
}
