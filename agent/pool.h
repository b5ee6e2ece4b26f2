/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How many tunnels there are, and to whom: opens and closes them as the
 * tracker, the candidates and the strategy say, and feeds what happens back to
 * these. The only place where the agent decides to connect.
 */

#include <openssl/ssl.h>

#include "agent/serve.h"
#include "agent/strategy.h"
#include "shared/tunnel.h"

/* So long the first attempt waits for what /webapi/find says of the fleet. */
#define POOL_INTRODUCTION_MS 3000
/* After a tunnel was lost, the next attempt waits for up to so long: all agents
 * of that proxy have lost theirs. */
#define POOL_LOST_MS 1000
/* The same for an agent that has a tunnel and hears of other proxies. */
#define POOL_NEWS_MS 500
struct pool_config {
	struct loop *loop;
	struct resolver *resolver;
	struct tunnel_hub *hub;
	struct serve *serve;
	struct metrics *metrics;
	const char *cluster;
	const char *agent_id;
	const char *registration; /* JSON, until pool_announce() */
	const char *const *servers;
	size_t server_count;
	uint32_t reconnect_max_ms; /* 0: CANDIDATES_MAX_MS */
	struct place place; /* where this agent is; its texts are borrowed */
	uint32_t surplus_timeout_ms; /* what streams of a surplus tunnel have */
	const struct https_proxy *https_proxy; /* NULL: none */
	struct outage *outage;
	struct tunnel_settings tunnel; /* liveness comes from discovery */
	/* What a proxy, verified, said of the fleet. May call pool_set_ctx().*/
	void (*on_discovery)(void *arg, const struct discovery *discovery);
	void *arg;
};

struct outage;
struct pool;
/* Borrows what config points to. Idle until pool_set_ctx(). */
struct pool *pool_new(const struct pool_config *config);
/* Begins, or goes on with a new certificate; tunnels that stand keep theirs.
 * Takes a reference. */
void pool_set_ctx(struct pool *pool, SSL_CTX *ctx);
/* Forgets all waits and failures and tries at once whoever lacks a tunnel, with
 * names looked up anew; tunnels that stand stay. */
void pool_reconnect(struct pool *pool);
/* Another registration, borrowed until the next: tells all proxies. */
void pool_announce(struct pool *pool, const char *registration);
/* Other values for what config has of these names; for waits and tunnels that
 * end from now on. */
void pool_set_limits(struct pool *pool, uint32_t reconnect_max_ms,
	uint32_t surplus_timeout_ms);
/* No more attempts; tunnels have linger_ms. fn is called when all have ended.*/
void pool_stop(struct pool *pool, uint32_t linger_ms, void (*fn)(void *arg),
	void *arg);
/* After pool_stop() has called back, or before pool_set_ctx(). */
void pool_free(struct pool *pool);

/* What is ready to carry streams. */
unsigned pool_ready(const struct pool *pool);
