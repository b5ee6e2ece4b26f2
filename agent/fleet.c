/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of proxies. Owns the copies.
 *
 * What one gets wrong: a list is the whole fleet as one proxy knows it, and
 * proxies do not learn of a change at the same moment. Who merged lists would
 * keep the dead, who took any would flap; so the newer revision counts.
 */
#include "agent/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/sock.h"

#define TUNNEL_PORT 3024
#define PUBLIC_PORT 3080

void fleet_address(
	const char *text, uint16_t default_port, char *out, size_t size)
{
	char host[256];
	uint16_t port;

	if (sock_split(text, default_port, host, sizeof(host), &port) < 0)
		snprintf(out, size, "%s", text);
	else if (strchr(host, ':'))
		snprintf(out, size, "[%s]:%u", host, port);
	else
		snprintf(out, size, "%s:%u", host, port);
}

static void set_addrs(
	struct fleet_proxy *proxy, const struct discovery_proxy *from)
{
	bool own = from->tunnel_addr_count > 0;
	const char(*addrs)[300] = own ? from->tunnel_addr : from->public_addr;

	proxy->addr_count =
		own ? from->tunnel_addr_count : from->public_addr_count;
	proxy->addrs = xcalloc(proxy->addr_count + 1, sizeof(char *));
	for (unsigned i = 0; i < proxy->addr_count; i++) {
		char text[SOCK_ADDR_MAX];

		fleet_address(addrs[i], own ? TUNNEL_PORT : PUBLIC_PORT, text,
			sizeof(text));
		proxy->addrs[i] = xstrdup(text);
	}
}

/* ---- what is worked out once ---- */

static int compare_groups(const void *a, const void *b)
{
	const struct discovery_proxy *const *left = a, *const *right = b;
	int order = strcmp((*left)->group, (*right)->group);

	if (order)
		return order;
	return ((*left)->generation < (*right)->generation) -
	       ((*left)->generation > (*right)->generation);
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(((const struct fleet_proxy *)a)->id,
		((const struct fleet_proxy *)b)->id);
}

static int compare_addrs(const void *a, const void *b)
{
	const struct fleet_proxy *const *left = a, *const *right = b;

	return strcmp((*left)->addrs[0], (*right)->addrs[0]);
}

static void add_proxy(struct fleet *fleet, const struct discovery_proxy *from,
	uint64_t newest_generation)
{
	struct fleet_proxy *proxy = &fleet->proxies[fleet->count++];

	strcpy(proxy->id, from->id);
	proxy->desired =
		!from->draining && from->generation == newest_generation;
	proxy->region = xstrdup(from->region);
	proxy->zone = xstrdup(from->zone);
	set_addrs(proxy, from);
	fleet->desired += proxy->desired;
}

/* By group with the newest generation first, so each group's first one tells
 * the generation that is desired. */
static void add_all(struct fleet *fleet, const struct discovery *discovery)
{
	size_t count = discovery->proxy_count;
	const struct discovery_proxy **order =
		xcalloc(count + 1, sizeof(struct discovery_proxy *));
	const struct discovery_proxy *first = NULL;

	for (size_t i = 0; i < count; i++)
		order[i] = &discovery->proxies[i];
	qsort(order, count, sizeof(struct discovery_proxy *), compare_groups);
	fleet->proxies = xcalloc(count + 1, sizeof(fleet->proxies[0]));
	for (size_t i = 0; i < count; i++) {
		if (!first || strcmp(first->group, order[i]->group) != 0)
			first = order[i];
		add_proxy(fleet, order[i], first->generation);
	}
	free(order);
	qsort(fleet->proxies, count, sizeof(fleet->proxies[0]), compare_ids);
}

static void index_addrs(struct fleet *fleet)
{
	fleet->by_addr =
		xcalloc(fleet->count + 1, sizeof(struct fleet_proxy *));
	for (size_t i = 0; i < fleet->count; i++)
		if (fleet->proxies[i].addr_count)
			fleet->by_addr[fleet->addr_count++] =
				&fleet->proxies[i];
	qsort(fleet->by_addr, fleet->addr_count, sizeof(struct fleet_proxy *),
		compare_addrs);
}

static struct strategy strategy_of(const struct discovery *discovery)
{
	struct strategy strategy = {DISCOVERY_AGENT_MESH, 0};
	uint32_t most = 1;

	if (!discovery->proxy_count)
		return strategy;
	for (size_t i = 0; i < discovery->proxy_count; i++) {
		const struct discovery_proxy *proxy = &discovery->proxies[i];

		if (proxy->strategy != DISCOVERY_PROXY_PEERING)
			return strategy;
		if (proxy->agent_connection_count > most)
			most = proxy->agent_connection_count;
	}
	strategy.type = DISCOVERY_PROXY_PEERING;
	strategy.count = most;
	return strategy;
}

/* ---- the list ---- */

struct fleet *fleet_new(const struct discovery *discovery)
{
	struct fleet *fleet = xcalloc(1, sizeof(*fleet));

	fleet->refs = 1;
	strcpy(fleet->store_id, discovery->store_id);
	fleet->revision = discovery->revision;
	fleet->strategy = strategy_of(discovery);
	add_all(fleet, discovery);
	index_addrs(fleet);
	return fleet;
}

struct fleet *fleet_ref(struct fleet *fleet)
{
	fleet->refs++;
	return fleet;
}

void fleet_unref(struct fleet *fleet)
{
	if (!fleet || --fleet->refs)
		return;
	for (size_t i = 0; i < fleet->count; i++) {
		struct fleet_proxy *proxy = &fleet->proxies[i];

		for (unsigned n = 0; n < proxy->addr_count; n++)
			free(proxy->addrs[n]);
		free(proxy->addrs);
		free(proxy->region);
		free(proxy->zone);
	}
	free(fleet->by_addr);
	free(fleet->proxies);
	free(fleet);
}

const struct fleet_proxy *fleet_find(const struct fleet *fleet, const char *id)
{
	struct fleet_proxy key;

	if (!fleet || strlen(id) >= sizeof(key.id))
		return NULL;
	strcpy(key.id, id);
	return bsearch(&key, fleet->proxies, fleet->count,
		sizeof(fleet->proxies[0]), compare_ids);
}

const struct fleet_proxy *fleet_at(const struct fleet *fleet, const char *addr)
{
	char *addrs[1] = {(char *)addr};
	const struct fleet_proxy proxy = {.addrs = addrs, .addr_count = 1};
	const struct fleet_proxy *key = &proxy;
	const struct fleet_proxy **found =
		fleet ? bsearch(&key, fleet->by_addr, fleet->addr_count,
				sizeof(struct fleet_proxy *), compare_addrs)
		      : NULL;

	return found ? *found : NULL;
}

bool fleet_is_news(const struct fleet *a, const struct fleet *b)
{
	if (!a || !a->revision)
		return true;
	if (!b->revision)
		return false;
	return strcmp(a->store_id, b->store_id) != 0 ||
	       b->revision >= a->revision;
}
