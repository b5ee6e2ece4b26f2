/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery from proxy records. Owns the two texts.
 *
 * What a newcomer gets wrong: this proxy may not be in the cache yet (its own
 * record takes a round through authd) and has to be told of all the same, or
 * the first agent of a new cluster would find nobody.
 */
#include <stdlib.h>
#include <string.h>

#include "proxy/discover.h"
#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/discovery.h"

struct discover {
	const struct conf *conf;
	const char *proxy_id;
	char *find;
	char *push;
	uint32_t keep_alive_interval_ms;
	uint32_t keep_alive_count_max;
	unsigned others; /* that serve */
};

struct discover *discover_new(const struct conf *conf, const char *proxy_id)
{
	struct discover *discover = xcalloc(1, sizeof(*discover));

	discover->conf = conf;
	discover->proxy_id = proxy_id;
	discover_refresh(discover, NULL);
	return discover;
}

void discover_free(struct discover *discover)
{
	if (!discover)
		return;
	free(discover->find);
	free(discover->push);
	free(discover);
}

/* Copies what fits; a record's text was bounded by whoever accepted it. */
#define COPY(field, text) \
	strncpy(field, (text) ? (text) : "", sizeof(field) - 1)

static unsigned copy_addrs(
	char out[DISCOVERY_ADDRS_MAX][300], char *const *addrs, size_t count)
{
	unsigned n = 0;

	for (size_t i = 0; i < count && n < DISCOVERY_ADDRS_MAX; i++) {
		if (strlen(addrs[i]) >= sizeof(out[n]))
			continue;
		COPY(out[n], addrs[i]);
		n++;
	}
	return n;
}

static void set_strategy(struct discovery_proxy *proxy,
	const Peerway__Record__TunnelStrategy *strategy)
{
	if (!strategy)
		return;
	proxy->agent_connection_count = strategy->agent_connection_count;
	if (strategy->type == PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING)
		proxy->strategy = DISCOVERY_PROXY_PEERING;
}

static void add_record(
	struct discovery *discovery, const Peerway__Record__ProxyRecord *record)
{
	struct discovery_proxy *proxy =
		&discovery->proxies[discovery->proxy_count++];

	COPY(proxy->id, record->id);
	proxy->public_addr_count = copy_addrs(
		proxy->public_addr, record->public_addr, record->n_public_addr);
	proxy->tunnel_addr_count = copy_addrs(
		proxy->tunnel_addr, record->tunnel_addr, record->n_tunnel_addr);
	proxy->draining =
		record->state == PEERWAY__RECORD__PROXY_STATE__DRAINING;
	set_strategy(proxy, record->strategy);
	COPY(proxy->group, record->group);
	proxy->generation = record->generation;
	COPY(proxy->region, record->region);
	COPY(proxy->zone, record->zone);
}

static bool has_self(const struct discovery *discovery, const char *id)
{
	for (size_t i = 0; i < discovery->proxy_count; i++) {
		if (strcmp(discovery->proxies[i].id, id) == 0)
			return true;
	}
	return false;
}

/* This proxy as its configuration has it. */
static void add_self(const struct discover *discover,
	struct discovery *discovery,
	const Peerway__Record__ClusterConfig *config)
{
	const struct conf_proxy *conf = &discover->conf->proxy;
	struct discovery_proxy *proxy =
		&discovery->proxies[discovery->proxy_count++];

	COPY(proxy->id, discover->proxy_id);
	proxy->public_addr_count = copy_addrs(
		proxy->public_addr, conf->public_addr, conf->public_addr_count);
	proxy->tunnel_addr_count = copy_addrs(proxy->tunnel_addr,
		conf->tunnel_public_addr, conf->tunnel_public_addr_count);
	if (config)
		set_strategy(proxy, config->strategy);
	COPY(proxy->group, conf->group);
	proxy->generation = conf->generation;
	COPY(proxy->region, conf->region);
	COPY(proxy->zone, conf->zone);
}

