/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The edge of rebalance.h: counts from the cache, agents from publish.h, and
 * the word to the worker that holds the tunnel. Owns nothing but its timer.
 *
 * What is easily got wrong: asking is no more than that. The agent decides, and
 * its tunnel here stays until the new one is published; whoever has not left
 * after a while is counted and may be asked again.
 */
#include "routed/mover.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "routed/routed.h"
#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/log.h"

#define PROXIES_MAX 1000
#define HOLDERS_MAX 64
#define LOOK_MS 5000
#define LOOK_ACTIVE_MS 1000
/* Of one look; what cannot be used is passed over. */
#define TRIES_MAX 2000

struct mover {
	struct routed *routed;
	struct timer *look;
	struct rebalance rebalance;
	uint64_t revision; /* last looked at */
	/* of one look */
	size_t count;
	size_t self;
	char (*ids)[37];
	size_t *tunnels;
};

/* ---- who counts ---- */

static struct rebalance_host host_of(const Peerway__Record__ProxyRecord *record)
{
	const Peerway__Record__TunnelStrategy *strategy = record->strategy;

	return (struct rebalance_host){
		.takes = record->state ==
				 PEERWAY__RECORD__PROXY_STATE__SERVING &&
			 strategy &&
			 strategy->type ==
				 PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING,
		.group = record->group,
		.generation = record->generation,
		.region = record->region,
		.zone = record->zone,
		.agent_connection_count =
			strategy ? strategy->agent_connection_count : 0,
	};
}

/* None when we are not known yet, or take nothing ourselves. */
static void keep_comparable(struct mover *mover,
	Peerway__Record__ProxyRecord *const *records, int count)
{
	struct rebalance_host own = {.takes = false};

	mover->count = 0;
	for (int i = 0; i < count; i++)
		if (strcmp(records[i]->id, mover->routed->proxy_id) == 0)
			own = host_of(records[i]);
	for (int i = 0; i < count; i++) {
		struct rebalance_host host = host_of(records[i]);

		if (!rebalance_is_compared(&own, &host))
			continue;
		if (strcmp(records[i]->id, mover->routed->proxy_id) == 0)
			mover->self = mover->count;
		strncpy(mover->ids[mover->count++], records[i]->id, 36);
	}
}

static void list_proxies(struct mover *mover, struct cache *cache)
{
	Peerway__Record__ProxyRecord **records =
		xcalloc(PROXIES_MAX, sizeof(*records));
	int count = cache_proxies(cache, records, PROXIES_MAX);

	memset(mover->ids, 0, PROXIES_MAX * sizeof(mover->ids[0]));
	memset(mover->tunnels, 0, PROXIES_MAX * sizeof(mover->tunnels[0]));
	keep_comparable(mover, records, count);
	for (int i = 0; i < count; i++)
		peerway__record__proxy_record__free_unpacked(records[i], NULL);
	free(records);
}

static void on_count(void *arg, const char *proxy_id, uint64_t tunnels)
{
	struct mover *mover = arg;

	for (size_t i = 0; i < mover->count; i++)
		if (strcmp(mover->ids[i], proxy_id) == 0)
			mover->tunnels[i] = tunnels;
}

/* ---- whom to ask ---- */

static uint32_t chance(void)
{
	uint32_t bits = 0;

	RAND_bytes((unsigned char *)&bits, sizeof(bits));
	return bits;
}

static bool holds(struct cache *cache, const char *agent_id, const char *proxy)
{
	struct cache_holder holders[HOLDERS_MAX];
	int count = cache_holders(cache, agent_id, holders, HOLDERS_MAX);

	for (int i = 0; i < count; i++)
		if (strcmp(holders[i].proxy_id, proxy) == 0)
			return true;
	return false;
}

