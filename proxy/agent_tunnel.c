/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepted tunnels. Talks to the agent by small exchanges on its tunnel, to
 * peerd and routed through announce.c. Owns the entry in the registry.
 *
 * What a newcomer gets wrong: what an agent says of itself is only believed as
 * far as its certificate says the same. Name and uuid are checked again on
 * every change.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proxy/agent_tunnel.h"
#include "proxy/announce.h"
#include "proxy/discover.h"
#include "proxy/listener.h"
#include "proxy/registry.h"
#include "proxy/trust.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

struct agent_tunnel {
	TAILQ_ENTRY(agent_tunnel) entry;
	struct worker *worker;
	struct tunnel *tunnel;
	struct registry_entry *registered; /* NULL: not yet */
	struct timer *deadline;		   /* for the registration */
	char agent_id[37];		   /* both as certified */
	char name[IDENTITY_NAME_MAX];
	char *source;
	int64_t started;
};

static uint64_t unix_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void refuse(struct agent_tunnel *at, const char *what, const char *why)
{
	log_warn("tunnel refused: %s: %s agent=%s name=%s source=%s", what, why,
		at->agent_id, at->name, at->source);
	metric_add(&at->worker->metrics, PROXY_TUNNEL_REFUSED, 1);
	tunnel_close(at->tunnel, 0, what);
}

/* What the agent says of itself, if its certificate says the same; gives. */
static struct registration *read_registration(
	struct agent_tunnel *at, int status, const uint8_t *data, size_t len)
{
	struct registration *registration;
	char status_text[32];
	char *error = NULL;

	if (status != 200) {
		snprintf(status_text, sizeof(status_text), "status %d", status);
		refuse(at, "no registration", status_text);
		return NULL;
	}
	registration = registration_from_json((const char *)data, len, &error);
	if (!registration) {
		refuse(at, "bad registration", error);
		free(error);
		return NULL;
	}
	if (strcmp(registration->agent_id, at->agent_id) != 0 ||
		strcmp(registration->name, at->name) != 0) {
		refuse(at, "registration of another agent", registration->name);
		registration_free(registration);
		return NULL;
	}
	return registration;
}

static void on_change(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct agent_tunnel *at = arg;
	struct registration *registration;

	if (status != 200 || !len || !at->registered)
		return;
	registration = read_registration(at, status, data, len);
	if (!registration)
		return;
	registry_update(at->registered, registration);
	announce_up(at->worker, at->registered);
	log_info("agent changed: services=%zu agent=%s name=%s",
		registration->service_count, at->agent_id, at->name);
}

static void on_pushed(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct agent_tunnel *at = arg;

	if (end && status && status != 200)
		log_warn("agent refused the list of proxies: status=%d "
			 "agent=%s name=%s",
			status, at->agent_id, at->name);
}

static void push(struct agent_tunnel *at)
{
	const char *text = discover_push(at->worker->discover);
	struct tunnel_exchange exchange = {
		.method = "POST",
		.path = "/v1/proxies",
		.body = text,
		.len = strlen(text),
		.on_data = on_pushed,
		.arg = at,
	};

	if (tunnel_exchange(at->tunnel, &exchange))
		log_debug("list of proxies not sent: agent=%s", at->agent_id);
}

static void listen_to_changes(struct agent_tunnel *at)
{
	struct tunnel_exchange exchange = {
		.method = "GET",
		.path = "/v1/agent/events",
		.stream_lines = true,
		.on_data = on_change,
		.arg = at,
	};

	if (tunnel_exchange(at->tunnel, &exchange))
		log_debug("agent's changes not asked for: agent=%s",
			at->agent_id);
}

static void on_registration(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct agent_tunnel *at = arg;
	struct worker *worker = at->worker;
	struct registration *registration;

	/* status 0: the tunnel is ending, and says so itself */
	if (!end || !status || at->registered)
		return;
	registration = read_registration(at, status, data, len);
	if (!registration)
		return;
	timer_free(at->deadline);
	at->deadline = NULL;
	at->registered = registry_add(worker->registry, registration,
		at->tunnel, unix_ms(), at->source);
	metric_set(&worker->metrics, PROXY_TUNNELS,
		(int64_t)registry_count(worker->registry));
	log_info("tunnel up: agent=%s name=%s services=%zu source=%s id=%llu",
		at->agent_id, at->name, registration->service_count, at->source,
		(unsigned long long)at->registered->tunnel_id);
	announce_up(worker, at->registered);
	listen_to_changes(at);
	push(at);
}