static void add_cached(struct discovery *discovery, struct cache *cache)
{
	Peerway__Record__ProxyRecord **records =
		xcalloc(DISCOVERY_PROXIES_MAX, sizeof(*records));
	/* one place is kept for this proxy itself */
	int count = cache_proxies(cache, records, DISCOVERY_PROXIES_MAX - 1);

	for (int i = 0; i < count; i++) {
		add_record(discovery, records[i]);
		peerway__record__proxy_record__free_unpacked(records[i], NULL);
	}
	free(records);
}

static void apply_config(struct discover *discover, struct discovery *discovery,
	const Peerway__Record__ClusterConfig *config)
{
	const struct conf_auth *defaults = &discover->conf->auth;

	discover->keep_alive_interval_ms = defaults->keep_alive_interval;
	discover->keep_alive_count_max = defaults->keep_alive_count_max;
	if (config && config->keep_alive_interval_ms)
		discover->keep_alive_interval_ms =
			config->keep_alive_interval_ms;
	if (config && config->keep_alive_count_max)
		discover->keep_alive_count_max = config->keep_alive_count_max;
	discovery->keep_alive_interval_ms = discover->keep_alive_interval_ms;
	discovery->keep_alive_count_max = discover->keep_alive_count_max;
}

static void add_cas(struct discovery *discovery,
	const Peerway__Record__ClusterConfig *config)
{
	if (!config || !config->host_ca[0])
		return;
	discovery->host_ca =
		xasprintf("%s%s", config->host_ca, config->host_cross);
	COPY(discovery->host_ca_id, config->host_ca_id);
	discovery->renew_spread_ms = config->renew_spread_ms;
}

static unsigned count_others(
	const struct discovery *discovery, const char *proxy_id)
{
	unsigned count = 0;

	for (size_t i = 0; i < discovery->proxy_count; i++)
		count += !discovery->proxies[i].draining &&
			 strcmp(discovery->proxies[i].id, proxy_id) != 0;
	return count;
}

/* Takes text; true when it differs from *slot. */
static bool replace(char **slot, char *text)
{
	bool differs = !*slot || strcmp(*slot, text) != 0;

	free(*slot);
	*slot = text;
	return differs;
}

/* Read before all else of the cache: the list may be newer than it says, never
 * older. */
static void add_revision(struct discovery *discovery, struct cache *cache)
{
	struct cache_meta meta;

	if (cache_meta(cache, &meta) != 1)
		return;
	memcpy(discovery->store_id, meta.store_id, sizeof(meta.store_id));
	discovery->revision = meta.revision;
}

bool discover_refresh(struct discover *discover, struct cache *cache)
{
	struct discovery *discovery = xcalloc(1, sizeof(*discovery));
	Peerway__Record__ClusterConfig *config = NULL;
	bool differs;

	discovery->proxies =
		xcalloc(DISCOVERY_PROXIES_MAX, sizeof(*discovery->proxies));
	COPY(discovery->cluster_name, discover->conf->cluster_name);
	COPY(discovery->self_id, discover->proxy_id);
	if (cache) {
		add_revision(discovery, cache);
		if (cache_config(cache, &config) != 1)
			config = NULL;
		add_cached(discovery, cache);
	}
	apply_config(discover, discovery, config);
	discover->others = count_others(discovery, discover->proxy_id);
	add_cas(discovery, config);
	if (!has_self(discovery, discover->proxy_id))
		add_self(discover, discovery, config);
	if (config)
		peerway__record__cluster_config__free_unpacked(config, NULL);

	differs = replace(&discover->find, discovery_to_json(discovery, true));
	if (replace(&discover->push, discovery_to_json(discovery, false)))
		differs = true;
	discovery_free(discovery);
	return differs;
}

const char *discover_find(const struct discover *discover)
{
	return discover->find;
}

unsigned discover_others(const struct discover *discover)
{
	return discover->others;
}

const char *discover_push(const struct discover *discover)
{
	return discover->push;
}

void discover_keepalive(
	const struct discover *discover, struct tunnel_settings *settings)
{
	settings->ping_interval_ms = discover->keep_alive_interval_ms;
	settings->ping_count_max = discover->keep_alive_count_max;
}
