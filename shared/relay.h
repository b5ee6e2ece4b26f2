/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Two byte channels joined in both directions: backpressure (no more than one
 * buffer of RELAY_BUFFER bytes waits in each direction), half-close carried
 * over, byte counts. Ends when both directions have ended or either side fails;
 * a side that was still to receive is then reset, so that a torn stream does
 * not look like a whole one.
 */

#include <stdint.h>

#include "shared/chan.h"

#define RELAY_BUFFER 65536

struct relay;

struct relay_result {
	uint64_t a_to_b;
	uint64_t b_to_a;
	int error; /* 0, or -errno of the side that failed */
};

/* Takes both channels; first of len bytes (at most RELAY_BUFFER, copied) are
 * sent to b ahead of what a sends. on_end is called once, and the relay freed
 * after it. */
struct relay *relay_new(struct loop *loop, struct chan *a, struct chan *b,
	const void *first, size_t len,
	void (*on_end)(void *arg, const struct relay_result *result),
	void *arg);
/* What has gone so far. */
void relay_counts(
	const struct relay *relay, uint64_t *a_to_b_out, uint64_t *b_to_a_out);
/* Ends it without on_end. */
void relay_free(struct relay *relay);
