/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The local mirror of the backend's records: a SQLite file in WAL mode that
 * routed writes and proxy and peerd read. Readers open it read-write with
 * query_only, since a WAL file cannot be opened read-only by another user
 * after a clean stop; prepared once; every lookup is one index search.
 *
 * schema: meta(key, value); config(record); proxy(id, peer_addr, state,
 *   record); tunnel(agent_id, proxy_id, name, since_ms, record)
 */

#include <stddef.h>
#include <stdint.h>

#include "record.pb-c.h"
#include "shared/target.h"

#define CACHE_SCHEMA 2 /* PRAGMA user_version */

extern const char cache_schema_sql[];

struct cache;

/* The path of directory's cache-<n>.db with the highest n, for a reader that
 * starts while routed is away; gives, NULL when there is none. */
char *cache_newest(const char *directory);
/* NULL and *error_out (gives, to free()). */
struct cache *cache_open(const char *path, char **error_out);
void cache_close(struct cache *cache);

/* Each returns a count, or -EIO with the reason logged at debug, and then gives
 * nothing. Records are given (protobuf-c free_unpacked). */
int cache_config(struct cache *cache, Peerway__Record__ClusterConfig **out);
int cache_proxies(
	struct cache *cache, Peerway__Record__ProxyRecord **out, size_t max);
int cache_proxy(struct cache *cache, const char *proxy_id,
	Peerway__Record__ProxyRecord **out);
int cache_tunnels(struct cache *cache, const char *agent_id,
	Peerway__Record__TunnelRecord **out, size_t max);
/* All tunnels, in order of agent name, agent id, proxy id, until fn returns
 * nonzero. fn borrows the record and asks nothing of the cache. */
int cache_tunnels_all(struct cache *cache,
	int (*fn)(void *arg, const Peerway__Record__TunnelRecord *record),
	void *arg);
/* The proxies that hold a tunnel of the agent: their ids. */
struct cache_holder {
	char proxy_id[37];
	char peer_addr[300];
	int state; /* Peerway__Record__ProxyState */
};
int cache_holders(struct cache *cache, const char *agent_id,
	struct cache_holder *out, size_t max);
/* Services of the agents that bear the target's name or uuid, one entry each,
 * however many proxies hold the agent: those of its newest registration. */
int cache_match(struct cache *cache, const struct target *target,
	struct target_match *out, size_t max);

struct cache_meta {
	char store_id[64];
	uint64_t revision;
};
/* 0 before the first snapshot. */
int cache_meta(struct cache *cache, struct cache_meta *out);
