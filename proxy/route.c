/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The view of who is where that clients' targets are held against. Owns the
 * open cache; which file that is, routed says.
 *
 * What a newcomer gets wrong: this finds agent and service, not the way. Which
 * worker or peer holds a tunnel of the agent is peerd's business when it is
 * not this worker.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/registry.h"
#include "proxy/route.h"
#include "shared/alloc.h"

#define MATCHES_MAX 512

struct routes {
	const char *cluster;
	struct registry *registry;
	struct cache *cache;
	char *path;
	/* too large for the stack; used within one call */
	struct target_match matches[MATCHES_MAX];
	struct target_match cached[MATCHES_MAX];
};

struct routes *routes_new(const char *cluster, struct registry *registry)
{
	struct routes *routes = xcalloc(1, sizeof(*routes));

	routes->cluster = cluster;
	routes->registry = registry;
	return routes;
}

void routes_free(struct routes *routes)
{
	if (!routes)
		return;
	if (routes->cache)
		cache_close(routes->cache);
	free(routes->path);
	free(routes);
}

int routes_open(struct routes *routes, const char *path, char **error_out)
{
	struct cache *cache;

	if (routes->path && strcmp(routes->path, path) == 0)
		return 0;
	cache = cache_open(path, error_out);
	if (!cache)
		return -EIO;
	if (routes->cache)
		cache_close(routes->cache);
	free(routes->path);
	routes->cache = cache;
	routes->path = xstrdup(path);
	return 0;
}

struct cache *routes_cache(const struct routes *routes)
{
	return routes->cache;
}

int route_status(enum route_result result)
{
	switch (result) {
	case ROUTE_INVALID:
		return 400;
	case ROUTE_UNKNOWN:
		return 404;
	case ROUTE_AMBIGUOUS:
		return 409;
	default:
		return 503;
	}
}

/* Own tunnels, then what the cache has of other agents. */
static size_t gather(
	struct routes *routes, const struct target *target, bool *blind_out)
{
	size_t own = registry_match(
		routes->registry, target, routes->matches, MATCHES_MAX);
	int cached = -EIO;

	if (routes->cache)
		cached = cache_match(
			routes->cache, target, routes->cached, MATCHES_MAX);
	*blind_out = cached < 0;
	if (cached > 0)
		own = target_unite(routes->matches, own, MATCHES_MAX,
			routes->cached, (size_t)cached);
	return own;
}

enum route_result route_resolve(struct routes *routes, const char *text,
	struct target_match *out, char *why)
{
	struct target target;
	const char *reason;
	size_t count, index;
	bool blind;

	if (target_parse(text, routes->cluster, &target, &reason)) {
		snprintf(why, ROUTE_TEXT_MAX, "%s", reason);
		return ROUTE_INVALID;
	}
	count = gather(routes, &target, &blind);
	switch (target_choose(
		&target, routes->matches, count, &index, why, ROUTE_TEXT_MAX)) {
	case TARGET_ONE:
		*out = routes->matches[index];
		return ROUTE_FOUND;
	case TARGET_AMBIGUOUS:
		return ROUTE_AMBIGUOUS;
	case TARGET_NONE:
		break;
	}
	if (!blind)
		return ROUTE_UNKNOWN;
	snprintf(why, ROUTE_TEXT_MAX,
		"no such tunnel here, and the routing cache is not there yet");
	return ROUTE_BLIND;
}
