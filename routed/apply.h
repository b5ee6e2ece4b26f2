/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a message of authd's watch means for the cache, pure: where the cache
 * stands in the store's revisions, and whether a record is fit to be kept.
 *
 *   CURRENT --first part of a snapshot--> GATHERING --last part--> CURRENT
 *   CURRENT --changes of the next revision--> CURRENT
 */

#include <stdbool.h>
#include <stdint.h>

#include "auth.pb-c.h"

struct apply {
	char store_id[64]; /* empty: nothing has been mirrored yet */
	uint64_t revision;
	bool gathering; /* within a snapshot */
};

enum apply_step {
	APPLY_SKIP,    /* nothing new */
	APPLY_CHANGES, /* make these changes, commit */
	APPLY_GATHER,  /* part of a snapshot, more to come */
	APPLY_REPLACE, /* last part: what the snapshot lacks is to be deleted */
	APPLY_BROKEN,  /* the stream breaks its own rules: start it anew */
};

/* Stands at (store_id, revision); "" and 0 for an empty cache. */
void apply_init(struct apply *apply, const char *store_id, uint64_t revision);

/* What to do with message, whose acceptance it records. BROKEN: *reason_out is
 * a static text. */
enum apply_step apply_next(struct apply *apply,
	const Peerway__Auth__WatchResponse *message, const char **reason_out);

/* Whether a change may be stored: uuids, names and sizes are what readers
 * rely on. */
bool apply_is_fit(const Peerway__Auth__Change *change);
/* The same of one tunnel's record. */
bool apply_tunnel_is_fit(const Peerway__Record__TunnelRecord *record);
