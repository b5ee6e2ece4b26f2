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
#include "proxy/route.h"
#include "proxy/trust.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/log.h"

/* Of 5,000 at once, a quarter of a second would pass for all others. */
#define PUSHES_PER_TURN 8
/* As many holders of an agent are looked at. */
#define HOLDERS_MAX 64
#define MISSES_MAX 8

struct agent_tunnel {
	TAILQ_ENTRY(agent_tunnel) entry;
	TAILQ_ENTRY(agent_tunnel) push; /* while push_due */
	bool push_due;
	TAILQ_ENTRY(agent_tunnel) unpublished_entry;
	bool unpublished; /* in worker->unpublished */
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

/* reason: one of PROXY_REFUSED_. */
static void refuse(
	struct agent_tunnel *at, enum proxy_metric reason, const char *why)
{
	const char *what = reason == PROXY_REFUSED_NONE ? "no registration"
			   : reason == PROXY_REFUSED_BAD
				   ? "bad registration"
				   : "registration of another agent";

	log_limited(LOG_WARN,
		"tunnel refused: %s: %s agent=%s name=%s source=%s", what, why,
		at->agent_id, at->name, at->source);
	metric_add(&at->worker->metrics, reason, 1);
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
		refuse(at, PROXY_REFUSED_NONE, status_text);
		return NULL;
	}
	registration = registration_from_json((const char *)data, len, &error);
	if (!registration) {
		refuse(at, PROXY_REFUSED_BAD, error);
		free(error);
		return NULL;
	}
	if (strcmp(registration->agent_id, at->agent_id) != 0 ||
		strcmp(registration->name, at->name) != 0) {
		refuse(at, PROXY_REFUSED_OTHER, registration->name);
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

static void push_is_off(struct agent_tunnel *at)
{
	if (at->push_due)
		TAILQ_REMOVE(&at->worker->pushes, at, push);
	at->push_due = false;
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

/* ---- whether the route is known ---- */

static int holders_of(
	struct worker *worker, const char *agent_id, struct cache_holder *out)
{
	struct cache *cache = routes_cache(worker->routes);

	return cache ? cache_holders(cache, agent_id, out, HOLDERS_MAX) : 0;
}

static bool is_published(struct agent_tunnel *at)
{
	struct cache_holder holders[HOLDERS_MAX];
	int count = holders_of(at->worker, at->agent_id, holders);

	for (int i = 0; i < count; i++)
		if (strcmp(holders[i].proxy_id, at->worker->proxy_id) == 0)
			return true;
	return false;
}

static void forget_unpublished(struct agent_tunnel *at)
{
	if (at->unpublished)
		TAILQ_REMOVE(&at->worker->unpublished, at, unpublished_entry);
	at->unpublished = false;
}

/* Whatever it answers: it does what it wants. */
static void on_told(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
}

static void tell_published(struct agent_tunnel *at)
{
	const struct tunnel_exchange exchange = {
		.method = "POST",
		.path = "/v1/published",
		.body = "",
		.on_data = on_told,
	};

	forget_unpublished(at);
	if (tunnel_exchange(at->tunnel, &exchange))
		log_debug("agent not told that its route is known: agent=%s",
			at->agent_id);
}

/* Routes are published in the order in which they came, but for those that
 * authd refuses: these must not hold up the others, nor cost much. */
void agent_tunnel_tell_published(struct worker *worker)
{
	struct agent_tunnel *at;

	for (int misses = 0; misses < MISSES_MAX;) {
		at = TAILQ_FIRST(&worker->unpublished);
		if (!at)
			return;
		if (is_published(at)) {
			tell_published(at);
			continue;
		}
		TAILQ_REMOVE(&worker->unpublished, at, unpublished_entry);
		TAILQ_INSERT_TAIL(&worker->unpublished, at, unpublished_entry);
		misses++;
	}
}

static bool is_elsewhere(struct worker *worker, const char *agent_id)
{
	struct cache_holder holders[HOLDERS_MAX];
	int count = holders_of(worker, agent_id, holders);

	for (int i = 0; i < count; i++)
		if (holders[i].state == PEERWAY__RECORD__PROXY_STATE__SERVING &&
			strcmp(holders[i].proxy_id, worker->proxy_id) != 0)
			return true;
	return false;
}

bool agent_tunnel_all_elsewhere(struct worker *worker)
{
	struct registry_entry *entry = NULL;

	while ((entry = registry_next(worker->registry, entry)))
		if (!is_elsewhere(worker, entry->registration->agent_id))
			return false;
	return true;
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
	at->unpublished = true;
	TAILQ_INSERT_TAIL(&worker->unpublished, at, unpublished_entry);
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
		refuse(at, PROXY_REFUSED_NONE, "cannot be asked for");
}

/* Nobody is to be sent here any more. */
static void withdraw(struct agent_tunnel *at, const char *reason)
{
	struct worker *worker = at->worker;

	if (!at->registered)
		return;
	forget_unpublished(at);
	announce_down(worker, at->registered, reason);
	registry_remove(worker->registry, at->registered);
	at->registered = NULL;
	metric_set(&worker->metrics, PROXY_TUNNELS,
		(int64_t)registry_count(worker->registry));
}

/* What streams there are go on; on_end comes when they have ended. */
static void on_ending(struct tunnel *tunnel, void *arg)
{
	struct agent_tunnel *at = arg;

	if (at->registered)
		log_info("tunnel ends, by its agent: streams=%u agent=%s "
			 "name=%s source=%s",
			tunnel_stream_count(tunnel), at->agent_id, at->name,
			at->source);
	withdraw(at, "ended by the agent");
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

	withdraw(at, reason);
	log_info("tunnel down: %s agent=%s name=%s source=%s ms=%lld", reason,
		at->agent_id, at->name, at->source,
		(long long)(loop_now(worker->loop) - at->started));
	push_is_off(at);
	timer_free(at->deadline);
	TAILQ_REMOVE(&worker->tunnels, at, entry);
	worker->tunnel_count--;
	loop_free_later(worker->loop, free_agent_tunnel, at);
	listener_resume_all(worker);
}

static const struct tunnel_ops tunnel_ops = {
	.on_ready = on_ready,
	.on_ending = on_ending,
	.on_end = on_end,
};

static void on_deadline(void *arg)
{
	refuse(arg, PROXY_REFUSED_NONE, "timed out");
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
		log_limited(
			LOG_WARN, "tunnel refused: %s source=%s", why, source);
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

static void on_push_turn(struct loop_task *task)
{
	struct worker *worker =
		(struct worker *)((char *)task -
				  offsetof(struct worker, push_turn));
	struct agent_tunnel *at;

	for (int n = 0; n < PUSHES_PER_TURN; n++) {
		at = TAILQ_FIRST(&worker->pushes);
		if (!at)
			return;
		push_is_off(at);
		if (tunnel_is_ready(at->tunnel))
			push(at);
	}
	loop_defer_late(worker->loop, task);
}

void agent_tunnel_move(
	struct worker *worker, uint64_t tunnel_id, const char *to)
{
	struct registry_entry *entry =
		registry_by_tunnel(worker->registry, tunnel_id);
	char *body = xasprintf("{\"to\": \"%s\"}", to);
	struct tunnel_exchange exchange = {
		.method = "POST",
		.path = "/v1/move",
		.body = body,
		.len = strlen(body),
		.on_data = on_told,
	};

	if (entry && tunnel_exchange(entry->tunnel, &exchange))
		log_debug("agent not asked to move: agent=%s",
			entry->registration->agent_id);
	free(body);
}

void agent_tunnel_push_all(struct worker *worker)
{
	struct agent_tunnel *at;

	TAILQ_FOREACH (at, &worker->tunnels, entry) {
		if (!at->registered || at->push_due)
			continue;
		at->push_due = true;
		TAILQ_INSERT_TAIL(&worker->pushes, at, push);
	}
	worker->push_turn.run = on_push_turn;
	loop_defer_late(worker->loop, &worker->push_turn);
}

void agent_tunnel_close_all(
	struct worker *worker, uint32_t linger_ms, const char *reason)
{
	struct agent_tunnel *at;

	TAILQ_FOREACH (at, &worker->tunnels, entry) {
		withdraw(at, reason);
		tunnel_close(at->tunnel, linger_ms, reason);
	}
}
