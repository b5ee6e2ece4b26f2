/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draining of one worker. Looks from time to time at what is left; changes
 * nothing but by telling routed, and by cutting at the end.
 *
 * What a newcomer gets wrong: closing a tunnel when its agent has another. The
 * other proxies have to know of that one first, or a dial in between finds
 * nobody; so what counts is what the cache says.
 */
#include <stdlib.h>

#include "proxy/agent_tunnel.h"
#include "proxy/announce.h"
#include "proxy/client.h"
#include "proxy/discover.h"
#include "proxy/drain.h"
#include "proxy/listener.h"
#include "proxy/registry.h"
#include "proxy/tcp_listener.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define LOOK_MS 250
#define LOOK_STOPPING_MS 50
#define SAY_MS 10000
/* The caches of other hosts may be so much behind ours. */
#define SPREAD_MS 500
#define CLOSE_LINGER_MS 500 /* for GOAWAY to arrive */

enum state { SERVING, DRAINING, DRAINED };

struct drain {
	struct worker *worker;
	struct timer *look;
	enum state state;
	bool stopping;
	int64_t until;
	int64_t elsewhere_since; /* all agents are; 0: not all */
	int64_t said;
};

static void on_look(void *arg);

struct drain *drain_new(struct worker *worker)
{
	struct drain *drain = xcalloc(1, sizeof(*drain));

	drain->worker = worker;
	drain->look = timer_new(worker->loop, on_look, drain);
	return drain;
}

void drain_free(struct drain *drain)
{
	timer_free(drain->look);
	free(drain);
}

bool drain_is_on(const struct drain *drain)
{
	return drain->state != SERVING;
}

static void look_again(struct drain *drain)
{
	timer_set(drain->look, drain->stopping ? LOOK_STOPPING_MS : LOOK_MS);
}

static void say(struct drain *drain, const char *what)
{
	const struct worker *worker = drain->worker;
	int64_t now = loop_now(worker->loop);

	drain->said = now;
	log_info("%s: tunnels=%zu sessions=%u clients=%u left_ms=%lld", what,
		registry_count(worker->registry), worker->session_count,
		worker->client_count, (long long)(drain->until - now));
}

/* Whether the agents that have a tunnel here can do without it. */
static bool may_lose_tunnels(struct drain *drain)
{
	struct worker *worker = drain->worker;
	int64_t now = loop_now(worker->loop);

	if (!registry_count(worker->registry) ||
		!discover_others(worker->discover))
		return true;
	if (!agent_tunnel_all_elsewhere(worker))
		drain->elsewhere_since = 0;
	else if (!drain->elsewhere_since)
		drain->elsewhere_since = now;
	return drain->elsewhere_since &&
	       now - drain->elsewhere_since >= SPREAD_MS;
}

static bool is_empty(struct drain *drain)
{
	const struct worker *worker = drain->worker;

	if (worker->session_count || worker->client_count)
		return false;
	if (!drain->stopping)
		return !registry_count(worker->registry);
	return may_lose_tunnels(drain);
}

/* Says goodbye to the agents that are still here. */
static void finish(struct drain *drain, const char *what)
{
	say(drain, what);
	drain->state = DRAINED;
	if (drain->stopping)
		agent_tunnel_close_all(
			drain->worker, CLOSE_LINGER_MS, "shutting down");
}

/* The time is over. */
static void cut(struct drain *drain)
{
	struct worker *worker = drain->worker;

	finish(drain, "drain_timeout is over, what is left is cut");
	if (drain->stopping) {
		loop_stop(worker->loop);
		return;
	}
	agent_tunnel_close_all(worker, CLOSE_LINGER_MS, "draining");
	client_drop_all(worker);
	tcp_listener_drop_sessions(worker);
}

static void on_look(void *arg)
{
	struct drain *drain = arg;
	struct worker *worker = drain->worker;
	int64_t now = loop_now(worker->loop);

	look_again(drain);
	if (drain->state == DRAINED) {
		if (drain->stopping && !worker->tunnel_count)
			loop_stop(worker->loop);
	} else if (is_empty(drain)) {
		finish(drain, "drained");
	} else if (now >= drain->until) {
		cut(drain);
	} else if (now - drain->said >= SAY_MS) {
		say(drain, "draining");
	}
}

void drain_begin(struct drain *drain, uint32_t timeout_ms)
{
	struct worker *worker = drain->worker;

	if (drain->state != SERVING)
		return;
	drain->state = DRAINING;
	drain->until = loop_now(worker->loop) + timeout_ms;
	drain->elsewhere_since = 0;
	say(drain, "draining");
	announce_draining(worker);
	look_again(drain);
}

void drain_cancel(struct drain *drain)
{
	struct worker *worker = drain->worker;

	if (drain->state == SERVING || drain->stopping)
		return;
	say(drain, "serving again");
	drain->state = SERVING;
	timer_clear(drain->look);
	announce_draining(worker);
}

void drain_stop(struct drain *drain, uint32_t timeout_ms)
{
	if (drain->stopping)
		return;
	drain->stopping = true;
	log_info("stopping");
	listener_stop_all(drain->worker);
	drain_begin(drain, timeout_ms);
	if (drain->state == DRAINED)
		drain->state = DRAINING; /* its tunnels get their goodbye */
	look_again(drain);
}

void drain_hurry(struct drain *drain)
{
	drain->until = loop_now(drain->worker->loop);
	if (drain->state != SERVING)
		look_again(drain);
}
