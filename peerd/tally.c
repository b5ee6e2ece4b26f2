/* SPDX-License-Identifier: Apache-2.0 */
/* A peer's streams and bytes: see tally.h. Held by peers.c and each channel. */
#include "peerd/tally.h"

#include <assert.h>
#include <stdlib.h>

#include "shared/alloc.h"

struct tally *tally_new(void)
{
	struct tally *tally = xcalloc(1, sizeof(*tally));

	tally->refs = 1;
	return tally;
}

struct tally *tally_ref(struct tally *tally)
{
	tally->refs++;
	return tally;
}

void tally_unref(struct tally *tally)
{
	assert(tally->refs > 0);
	if (--tally->refs == 0)
		free(tally);
}
