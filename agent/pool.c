/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool. Everything that may change its mind (a list of proxies, a tunnel
 * that came or went, a timer) queues one review at the end of the turn;
 * review() alone starts and closes things.
 *
 * What one gets wrong: a tunnel that is being closed still has streams, but no
 * longer a claim. A new tunnel to its proxy may be opened meanwhile.
 */
#include "agent/pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "agent/attempts.h"
#include "agent/find.h"
#include "agent/series.h"
#include "agent/uplink.h"
#include "shared/alloc.h"
#include "shared/distrust.h"
#include "shared/log.h"
#include "shared/tls.h"

/* A tunnel and the candidate it came from. */
struct member {
	LIST_ENTRY(member) entry;
	struct pool *pool;
	struct uplink *uplink;
	char key[320];
};

struct pool {
	struct pool_config config;
	struct uplink_config uplink_config;
	SSL_CTX *ctx;
	struct tracker *tracker;
	struct candidates *candidates;
	struct strategy strategy;
	struct attempts *attempts;
	LIST_HEAD(, member) members;

	struct loop_task review;
	struct timer *timer;   /* the next review */
	int64_t surplus_since; /* 0: no tunnel is surplus */

	/* asking for the fleet while there is no tunnel to hear of it */
	struct find *find;
	unsigned find_turn;
	int64_t find_not_before;
	bool introduced; /* the first question was answered, or failed */

	int64_t attempts_from; /* no attempt before */

	bool stopping;
	void (*on_stopped)(void *arg);
	void *stopped_arg;
};

/* At least this between two questions for the fleet. */
#define FIND_MS 30000

static void review_soon(struct pool *pool)
{
	loop_defer(pool->config.loop, &pool->review);
}

unsigned pool_ready(const struct pool *pool)
{
	struct member *member;
	unsigned count = 0;

	LIST_FOREACH (member, &pool->members, entry)
		count += uplink_is_ready(member->uplink);
	return count;
}

/* What was heard of the fleet, on a tunnel or by find. */
static void learn(struct pool *pool, const struct discovery *discovery)
{
	struct tunnel_settings *tunnel = &pool->config.tunnel;

	tracker_mention(pool->tracker, discovery, loop_now(pool->config.loop));
	if (discovery->keep_alive_interval_ms &&
		discovery->keep_alive_count_max &&
		(tunnel->ping_interval_ms !=
				discovery->keep_alive_interval_ms ||
			tunnel->ping_count_max !=
				discovery->keep_alive_count_max)) {
		tunnel->ping_interval_ms = discovery->keep_alive_interval_ms;
		tunnel->ping_count_max = discovery->keep_alive_count_max;
		tunnel_hub_configure(pool->config.hub, tunnel);
	}
	pool->config.on_discovery(pool->config.arg, discovery);
	review_soon(pool);
}

static void on_discovery(
	void *arg, struct uplink *uplink, const struct discovery *discovery)
{
	struct member *member = arg;

	learn(member->pool, discovery);
}

static void on_settled(void *arg, struct uplink *uplink)
{
	struct member *member = arg;

	candidates_settled(member->pool->candidates, member->key);
	candidates_settled(member->pool->candidates, uplink_proxy_id(uplink));
}

static void stop_if_empty(struct pool *pool)
{
	if (pool->stopping && LIST_EMPTY(&pool->members) && pool->on_stopped) {
		void (*fn)(void *arg) = pool->on_stopped;

		pool->on_stopped = NULL;
		fn(pool->stopped_arg);
	}
}

/* A tunnel nobody closed has ended: neither the way it was opened by nor the
 * proxy itself is the first choice for the next. */
static void lose(struct member *member)
{
	struct pool *pool = member->pool;
	const char *id = uplink_proxy_id(member->uplink);
	int64_t now = loop_now(pool->config.loop);

	tracker_release(pool->tracker, id);
	pool->attempts_from = now + attempts_random() % POOL_LOST_MS;
	candidates_failed(
		pool->candidates, member->key, now, attempts_random());
	if (strcmp(id, member->key) != 0)
		candidates_failed(pool->candidates, id, now, attempts_random());
}

static void on_uplink_end(void *arg, struct uplink *uplink, const char *reason)
{
	struct member *member = arg;
	struct pool *pool = member->pool;
	bool closing = uplink_is_closing(uplink);

	LIST_REMOVE(member, entry);
	metric_add(pool->config.metrics, SERIES_TUNNELS, -1);
	metric_add(pool->config.metrics, SERIES_TUNNELS_ENDED, 1);
	log_at(closing ? LOG_INFO : LOG_WARN, "tunnel ended: %s%s proxy=%s",
		reason, distrust_host_advice(distrust_of_text(reason)),
		uplink_proxy_id(uplink));
	if (!closing)
		lose(member);
	loop_free_later(pool->config.loop, free, member);
	stop_if_empty(pool);
	review_soon(pool);
}

