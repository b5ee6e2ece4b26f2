/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What goes to one peer over all our channels to it: those too that were
 * retired for a new certificate or address, and go on until their streams end.
 */

#include "peerd/stream.h"

struct tally {
	unsigned refs;	  /* the loop's thread */
	unsigned streams; /* likewise */
	struct stream_totals totals;
};

/* Gives a first reference. */
struct tally *tally_new(void);
/* Gives another. */
struct tally *tally_ref(struct tally *tally);
void tally_unref(struct tally *tally);
