/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a peerd process owns. Made in main.c, passed down; parts that come
 * later (identity, cache, strategy) are NULL or false until routed has told.
 */

#include <grpc/grpc.h>
#include <stdbool.h>
#include <stdint.h>

#include "peerd/rpc_meters.h"
#include "peerd/stream.h"
#include "shared/cache.h"
#include "shared/conf.h"
#include "shared/loop.h"
#include "shared/metrics.h"
#include "shared/rpc.h"

#define PEERD_METHOD_DIAL "/proto.ProxyService/DialNode"
#define PEERD_METHOD_PING "/proto.ProxyService/Ping"
#define PEERD_METHOD_ASK "/peerway.Mesh/Ask"

/* Call metadata, ours only: whoever does not know it skips it. */
#define PEERD_KEY_CONNECTION "peerway-connection-id"
#define PEERD_KEY_USER "peerway-user"
/* Trailer: which kind of refusal a status 14 stands for. */
#define PEERD_KEY_REASON "peerway-reason"

struct peerd {
	struct loop *loop;
	const struct conf *conf;
	char id[CONF_UUID_SIZE]; /* this host's */
	int64_t started;	 /* loop_now() */

	struct rpc_cq *cq;
	grpc_resource_quota *quota; /* shared by the server and all channels */
	struct channel_yard *yard;
	struct rpc_identity *identity;
	int64_t identity_not_after; /* Unix seconds */

	struct stream_hub hub;
	unsigned ext; /* enum ext: what we announce */
	struct metrics metrics;
	struct rpc_meters rpc;

	struct cache *cache;
	char *cache_path;
	bool cache_decides; /* the cache is no longer of a former life */
	bool peering; /* strategy in force: of the first cache that decides */

	struct server *server;
	struct peers *peers;
	struct inquiries *inquiries;
	struct switchboard *switchboard;
	struct worker_links *workers;
	struct routed_link *routed;
	struct lookups *lookups;
	struct lifecycle *lifecycle;
};