static const struct uplink_ops uplink_ops = {
	.on_settled = on_settled,
	.on_discovery = on_discovery,
	.on_end = on_uplink_end,
};

/* A proxy has answered: the pool has one more. */
static void on_connected(
	void *arg, const char *key, const struct connect_result *result)
{
	struct pool *pool = arg;
	struct member *member = xcalloc(1, sizeof(*member));

	member->pool = pool;
	snprintf(member->key, sizeof(member->key), "%s", key);
	LIST_INSERT_HEAD(&pool->members, member, entry);
	metric_add(pool->config.metrics, SERIES_TUNNELS, 1);
	metric_add(pool->config.metrics, SERIES_TUNNELS_OPENED, 1);
	member->uplink = uplink_new(&pool->uplink_config, result->fd,
		result->ssl, &result->proxy, &uplink_ops, member);
}

static void on_change(void *arg)
{
	review_soon(arg);
}

/* Closes what is claimed; the claim goes at once. */
static void close_member(
	struct member *member, uint32_t linger_ms, const char *why)
{
	if (uplink_is_closing(member->uplink))
		return;
	tracker_release(member->pool->tracker, uplink_proxy_id(member->uplink));
	uplink_close(member->uplink, linger_ms, why);
}

/* Marks what is too much; gives the members in the order of the marks. */
static size_t mark_surplus(struct pool *pool, struct strategy_tunnel *marks,
	struct member **members, size_t max, size_t *count_out)
{
	struct member *member;
	size_t count = 0;

	LIST_FOREACH (member, &pool->members, entry) {
		const char *id = uplink_proxy_id(member->uplink);

		if (!uplink_is_ready(member->uplink) || count == max)
			continue;
		members[count] = member;
		marks[count].proxy_id = id;
		marks[count].desired = tracker_is_desired(pool->tracker, id);
		count++;
	}
	*count_out = count;
	return strategy_mark_surplus(
		&pool->strategy, pool->config.agent_id, marks, count);
}

/* Closes tunnels that have been too many for a while; returns when to look
 * again. */
static int64_t close_surplus(struct pool *pool, int64_t now)
{
	size_t max = tracker_claimed(pool->tracker), count;
	struct strategy_tunnel *marks = xcalloc(max + 1, sizeof(*marks));
	struct member **members = xcalloc(max + 1, sizeof(*members));
	size_t surplus = mark_surplus(pool, marks, members, max, &count);
	int64_t due = INT64_MAX;

	if (!surplus)
		pool->surplus_since = 0;
	else if (!pool->surplus_since)
		pool->surplus_since = now;
	if (surplus)
		due = pool->surplus_since + POOL_SURPLUS_MS;
	if (surplus && now >= due) {
		for (size_t i = 0; i < count; i++)
			if (marks[i].surplus)
				close_member(members[i], POOL_LINGER_MS,
					"surplus under the strategy");
		pool->surplus_since = 0;
		due = INT64_MAX;
	}
	free(members);
	free(marks);
	return due;
}

static void on_found(
	void *arg, const struct discovery *discovery, const char *why)
{
	struct pool *pool = arg;

	pool->find = NULL;
	if (!pool->introduced)
		pool->attempts_from = loop_now(pool->config.loop);
	pool->introduced = true;
	if (discovery)
		learn(pool, discovery);
	else
		log_debug("no answer to /webapi/find: %s", why);
	review_soon(pool);
}

/* While there is no tunnel, a proxy may be asked what there is. */
static void ask_for_fleet(struct pool *pool, int64_t now)
{
	const char *const *servers = pool->config.servers;
	const struct connect_request to = {
		.addrs = &servers[pool->find_turn % pool->config.server_count],
		.addr_count = 1,
		.default_port = 3080,
		.ctx = pool->ctx,
		.cluster = pool->config.cluster,
		.random = attempts_random(),
	};

	if (pool->find || tracker_claimed(pool->tracker) ||
		now < pool->find_not_before)
		return;
	pool->find_turn++;
	pool->find_not_before = now + FIND_MS;
	if (!pool->introduced)
		pool->attempts_from = now + POOL_INTRODUCTION_MS;
	pool->find = find_new(
		pool->config.loop, pool->config.resolver, &to, on_found, pool);
}

