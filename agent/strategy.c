/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Surplus tunnels and near proxies.
 *
 * What one gets wrong: keeping the oldest tunnel. After a change from
 * agent_mesh every agent's oldest tunnel ends at the same proxy.
 */
#include "agent/strategy.h"

#include <string.h>

static bool differs(const char *a, const char *b)
{
	return *a && *b && strcmp(a, b) != 0;
}

uint32_t strategy_distance(const struct place *own, const struct place *proxy,
	size_t tunnels_in_zone)
{
	bool region = differs(own->region, proxy->region);
	bool zone = region || differs(own->zone, proxy->zone);
	uint32_t crowd = tunnels_in_zone < 0xffff ? tunnels_in_zone : 0xffff;

	return (uint32_t)region << 31 | crowd << 1 | zone;
}

/* FNV-1a, with a last mix because the ids differ in few bytes. */
static uint64_t weight(const char *agent_id, const char *proxy_id)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const char *c = agent_id; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
	for (const char *c = proxy_id; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
	hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
	return hash ^ (hash >> 33);
}

static bool may_be_kept(const struct strategy_tunnel *tunnel)
{
	return tunnel->desired && tunnel->published;
}

/* Those already kept in the tunnel's zone. */
static size_t kept_in_zone(const struct strategy_tunnel *tunnels, size_t count,
	const struct strategy_tunnel *tunnel)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		kept += may_be_kept(&tunnels[i]) &&
			tunnels[i].verdict == STRATEGY_STAY &&
			strcmp(tunnels[i].place.region, tunnel->place.region) ==
				0 &&
			strcmp(tunnels[i].place.zone, tunnel->place.zone) == 0;
	return kept;
}

/* The best one of what is surplus so far; NULL: none. */
static struct strategy_tunnel *best_surplus(struct strategy_tunnel *tunnels,
	size_t count, const struct place *own, const char *agent_id)
{
	struct strategy_tunnel *best = NULL;
	uint64_t best_weight = 0;
	uint32_t best_distance = 0;

	for (size_t i = 0; i < count; i++) {
		struct strategy_tunnel *tunnel = &tunnels[i];
		uint32_t distance;
		uint64_t hash;

		if (tunnel->verdict != STRATEGY_SURPLUS)
			continue;
		distance = strategy_distance(own, &tunnel->place,
			kept_in_zone(tunnels, count, tunnel));
		hash = weight(agent_id, tunnel->proxy_id);
		if (best && (distance > best_distance ||
				    (distance == best_distance &&
					    hash <= best_weight)))
			continue;
		best = tunnel;
		best_distance = distance;
		best_weight = hash;
	}
	return best;
}

size_t strategy_judge(uint32_t count, size_t target, const struct place *own,
	const char *agent_id, struct strategy_tunnel *tunnels,
	size_t tunnel_count)
{
	size_t published = 0, leave = 0;

	for (size_t i = 0; i < tunnel_count; i++) {
		tunnels[i].verdict = STRATEGY_STAY;
		published += may_be_kept(&tunnels[i]);
	}
	if (!target || published < target)
		return 0;
	for (size_t i = 0; i < tunnel_count; i++) {
		if (tunnels[i].desired)
			continue;
		tunnels[i].verdict = STRATEGY_LEAVE;
		leave++;
	}
	if (!count || published <= count)
		return leave;
	for (size_t i = 0; i < tunnel_count; i++)
		if (may_be_kept(&tunnels[i]))
			tunnels[i].verdict = STRATEGY_SURPLUS;
	for (uint32_t n = 0; n < count; n++)
		best_surplus(tunnels, tunnel_count, own, agent_id)->verdict =
			STRATEGY_STAY;
	return leave + (published - count);
}

static bool has_verdict(const struct strategy_tunnel *tunnels, size_t count,
	enum strategy_verdict verdict)
{
	for (size_t i = 0; i < count; i++)
		if (tunnels[i].verdict == verdict)
			return true;
	return false;
}

int64_t strategy_ripen(struct strategy_waits *waits,
	const struct strategy_tunnel *tunnels, size_t tunnel_count, int64_t now,
	bool ripe_out[STRATEGY_SURPLUS + 1])
{
	static const int64_t wait_ms[] = {
		[STRATEGY_LEAVE] = STRATEGY_LEAVE_MS,
		[STRATEGY_SURPLUS] = STRATEGY_SURPLUS_MS,
	};
	int64_t next = INT64_MAX;

	ripe_out[STRATEGY_STAY] = false;
	for (int i = STRATEGY_LEAVE; i <= STRATEGY_SURPLUS; i++) {
		int64_t *since = &waits->since[i];

		ripe_out[i] = false;
		if (!has_verdict(tunnels, tunnel_count, i)) {
			*since = 0;
			continue;
		}
		if (!*since)
			*since = now;
		ripe_out[i] = now >= *since + wait_ms[i];
		if (ripe_out[i])
			*since = 0;
		else if (*since + wait_ms[i] < next)
			next = *since + wait_ms[i];
	}
	return next;
}
