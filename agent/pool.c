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
#include "agent/tracker.h"
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
	struct timer *timer; /* the next review */
	struct strategy_waits waits;

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

/* No attempt before some moment within ms: others have cause for one, too. An
 * agent without a tunnel is not held up by news. */
static void spread_out(struct pool *pool, uint32_t ms)
{
	int64_t from = loop_now(pool->config.loop) + attempts_random() % ms;

	if (tracker_claimed(pool->tracker) && pool->attempts_from < from)
		pool->attempts_from = from;
}

/* What was heard of the fleet, on a tunnel or by find. */
static void learn(struct pool *pool, const struct discovery *discovery)
{
	struct tunnel_settings *tunnel = &pool->config.tunnel;
	struct fleet *fleet = fleet_new(discovery);
	bool news = tracker_mention(
		pool->tracker, fleet, loop_now(pool->config.loop));

	fleet_unref(fleet);
	if (!news) { /* and so is all else that it says */
		log_debug("an older list of proxies: revision=%llu",
			(unsigned long long)discovery->revision);
		return;
	}
	spread_out(pool, POOL_NEWS_MS);
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

static void on_published(void *arg, struct uplink *uplink)
{
	struct member *member = arg;

	log_debug("tunnel published: proxy=%s", uplink_proxy_id(uplink));
	review_soon(member->pool);
}

static bool on_move(void *arg, struct uplink *uplink, const char *to)
{
	struct member *member = arg;
	struct pool *pool = member->pool;

	if (!tracker_leave(pool->tracker, uplink_proxy_id(uplink), to,
		    loop_now(pool->config.loop)))
		return false;
	log_info("asked to move: from=%s to=%s", uplink_proxy_id(uplink), to);
	metric_add(pool->config.metrics, SERIES_MOVES, 1);
	review_soon(pool);
	return true;
}

static void on_settled(void *arg, struct uplink *uplink)
{
	struct member *member = arg;
	struct pool *pool = member->pool;

	candidates_settled(pool->candidates, member->key);
	candidates_settled(pool->candidates,
		candidates_key_of(pool->tracker, uplink_proxy_id(uplink)));
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
	const char *key = candidates_key_of(pool->tracker, id);
	int64_t now = loop_now(pool->config.loop);

	tracker_release(pool->tracker, id);
	pool->attempts_from = now + attempts_random() % POOL_LOST_MS;
	candidates_failed(
		pool->candidates, member->key, now, attempts_random());
	if (strcmp(key, member->key) != 0)
		candidates_failed(
			pool->candidates, key, now, attempts_random());
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
	if (!pool_ready(pool))
		outage_begin(pool->config.outage, loop_now(pool->config.loop));
	loop_free_later(pool->config.loop, free, member);
	stop_if_empty(pool);
	review_soon(pool);
}

static const struct uplink_ops uplink_ops = {
	.on_settled = on_settled,
	.on_discovery = on_discovery,
	.on_published = on_published,
	.on_move = on_move,
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

/* The ready tunnels as they are to be judged, and whose they are. */
struct judgement {
	struct strategy_tunnel *tunnels;
	struct member **members;
	size_t count;
};

static void judge_one(
	struct judgement *judgement, struct member *member, int64_t now)
{
	struct tracker *tracker = member->pool->tracker;
	struct strategy_tunnel *tunnel = &judgement->tunnels[judgement->count];
	const struct fleet_proxy *proxy;

	tunnel->proxy_id = uplink_proxy_id(member->uplink);
	proxy = fleet_find(tracker_fleet(tracker), tunnel->proxy_id);
	tunnel->place.region = proxy ? proxy->region : "";
	tunnel->place.zone = proxy ? proxy->zone : "";
	tunnel->desired = !tracker_is_needless(tracker, tunnel->proxy_id, now);
	tunnel->published = uplink_is_published(member->uplink);
	judgement->members[judgement->count++] = member;
}

static void judge(struct pool *pool, struct judgement *out, int64_t now)
{
	size_t max = tracker_claimed(pool->tracker);
	struct member *member;

	out->count = 0;
	out->tunnels = xcalloc(max + 1, sizeof(*out->tunnels));
	out->members = xcalloc(max + 1, sizeof(struct member *));
	LIST_FOREACH (member, &pool->members, entry)
		if (uplink_is_ready(member->uplink) && out->count < max)
			judge_one(out, member, now);
	strategy_judge(pool->strategy.count, tracker_target(pool->tracker),
		&pool->config.place, pool->config.agent_id, out->tunnels,
		out->count);
}

/* Streams of a tunnel that is left run as long as its proxy does. */
static void carry_out(struct member *member, enum strategy_verdict verdict)
{
	if (verdict == STRATEGY_SURPLUS)
		close_member(member, member->pool->config.surplus_timeout_ms,
			"surplus under the strategy");
	else
		close_member(member, UINT32_MAX, "others take its place");
}

/* Closes tunnels that have been needless for a while; returns when to look
 * again. */
static int64_t close_needless(struct pool *pool, int64_t now)
{
	struct judgement judgement;
	bool ripe[STRATEGY_SURPLUS + 1];
	int64_t due;

	judge(pool, &judgement, now);
	due = strategy_ripen(
		&pool->waits, judgement.tunnels, judgement.count, now, ripe);
	for (size_t i = 0; i < judgement.count; i++)
		if (ripe[judgement.tunnels[i].verdict])
			carry_out(judgement.members[i],
				judgement.tunnels[i].verdict);
	free(judgement.members);
	free(judgement.tunnels);
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
		.https_proxy = pool->config.https_proxy,
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
	const struct fleet *fleet = tracker_fleet(pool->tracker);
	size_t count = fleet ? fleet->count : 0;
	struct strategy strategy;

	metric_set(pool->config.metrics, SERIES_PROXIES, count);
	if (!count)
		return;
	strategy = fleet->strategy;
	if (strategy.type == pool->strategy.type &&
		strategy.count == pool->strategy.count)
		return;
	pool->strategy = strategy;
	pool->waits.since[STRATEGY_SURPLUS] = 0;
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
	due = close_needless(pool, now);
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
		.outage = config->outage,
	};
	pool->tracker = tracker_new();
	pool->candidates = candidates_new(config->servers, config->server_count,
		&config->place, config->reconnect_max_ms);
	pool->attempts = attempts_new(&(struct attempts_config){
		.loop = config->loop,
		.resolver = config->resolver,
		.tracker = pool->tracker,
		.candidates = pool->candidates,
		.metrics = config->metrics,
		.cluster = config->cluster,
		.https_proxy = config->https_proxy,
		.outage = config->outage,
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

void pool_reconnect(struct pool *pool)
{
	stop_asking(pool);
	resolver_forget(pool->config.resolver);
	candidates_reset(pool->candidates);
	pool->find_not_before = 0;
	pool->attempts_from = 0;
	review_soon(pool);
}

void pool_set_limits(struct pool *pool, uint32_t reconnect_max_ms,
	uint32_t surplus_timeout_ms)
{
	pool->config.reconnect_max_ms = reconnect_max_ms;
	pool->config.surplus_timeout_ms = surplus_timeout_ms;
	candidates_set_max(pool->candidates, reconnect_max_ms);
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