static void follow_strategy(struct pool *pool)
{
	size_t count;
	const struct tracker_proxy *proxies =
		tracker_proxies(pool->tracker, &count);
	struct strategy strategy = strategy_in_force(proxies, count);

	metric_set(pool->config.metrics, SERIES_PROXIES, count);
	if (!count || (strategy.type == pool->strategy.type &&
			      strategy.count == pool->strategy.count))
		return;
	pool->strategy = strategy;
	pool->surplus_since = 0;
	tracker_set_count(pool->tracker, strategy.count);
	if (strategy.type == DISCOVERY_PROXY_PEERING)
		log_info("strategy: proxy_peering agent_connection_count=%u "
			 "proxies=%zu",
			strategy.count, count);
	else
		log_info("strategy: agent_mesh proxies=%zu", count);
}

static void on_review(struct loop_task *task)
{
	struct pool *pool =
		(struct pool *)((char *)task - offsetof(struct pool, review));
	int64_t now = loop_now(pool->config.loop);
	int64_t next, due;

	if (pool->stopping || !pool->ctx)
		return;
	next = tracker_expire(pool->tracker, now);
	follow_strategy(pool);
	due = close_surplus(pool, now);
	if (due < next)
		next = due;
	ask_for_fleet(pool, now);
	due = pool->attempts_from;
	if (due <= now)
		due = attempts_review(pool->attempts, pool->ctx, now);
	if (due < next)
		next = due;
	/* An unmentioned claim comes of age without another event. */
	if (next > now + TRACKER_YOUNG_MS)
		next = now + TRACKER_YOUNG_MS;
	timer_set(pool->timer, next - now);
}

static void on_timer(void *arg)
{
	review_soon(arg);
}

struct pool *pool_new(const struct pool_config *config)
{
	struct pool *pool = xcalloc(1, sizeof(*pool));

	assert(config->server_count > 0);
	pool->config = *config;
	pool->uplink_config = (struct uplink_config){
		.loop = config->loop,
		.hub = config->hub,
		.serve = config->serve,
		.cluster = config->cluster,
		.registration = config->registration,
		.metrics = config->metrics,
	};
	pool->tracker = tracker_new();
	pool->candidates =
		candidates_new(config->servers, config->server_count);
	pool->attempts = attempts_new(&(struct attempts_config){
		.loop = config->loop,
		.resolver = config->resolver,
		.tracker = pool->tracker,
		.candidates = pool->candidates,
		.metrics = config->metrics,
		.cluster = config->cluster,
		.on_connected = on_connected,
		.on_change = on_change,
		.arg = pool,
	});
	pool->strategy.type = DISCOVERY_AGENT_MESH;
	pool->find_turn = attempts_random();
	pool->review.run = on_review;
	pool->timer = timer_new(config->loop, on_timer, pool);
	LIST_INIT(&pool->members);
	return pool;
}

void pool_set_ctx(struct pool *pool, SSL_CTX *ctx)
{
	SSL_CTX_up_ref(ctx);
	SSL_CTX_free(pool->ctx);
	pool->ctx = ctx;
	review_soon(pool);
}

void pool_announce(struct pool *pool, const char *registration)
{
	struct member *member;

	pool->uplink_config.registration = registration;
	pool->uplink_config.registration_number++;
	LIST_FOREACH (member, &pool->members, entry)
		uplink_announce(member->uplink);
}

static void stop_asking(struct pool *pool)
{
	attempts_drop_all(pool->attempts);
	find_free(pool->find);
	pool->find = NULL;
}

void pool_stop(
	struct pool *pool, uint32_t linger_ms, void (*fn)(void *arg), void *arg)
{
	struct member *member;

	pool->stopping = true;
	pool->on_stopped = fn;
	pool->stopped_arg = arg;
	stop_asking(pool);
	LIST_FOREACH (member, &pool->members, entry) {
		/* also those that linger already: now it is shorter */
		if (!uplink_is_closing(member->uplink))
			tracker_release(
				pool->tracker, uplink_proxy_id(member->uplink));
		uplink_close(member->uplink, linger_ms, "the agent stops");
	}
	stop_if_empty(pool);
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	assert(LIST_EMPTY(&pool->members));
	stop_asking(pool);
	attempts_free(pool->attempts);
	loop_cancel(pool->config.loop, &pool->review);
	timer_free(pool->timer);
	candidates_free(pool->candidates);
	tracker_free(pool->tracker);
	SSL_CTX_free(pool->ctx);
	loop_free_later(pool->config.loop, free, pool);
}
