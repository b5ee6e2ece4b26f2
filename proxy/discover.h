/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What agents and clients are told of the fleet, made from the cache and kept
 * as text until the proxies change: the answer to GET /webapi/find and the
 * body of POST /v1/proxies on tunnels.
 */

#include <stdbool.h>

#include "shared/conf.h"
#include "shared/tunnel.h"

struct cache;
struct discover;

/* Borrows conf and proxy_id. */
struct discover *discover_new(const struct conf *conf, const char *proxy_id);
void discover_free(struct discover *discover);

/* Makes both texts anew from cache (NULL: from the configuration alone). True
 * when anything differs. */
bool discover_refresh(struct discover *discover, struct cache *cache);

/* Borrowed until the next discover_refresh(). */
const char *discover_find(const struct discover *discover);
const char *discover_push(const struct discover *discover);
/* How many other proxies serve. */
unsigned discover_others(const struct discover *discover);
/* The cluster's keepalive settings. */
void discover_keepalive(
	const struct discover *discover, struct tunnel_settings *settings);
