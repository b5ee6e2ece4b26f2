/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One agent: an identity, the services it announces, a pool of tunnels. Without
 * globals, so that one process may run many (tests/tools/swarm); these share
 * loop, resolver, hub and metrics.
 *
 *   no certificate --join--> has one --pool--> tunnels
 *                              ^  |
 *                              +--+ renewed at two thirds of its life
 *
 * A join or renewal that fails is tried again, with backoff, for ever. While no
 * proxy can be reached at all, one line says why (outage.h).
 */

#include "agent/pool.h"
#include "shared/registration.h"
#include "shared/tls.h"

struct agent_config {
	struct loop *loop;
	struct resolver *resolver;
	struct tunnel_hub *hub;
	struct tunnel_settings tunnel; /* what hub was made with */
	struct place place;	       /* where it is; NULL: not known */
	uint32_t surplus_timeout_ms;   /* for streams of a surplus tunnel */
	struct metrics *metrics;       /* of series_table */
	const char *cluster;
	const char *const *servers; /* proxy_server */
	size_t server_count;
	uint32_t reconnect_max_ms;	       /* 0: CANDIDATES_MAX_MS */
	const struct https_proxy *https_proxy; /* NULL: none */
	/* Taken, in every case. agent_id: this host's uuid. What the
	 * certificate says (uuid, name) replaces what is here. */
	struct registration *registration;
	const char *const *service_addrs; /* one for each service */

	/* Either an identity that somebody else looks after, */
	struct tls_identity *identity;
	/* or a keystore, filled by join, renewed here. */
	const char *directory;
	const char *token_file;
	const char *ca_pin;
};

struct agent;
/* Copies and references what config points to, but the shared objects, which
 * are borrowed. NULL and *error_out (gives) when the identity cannot be used or
 * there is neither certificate nor token. */
struct agent *agent_new(const struct agent_config *config, char **error_out);
/* Other labels and services (takes registration; addrs as in the config; name
 * and uuid stay). True when anything was announced anew. */
bool agent_announce(struct agent *agent, struct registration *registration,
	const char *const *service_addrs);
/* Of the configuration, what may change; as for agent_new(). */
struct agent_limits {
	uint32_t reconnect_max_ms;
	uint32_t surplus_timeout_ms;
	const char *token_file; /* both copied */
	const char *ca_pin;
};
void agent_set_limits(struct agent *agent, const struct agent_limits *limits);
/* Another certificate of an identity that somebody else looks after; tunnels
 * that stand keep theirs. Borrows identity. 0, or -1 and *error_out (gives):
 * the old one stays in use. */
int agent_replace_identity(
	struct agent *agent, struct tls_identity *identity, char **error_out);
/* Whatever waits for its next attempt (tunnels, joining, renewing) is tried at
 * once, as if nothing had failed; tunnels that stand stay. */
void agent_reconnect(struct agent *agent);
/* No new streams; those there are have linger_ms. fn when all tunnels have
 * ended; then agent_free() is allowed. Again, with less time: fine. */
void agent_stop(struct agent *agent, uint32_t linger_ms, void (*fn)(void *arg),
	void *arg);
void agent_free(struct agent *agent);

/* Tunnels that are ready. */
unsigned agent_tunnels(const struct agent *agent);
/* NULL: ready; else what is missing, for /readyz (gives). */
char *agent_missing(const struct agent *agent);
