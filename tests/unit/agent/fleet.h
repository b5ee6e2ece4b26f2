/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Proxies by one letter or number, and lists of them as discovery brings. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tracker.h"

/* The uuid of proxy number n; good until 8 more were asked for. */
static inline const char *proxy_id(int n)
{
	static char ids[8][37];
	static int next;
	char *id = ids[next++ % 8];

	snprintf(id, 37, "00000000-0000-4000-8000-%012d", n);
	return id;
}

struct said {
	int n;
	const char *group;
	uint64_t generation;
	bool draining;
	enum discovery_strategy strategy;
	uint32_t count;
	const char *addr; /* NULL: none */
	const char *region;
	const char *zone;
};

/* Lists made so far, each newer than the one before; 0: without a revision. */
static uint64_t said_revision;

static inline struct fleet *fleet_of(const struct said *said, size_t count)
{
	struct discovery discovery = {
		.proxy_count = count, .revision = said_revision};
	struct fleet *fleet;

	discovery.proxies = calloc(count + 1, sizeof(discovery.proxies[0]));
	for (size_t i = 0; i < count; i++) {
		struct discovery_proxy *proxy = &discovery.proxies[i];

		strcpy(proxy->id, proxy_id(said[i].n));
		strcpy(proxy->group, said[i].group ? said[i].group : "");
		proxy->generation = said[i].generation;
		proxy->draining = said[i].draining;
		proxy->strategy = said[i].strategy;
		proxy->agent_connection_count = said[i].count;
		if (said[i].addr) {
			strcpy(proxy->public_addr[0], said[i].addr);
			proxy->public_addr_count = 1;
		}
		strcpy(proxy->region, said[i].region ? said[i].region : "");
		strcpy(proxy->zone, said[i].zone ? said[i].zone : "");
	}
	fleet = fleet_new(&discovery);
	free(discovery.proxies);
	return fleet;
}

/* A whole list that came at now. */
static inline bool mention(struct tracker *tracker, const struct said *said,
	size_t count, int64_t now)
{
	struct fleet *fleet = fleet_of(said, count);
	bool news = tracker_mention(tracker, fleet, now);

	fleet_unref(fleet);
	return news;
}
