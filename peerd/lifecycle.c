/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start, drain and stop: see lifecycle.h. Turns what routed tells into a
 * listening server and channels, and signals into an orderly end. Owns the
 * server's life.
 *
 * A newcomer's trap: on SIGTERM peerd goes on as if nothing had happened until
 * the workers have gone, because all daemons of a host may be signalled at
 * once and the workers still need it.
 */
#include "peerd/lifecycle.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "peerd/listener.h"
#include "peerd/meters.h"
#include "peerd/peers.h"
#include "peerd/routed_link.h"
#include "peerd/switchboard.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"
#include "shared/daemon.h"
#include "shared/log.h"

#define LISTEN_RETRY_MS 5000
#define LISTEN_LOOK_MS 1000
/* An old server's port is free again after this. */
#define RELISTEN_MS 200
#define DRAIN_LOOK_MS 100
/* Workers of a host that stops drain by then; of others, peerd alone is to be
 * started anew, and waiting for them would be in vain. */
#define ALONE_MS 5000
/* Cut calls come back at once; this is for a bug, not for a peer. */
#define STOP_MS 10000
/* Pages that a burst of streams left are given back when it is over. */
#define TRIM_MS 10000

enum phase { STARTING, SERVING, DRAINING, STOPPING, STOPPED };

/* A server that was replaced; its calls go on until they end. */
struct retired {
	TAILQ_ENTRY(retired) entry;
	struct lifecycle *lifecycle;
	struct server *server;
};

struct lifecycle {
	struct peerd *peerd;
	struct listener listener;
	TAILQ_HEAD(, retired) retired;
	struct tls_identity *identity; /* in use; NULL: none yet */
	enum phase phase;
	bool strategy_known;
	bool listening;
	bool listen_error_logged;
	bool server_stopped;
	int64_t deadline; /* DRAINING, STOPPING */
	int64_t told;	  /* DRAINING: since when */
	struct timer *retry;
	struct timer *listen_look;
	struct timer *look;
	struct timer *trim;
	size_t streams_at_trim;
};

static size_t stream_count(const struct lifecycle *l)
{
	struct peerd *peerd = l->peerd;

	return (size_t)metric_get(&peerd->metrics, METER_STREAMS_CALLEE) +
	       (size_t)metric_get(&peerd->metrics, METER_STREAMS_CALLER);
}

/* ---- serving ---- */

static void try_listen(struct lifecycle *l)
{
	struct peerd *peerd = l->peerd;
	const char *addr = peerd->conf->proxy.peer_listen_addr;
	char *error = NULL;

	if (l->phase > DRAINING || !l->strategy_known || !peerd->identity)
		return;
	if (l->phase == STARTING)
		l->phase = SERVING;
	if (!peerd->peering || peerd->server)
		return;
	peerd->server = server_new(
		peerd, addr, &serves_ops, peerd->switchboard->serves, &error);
	if (peerd->server) {
		l->listening = true;
		l->listen_error_logged = false;
		listener_init(&l->listener, addr);
		timer_set(l->listen_look, LISTEN_LOOK_MS);
		log_info("listening for peers: addr=%s", addr);
		return;
	}
	if (!l->listen_error_logged)
		log_error("peers cannot be listened for: %s; trying again",
			error);
	l->listen_error_logged = true;
	free(error);
	timer_set(l->retry, LISTEN_RETRY_MS);
}

static void on_retry(void *arg)
{
	try_listen(arg);
}

static void free_server(void *server)
{
	server_free(server);
}

static void on_retired_stopped(void *arg)
{
	struct retired *retired = arg;
	struct lifecycle *l = retired->lifecycle;

	TAILQ_REMOVE(&l->retired, retired, entry);
	loop_free_later(l->peerd->loop, free_server, retired->server);
	loop_free_later(l->peerd->loop, free, retired);
}

