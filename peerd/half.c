/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of one direction of a stream: see half.h. Used by stream.c alone.
 *
 * A newcomer's trap: an edge of the descriptor comes once. If it comes while
 * the holder is about to park, it must not be lost, hence SIGNALLED.
 */
#include "peerd/half.h"

bool half_park(struct half *half)
{
	int expected = HALF_BUSY;

	if (!atomic_compare_exchange_strong(
		    &half->state, &expected, HALF_WAITING)) {
		atomic_store(&half->state, HALF_BUSY); /* was SIGNALLED */
		return false;
	}
	if (!atomic_load(&half->stop))
		return true;
	/* Told to stop between our last look and parking: take it back,
	 * unless the one who told us has. */
	expected = HALF_WAITING;
	return !atomic_compare_exchange_strong(
		&half->state, &expected, HALF_BUSY);
}

bool half_wake(struct half *half)
{
	int state = atomic_load(&half->state);

	while (state == HALF_WAITING || state == HALF_BUSY) {
		int next = state == HALF_WAITING ? HALF_BUSY : HALF_SIGNALLED;

		if (atomic_compare_exchange_weak(&half->state, &state, next))
			return next == HALF_BUSY;
	}
	return false;
}

bool half_take(struct half *half)
{
	int expected = HALF_WAITING;

	return atomic_compare_exchange_strong(
		&half->state, &expected, HALF_BUSY);
}

bool half_stop(struct half *half)
{
	atomic_store(&half->stop, true);
	return half_wake(half);
}

void half_finish(struct half *half)
{
	atomic_store(&half->state, HALF_DONE);
}
