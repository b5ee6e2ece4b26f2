/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Two cache files held against each other, row by row and column by column:
 * the one that routed keeps, and one just filled from authd's records.
 */

#include <stdint.h>

#include "shared/cache.h"

enum store_difference_kind {
	STORE_MISSING, /* authd has the record, the cache has not */
	STORE_EXTRA,   /* the cache has it, authd has not */
	STORE_DIFFERS,
};

struct store_difference {
	enum store_difference_kind kind;
	const char *table; /* "config", "proxy", "tunnel" */
	const char *agent_id, *agent, *proxy_id; /* empty: not of this kind */
	/* Of the row's content: another when it has been written anew. */
	uint64_t fingerprint;
};

/* More than this of a table and kind are left out. */
#define STORE_DIFFERENCES_MAX 200

/* Calls fn with each difference of the cache at path from the truth, both as
 * of one moment; *meta_out is the cache's. 0, or -EIO and *error_out (gives).
 */
int store_compare(const char *truth, const char *path,
	void (*fn)(void *arg, const struct store_difference *difference),
	void *arg, struct cache_meta *meta_out, char **error_out);
