/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Extension `credit`, the receiver's side: how many bytes of Data the far side
 * may send before we give more. What is granted and has not yet left to the
 * reader is what a stream may make us hold, so it is taken out of one pool.
 *
 *   grant --------> the far side sends --------> held --------> the reader
 *   `-------------------- out ---------------------------'
 *
 * A stream begins with CREDIT_START. It is topped up as its reader takes bytes,
 * so a reader that stalls gets nothing more. When the far side has used all up
 * while the reader keeps up, the window is what limits: it doubles, and ends at
 * about twice the bandwidth-delay product. When the pool is short, a window
 * shrinks to CREDIT_SHORT, which a stream has even beyond the pool.
 *
 * Pure but for the pool's atomic. One thread at a time for one struct credit.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CREDIT_START (256 << 10)
#define CREDIT_SHORT (64 << 10)
/* What a far side may grant in one message. */
#define CREDIT_MAX (1ull << 40)

struct credit_pool {
	_Atomic int64_t out; /* of all streams */
	_Atomic int64_t max; /* bytes */
};

struct credit {
	int64_t window; /* what out is topped up to */
	int64_t out;	/* granted, not yet taken by the reader */
};

/* The first grant. */
int64_t credit_begin(struct credit *credit, struct credit_pool *pool);
/* n bytes have left to the reader; what to grant now, 0: nothing yet. */
int64_t credit_taken(
	struct credit *credit, struct credit_pool *pool, int64_t n);
/* The far side has used all up and has more; held bytes wait for the reader.
 * What to grant now. */
int64_t credit_blocked(
	struct credit *credit, struct credit_pool *pool, int64_t held);
/* Nothing more comes: all of it back to the pool. */
void credit_end(struct credit *credit, struct credit_pool *pool);