/* Streams of the old server go on; peers connect to the new one. */
static void replace_server(struct lifecycle *l)
{
	struct retired *retired = xcalloc(1, sizeof(*retired));
	struct peerd *peerd = l->peerd;

	log_warn("listening anew: connections of peers were not accepted any "
		 "more after descriptors had run out");
	serves_cancel_all(peerd->switchboard->serves);
	retired->lifecycle = l;
	retired->server = peerd->server;
	TAILQ_INSERT_TAIL(&l->retired, retired, entry);
	peerd->server = NULL;
	l->listening = false;
	server_stop(retired->server, on_retired_stopped, retired);
	timer_set(l->retry, RELISTEN_MS);
}

static void on_listen_look(void *arg)
{
	struct lifecycle *l = arg;

	if (!l->peerd->server || l->phase >= STOPPING)
		return;
	if (listener_is_deaf(&l->listener))
		replace_server(l);
	else
		timer_set(l->listen_look, LISTEN_LOOK_MS);
}

static void learn_strategy(struct lifecycle *l)
{
	Peerway__Record__ClusterConfig *config = NULL;

	if (l->strategy_known || !l->peerd->cache_decides ||
		cache_config(l->peerd->cache, &config) < 1)
		return;
	l->strategy_known = true;
	l->peerd->peering =
		config->strategy &&
		config->strategy->type ==
			PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING;
	log_info("strategy in force: %s",
		l->peerd->peering ? "proxy_peering" : "agent_mesh");
	peerway__record__cluster_config__free_unpacked(config, NULL);
}

static void on_cache(void *arg)
{
	struct lifecycle *l = arg;

	learn_strategy(l);
	peers_refresh(l->peerd->peers);
	try_listen(l);
}

static bool is_same(const struct tls_identity *a, const struct tls_identity *b)
{
	return strcmp(a->cert_pem, b->cert_pem) == 0 &&
	       strcmp(a->host_ca_pem, b->host_ca_pem) == 0;
}

static void on_identity(void *arg, struct tls_identity *identity)
{
	struct lifecycle *l = arg;
	struct peerd *peerd = l->peerd;

	/* routed tells it whenever it links. */
	if (l->identity && is_same(l->identity, identity)) {
		tls_identity_unref(identity);
		return;
	}
	peerd->identity_not_after = tls_identity_not_after(identity);
	if (peerd->identity) {
		rpc_identity_replace(peerd->identity, identity);
		log_info("certificate replaced");
		peers_renew(peerd->peers);
	} else {
		peerd->identity = rpc_identity_new(identity);
		peers_refresh(peerd->peers);
	}
	tls_identity_unref(l->identity);
	l->identity = identity;
	try_listen(l);
}

static const struct routed_link_ops routed_ops = {
	.on_cache = on_cache,
	.on_identity = on_identity,
};

/* ---- the end ---- */

static void finish_if_done(struct lifecycle *l)
{
	struct peerd *peerd = l->peerd;
	bool server_gone = (!peerd->server || l->server_stopped) &&
			   TAILQ_EMPTY(&l->retired);

	if (server_gone && stream_count(l) == 0 &&
		dials_joined(peerd->switchboard->dials) == 0) {
		l->phase = STOPPED;
		loop_stop(peerd->loop);
	} else if (loop_now(peerd->loop) >= l->deadline) {
		die("calls did not end after being cut: streams=%zu",
			stream_count(l));
	}
}

static void on_server_stopped(void *arg)
{
	struct lifecycle *l = arg;

	l->server_stopped = true;
}

static void stop(struct lifecycle *l)
{
	struct peerd *peerd = l->peerd;
	struct retired *retired;

	log_info("stopping: streams=%zu workers=%zu", stream_count(l),
		worker_links_count(peerd->workers));
	l->phase = STOPPING;
	l->deadline = loop_now(peerd->loop) + STOP_MS;
	timer_clear(l->retry);
	serves_cancel_all(peerd->switchboard->serves);
	dials_cut_all(peerd->switchboard->dials);
	if (peerd->server) {
		server_stop(peerd->server, on_server_stopped, l);
		server_cut(peerd->server);
	}
	TAILQ_FOREACH (retired, &l->retired, entry)
		server_cut(retired->server);
}