static void ask(struct mover *mover, const struct publish_tunnel *tunnel,
	const char *to)
{
	Peerway__Ipc__TunnelMove move = PEERWAY__IPC__TUNNEL_MOVE__INIT;
	struct routed *routed = mover->routed;

	move.tunnel_id = tunnel->tunnel_id;
	move.to = (char *)to;
	if (links_send(routed->links, tunnel->link, IPC_TUNNEL_MOVE,
		    &move.base) < 0)
		return;
	publish_set_asked(routed->publish, tunnel->link, tunnel->tunnel_id,
		loop_now(routed->loop));
	metric_add(&routed->metrics, ROUTED_MOVES, 1);
	log_debug("asked to move: agent=%s to=%s", tunnel->agent_id, to);
}

static void ask_some(struct mover *mover, struct cache *cache, size_t wanted)
{
	struct routed *routed = mover->routed;
	int64_t since = loop_now(routed->loop) - REBALANCE_UNDER_WAY_MS;
	struct publish_tunnel tunnel;

	for (int tries = 0; wanted > 0 && tries < TRIES_MAX; tries++) {
		int target = rebalance_target(
			mover->tunnels, mover->count, chance());

		if (target < 0 ||
			!publish_next_unasked(routed->publish, since, &tunnel))
			return;
		if (holds(cache, tunnel.agent_id, mover->ids[target]))
			continue;
		ask(mover, &tunnel, mover->ids[target]);
		mover->tunnels[target]++;
		wanted--;
	}
}

/* ---- looking ---- */

static void review(struct mover *mover, struct cache *cache)
{
	struct routed *routed = mover->routed;
	const struct conf_rebalance *conf = &routed->conf->proxy.rebalance;
	const struct rebalance_settings settings = {
		conf->threshold, conf->rate};
	int64_t now = loop_now(routed->loop);
	bool before = mover->rebalance.active;
	size_t next;

	list_proxies(mover, cache);
	if (mover->count < 2 ||
		mirror_tunnel_counts(routed->mirror, on_count, mover) < 0) {
		mover->rebalance = (struct rebalance){0};
		return;
	}
	next = rebalance_next(&mover->rebalance, &settings, mover->tunnels,
		mover->count, mover->self,
		publish_asked(routed->publish, now - REBALANCE_UNDER_WAY_MS),
		now);
	if (mover->rebalance.active != before)
		log_info(before ? "about as many tunnels as others: here=%zu "
				  "proxies=%zu"
				: "more tunnels than others, asking agents to "
				  "move: here=%zu proxies=%zu",
			mover->tunnels[mover->self], mover->count);
	ask_some(mover, cache, next);
}

static void on_look(void *arg)
{
	struct mover *mover = arg;
	struct routed *routed = mover->routed;
	struct cache *cache = mirror_cache(routed->mirror);
	struct cache_meta meta;

	if (cache && mirror_position(routed->mirror, &meta) &&
		session_state(routed->session) == SESSION_OPEN &&
		routed->conf->proxy.rebalance.rate &&
		(mover->rebalance.active || meta.revision != mover->revision)) {
		mover->revision = meta.revision;
		review(mover, cache);
	}
	timer_set(mover->look,
		mover->rebalance.active ? LOOK_ACTIVE_MS : LOOK_MS);
}

struct mover *mover_new(struct routed *routed)
{
	struct mover *mover = xcalloc(1, sizeof(*mover));

	mover->routed = routed;
	mover->ids = xcalloc(PROXIES_MAX, sizeof(mover->ids[0]));
	mover->tunnels = xcalloc(PROXIES_MAX, sizeof(mover->tunnels[0]));
	mover->look = timer_new(routed->loop, on_look, mover);
	timer_set(mover->look, LOOK_MS);
	return mover;
}

void mover_free(struct mover *mover)
{
	if (!mover)
		return;
	timer_free(mover->look);
	free(mover->ids);
	free(mover->tunnels);
	free(mover);
}

bool mover_is_active(const struct mover *mover)
{
	return mover->rebalance.active;
}