static void on_ready(struct tunnel *tunnel, void *arg)
{
	struct tunnel_exchange exchange = {
		.method = "GET",
		.path = "/v1/agent",
		.on_data = on_registration,
		.arg = arg,
	};
	struct agent_tunnel *at = arg;

	if (tunnel_exchange(tunnel, &exchange))
		refuse(at, "no registration", "cannot be asked for");
}

static void free_agent_tunnel(void *arg)
{
	struct agent_tunnel *at = arg;

	free(at->source);
	free(at);
}

static void on_end(struct tunnel *tunnel, void *arg, const char *reason)
{
	struct agent_tunnel *at = arg;
	struct worker *worker = at->worker;

	if (at->registered) {
		announce_down(worker, at->registered, reason);
		registry_remove(worker->registry, at->registered);
		metric_set(&worker->metrics, PROXY_TUNNELS,
			(int64_t)registry_count(worker->registry));
	}
	log_info("tunnel down: %s agent=%s name=%s source=%s ms=%lld", reason,
		at->agent_id, at->name, at->source,
		(long long)(loop_now(worker->loop) - at->started));
	at->registered = NULL;
	timer_free(at->deadline);
	TAILQ_REMOVE(&worker->tunnels, at, entry);
	worker->tunnel_count--;
	loop_free_later(worker->loop, free_agent_tunnel, at);
	listener_resume_all(worker);
}

static const struct tunnel_ops tunnel_ops = {
	.on_ready = on_ready,
	.on_end = on_end,
};

static void on_deadline(void *arg)
{
	refuse(arg, "no registration", "timed out");
}

/* Whether the leaf names an agent of this cluster, and which. */
static const char *identify(
	const struct worker *worker, SSL *ssl, struct host_identity *out)
{
	X509 *leaf = trust_leaf(ssl);
	const char *reason;

	if (!leaf)
		return "no certificate";
	if (identity_of_host(leaf, worker->conf->cluster_name, out, &reason))
		return reason;
	if (!(out->roles & IDENTITY_NODE))
		return "not an agent's certificate (role Node)";
	if (!out->agent_name[0])
		return "the certificate names no agent";
	return NULL;
}

void agent_tunnel_start(
	struct worker *worker, struct chan *chan, const char *source)
{
	struct host_identity host;
	struct agent_tunnel *at;
	const char *why = identify(worker, chan_ssl(chan), &host);
	enum proxy_metric outcome = PROXY_HANDSHAKE_NOT_NODE;

	if (!why && worker->tunnel_count >= worker->conf->proxy.max_tunnels) {
		why = "max_tunnels is reached";
		outcome = PROXY_HANDSHAKE_LIMIT;
	}
	if (why) {
		log_warn("tunnel refused: %s source=%s", why, source);
		metric_add(&worker->metrics, outcome, 1);
		chan_free(chan);
		return;
	}
	at = xcalloc(1, sizeof(*at));
	at->worker = worker;
	at->source = xstrdup(source);
	at->started = loop_now(worker->loop);
	memcpy(at->agent_id, host.uuid, sizeof(at->agent_id));
	memcpy(at->name, host.agent_name, sizeof(at->name));
	at->deadline = timer_new(worker->loop, on_deadline, at);
	timer_set(at->deadline, worker->conf->proxy.handshake_timeout);
	TAILQ_INSERT_TAIL(&worker->tunnels, at, entry);
	worker->tunnel_count++;
	at->tunnel =
		tunnel_new(worker->hub, TUNNEL_PROXY, chan, &tunnel_ops, at);
}

void agent_tunnel_close(
	struct worker *worker, uint64_t tunnel_id, const char *reason)
{
	struct registry_entry *entry =
		registry_by_tunnel(worker->registry, tunnel_id);

	if (entry)
		tunnel_close(entry->tunnel, 0, reason);
}

void agent_tunnel_push_all(struct worker *worker)
{
	struct agent_tunnel *at;

	TAILQ_FOREACH (at, &worker->tunnels, entry) {
		if (at->registered && tunnel_is_ready(at->tunnel))
			push(at);
	}
}

void agent_tunnel_close_all(
	struct worker *worker, uint32_t linger_ms, const char *reason)
{
	struct agent_tunnel *at;

	TAILQ_FOREACH (at, &worker->tunnels, entry)
		tunnel_close(at->tunnel, linger_ms, reason);
}
