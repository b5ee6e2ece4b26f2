/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Target -> agent and service: this worker's own tunnels united with the cache
 * of the cluster's records. Its own come first: a tunnel is reachable here from
 * the moment it is registered, not only when its record has come round.
 */

#include <stdbool.h>
#include <stddef.h>

#include "shared/cache.h"
#include "shared/target.h"

struct registry;
struct routes;

/* Borrows both. */
struct routes *routes_new(const char *cluster, struct registry *registry);
void routes_free(struct routes *routes);

/* Reads from this file from here on. 0, or -EIO and *error_out (gives): the
 * old one, if any, stays. The same path again is cheap. */
int routes_open(struct routes *routes, const char *path, char **error_out);
/* NULL: none yet. Borrowed until the next routes_open(). */
struct cache *routes_cache(const struct routes *routes);

enum route_result {
	ROUTE_FOUND,
	ROUTE_INVALID, /* not a target */
	ROUTE_UNKNOWN, /* no such agent or service */
	ROUTE_AMBIGUOUS,
	ROUTE_BLIND, /* unknown here, and there is no cache to ask */
};
/* The HTTP status of all but ROUTE_FOUND. */
int route_status(enum route_result result);

#define ROUTE_TEXT_MAX 1024
/* why: the reason, of ROUTE_TEXT_MAX bytes, for all but ROUTE_FOUND. */
enum route_result route_resolve(struct routes *routes, const char *text,
	struct target_match *out, char *why);
