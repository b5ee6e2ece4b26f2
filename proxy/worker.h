/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One worker: accepts on the sockets that its parent gave it, ends agents'
 * tunnels and clients' TLS, and speaks to peerd and routed. Everything below
 * hangs on this struct; each part is owned by the file it is named after.
 *
 *   SERVING --SIGTERM--> draining (drain.h) --> gone
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proxy/metrics.h"
#include "shared/conf.h"
#include "shared/loop.h"
#include "shared/tunnel.h"

struct agent_tunnel;
struct client;
struct dial;
struct discover;
struct drain;
struct handshakes;
struct ipc_link;
struct listener;
struct registry;
struct routes;
struct served;
struct tcp_session;
struct trust;
struct warmup;

struct worker {
	struct conf *conf; /* the worker's own; IPC_RELOAD changes it */
	struct loop *loop;
	uint32_t number;
	char proxy_id[CONF_UUID_SIZE];
	long fd_limit;
	int64_t fds_short_at; /* loop_now() of the last shortage; 0: over */
	uint64_t ticks;
	unsigned reloads; /* of conf */
	uint64_t last_id; /* of dials, joins: what an answer names */
	struct metrics metrics;

	struct trust *trust;
	struct handshakes *handshakes;
	struct tunnel_hub *hub;
	struct registry *registry;
	struct routes *routes;
	struct discover *discover;

	struct ipc_link *parent;
	struct ipc_link *peerd;
	struct ipc_link *routed;

	TAILQ_HEAD(, listener) listeners;
	TAILQ_HEAD(, agent_tunnel) tunnels;
	TAILQ_HEAD(, agent_tunnel) pushes; /* due, of the list of proxies */
	struct loop_task push_turn;
	TAILQ_HEAD(, agent_tunnel) unpublished; /* registered, not yet told */
	TAILQ_HEAD(, client) clients;
	TAILQ_HEAD(, tcp_session) tcp_sessions;
	LIST_HEAD(, dial) dials;    /* waiting for peerd's answer */
	LIST_HEAD(, served) served; /* waiting for an agent's answer */
	unsigned tunnel_count;	    /* registered or not */
	unsigned client_count;	    /* clients and tcp_sessions */
	unsigned session_count;	    /* joined, also those served for others */

	struct drain *drain;
	struct warmup *warmup;
	struct timer *tick;
	struct lag *lag;
	struct tunnel_hub_stats counted; /* what the metrics have of the hub */
};

/* Runs until told to end; the exit status. Borrows conf. */
int worker_run(struct conf *conf, uint32_t number);

/* Loads the host's certificate from directory (NULL: from the files that the
 * configuration names); keeps the old one, and says so, when that fails. */
void worker_load_identity(struct worker *worker, const char *directory);

/* The cache of routing records has changed, or is another file. */
void worker_use_cache(
	struct worker *worker, const char *path, bool proxies_changed);

/* A session was joined, or ended; both sides of its byte counts. */
void worker_session_begins(struct worker *worker);
void worker_session_ends(
	struct worker *worker, uint64_t sent, uint64_t received);
