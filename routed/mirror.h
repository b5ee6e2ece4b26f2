/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * authd's watch, written into the cache: resumes from where the cache stands,
 * starts over with a new file when the old one is damaged.
 */

#include <stdbool.h>
#include <stdint.h>

#include "routed/session.h"
#include "shared/cache.h"

struct mirror;

struct mirror_ops {
	/* The cache has another state, or another file. */
	void (*on_commit)(void *arg, bool proxies_changed);
	/* The first word of a watch has been dealt with: the cache is what
	 * authd has, as far as a moment can be. */
	void (*on_current)(void *arg);
};

/* NULL and *error_out (gives) when there is no cache file to be had. Borrows
 * session, ops and arg. */
struct mirror *mirror_new(struct loop *loop, const char *directory,
	struct session *session, const struct mirror_ops *ops, void *arg,
	char **error_out);
void mirror_free(struct mirror *mirror);

/* With the session: opened, and closed. */
void mirror_start(struct mirror *mirror);
void mirror_stop(struct mirror *mirror);

/* For lookups; NULL when the file cannot be read. Borrowed until the next turn
 * of the loop. */
struct cache *mirror_cache(struct mirror *mirror);
/* A lookup has failed: has the file checked, and rebuilt if need be. */
void mirror_suspect(struct mirror *mirror);
/* store_tunnel_counts() of the cache. */
int mirror_tunnel_counts(struct mirror *mirror,
	void (*fn)(void *arg, const char *proxy_id, uint64_t tunnels),
	void *arg);
/* Empty: what was heard last has been written. Borrowed. */
const char *mirror_last_error(const struct mirror *mirror);
const char *mirror_path(const struct mirror *mirror);
/* false: nothing has ever been mirrored into this file. */
bool mirror_position(const struct mirror *mirror, struct cache_meta *out);
/* Since authd last said anything; the first -1 when the watch is not running.
 */
int64_t mirror_age_ms(const struct mirror *mirror);
int64_t mirror_silence_ms(const struct mirror *mirror);