/* Whether there is nothing to wait for. */
static bool is_drained(const struct lifecycle *l)
{
	const struct peerd *peerd = l->peerd;
	int64_t now = loop_now(peerd->loop);

	if (now >= l->deadline)
		return true;
	if (worker_links_count(peerd->workers) == 0)
		return stream_count(l) == 0;
	return now - l->told >= ALONE_MS &&
	       !worker_links_draining(peerd->workers);
}

static void on_look(void *arg)
{
	struct lifecycle *l = arg;

	timer_set(l->look, DRAIN_LOOK_MS);
	if (l->phase == STOPPING)
		finish_if_done(l);
	else if (is_drained(l))
		stop(l);
}

static void on_stop_signal(int number, void *arg)
{
	struct lifecycle *l = arg;
	struct peerd *peerd = l->peerd;

	if (l->phase >= STOPPING)
		return;
	if (l->phase == DRAINING) {
		stop(l);
		return;
	}
	daemon_stopping(peerd->conf->proxy.drain_timeout + STOP_MS);
	log_info("draining: until the last worker and stream have gone "
		 "workers=%zu streams=%zu",
		worker_links_count(peerd->workers), stream_count(l));
	l->phase = DRAINING;
	l->told = loop_now(peerd->loop);
	l->deadline = l->told + peerd->conf->proxy.drain_timeout;
	timer_set(l->look, 0);
}

/* ---- the process ---- */

static void on_trim(void *arg)
{
	struct lifecycle *l = arg;
	size_t streams = stream_count(l);

	if (streams == 0 && l->streams_at_trim > 0)
		malloc_trim(0);
	l->streams_at_trim = streams;
	timer_set(l->trim, TRIM_MS);
}

struct lifecycle *lifecycle_new(struct peerd *peerd)
{
	struct lifecycle *l = xcalloc(1, sizeof(*l));

	l->peerd = peerd;
	TAILQ_INIT(&l->retired);
	l->retry = timer_new(peerd->loop, on_retry, l);
	l->listen_look = timer_new(peerd->loop, on_listen_look, l);
	l->look = timer_new(peerd->loop, on_look, l);
	l->trim = timer_new(peerd->loop, on_trim, l);
	timer_set(l->trim, TRIM_MS);
	loop_on_signal(peerd->loop, SIGTERM, on_stop_signal, l);
	loop_on_signal(peerd->loop, SIGINT, on_stop_signal, l);
	peerd->routed = routed_link_new(peerd, &routed_ops, l);
	return l;
}

void lifecycle_free(struct lifecycle *l)
{
	routed_link_free(l->peerd->routed);
	l->peerd->routed = NULL;
	server_free(l->peerd->server);
	l->peerd->server = NULL;
	tls_identity_unref(l->identity);
	timer_free(l->retry);
	timer_free(l->listen_look);
	timer_free(l->look);
	timer_free(l->trim);
	free(l);
}

const char *lifecycle_listening(const struct lifecycle *l)
{
	return l->listening ? l->peerd->conf->proxy.peer_listen_addr : NULL;
}

bool lifecycle_is_draining(const struct lifecycle *l)
{
	return l->phase >= DRAINING;
}

char *lifecycle_missing(void *arg)
{
	const struct peerd *peerd = arg;
	const struct lifecycle *l = peerd->lifecycle;

	if (l->phase >= DRAINING)
		return xstrdup("draining\n");
	if (l->phase == SERVING && (!peerd->peering || l->listening))
		return NULL;
	return xasprintf("%s%s%s",
		peerd->identity ? "" : "certificate: routed has none yet\n",
		l->strategy_known ? "" : "strategy: no cache of records yet\n",
		l->strategy_known && peerd->peering && !l->listening
			? "peer_listen_addr: not listening\n"
			: "");
}
