/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The writing side of the cache (shared/cache.h has its schema): all of
 * routed's SQL, prepared once. Rows and position change in one transaction,
 * so a reader never sees a position without its rows.
 *
 * Files are <directory>/cache-<n>.db, the highest n in use. One that is damaged
 * or of another schema is renamed cache-<n>.db.bad-<unix time> and n + 1 is
 * begun.
 */

#include <stdbool.h>
#include <stdint.h>

#include "auth.pb-c.h"
#include "shared/cache.h"

struct store;

/* *notice_out (gives, to free()): which file was set aside and why, or NULL.
 * NULL and *error_out (gives) when no file can be made. Makes the directory,
 * group-writable and setgid: readers of other users make WAL files in it. */
struct store *store_open(
	const char *directory, char **notice_out, char **error_out);
void store_close(struct store *store);
/* Closes it for good; the next store_open() begins a new file. Gives a notice
 * as store_open() does. */
char *store_set_aside(struct store *store, const char *reason);

const char *store_path(const struct store *store);
/* Of the last failure; borrowed until the next call. */
const char *store_error(const struct store *store);
/* Reads the whole file anew, past what is held in memory: what is wrong with
 * it (gives), or NULL. */
char *store_check(const struct store *store);
/* Whether that failure means that the file is of no use any more. */
bool store_is_damaged(const struct store *store);
/* Where the cache stands; a zeroed one when it is empty. */
int store_meta(struct store *store, struct cache_meta *out);
/* How many tunnels end at each proxy that has any, in no order; kept, not
 * counted. An open transaction's are in it. 0 or -EIO. */
int store_tunnel_counts(struct store *store,
	void (*fn)(void *arg, const char *proxy_id, uint64_t tunnels),
	void *arg);

/*
 * One transaction: begin, any number of changes, commit or rollback. Of a
 * snapshot, commit deletes what no change of it has put. Lookups see the old
 * state until then. Each 0 or -EIO; after -EIO only store_rollback().
 */
int store_begin(struct store *store, bool snapshot);
bool store_is_open(const struct store *store); /* a transaction is */
int store_change(struct store *store, const Peerway__Auth__Change *change);
/* *proxies_changed_out: a proxy's record or the cluster's is not as before. */
int store_commit(struct store *store, const char *store_id, uint64_t revision,
	bool *proxies_changed_out);
void store_rollback(struct store *store);
