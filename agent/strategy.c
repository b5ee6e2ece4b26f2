/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strategy in force and surplus tunnels.
 *
 * What one gets wrong: keeping the oldest tunnel. After a change from
 * agent_mesh every agent's oldest tunnel ends at the same proxy.
 */
#include "agent/strategy.h"

#include <string.h>

struct strategy strategy_in_force(
	const struct tracker_proxy *proxies, size_t count)
{
	struct strategy strategy = {DISCOVERY_AGENT_MESH, 0};
	uint32_t most = 1;

	if (!count)
		return strategy;
	for (size_t i = 0; i < count; i++) {
		if (proxies[i].strategy != DISCOVERY_PROXY_PEERING)
			return strategy;
		if (proxies[i].agent_connection_count > most)
			most = proxies[i].agent_connection_count;
	}
	strategy.type = DISCOVERY_PROXY_PEERING;
	strategy.count = most;
	return strategy;
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

/* Whether a is kept rather than b. */
static bool precedes(const char *agent_id, const struct strategy_tunnel *a,
	const struct strategy_tunnel *b)
{
	uint64_t weight_a = weight(agent_id, a->proxy_id);
	uint64_t weight_b = weight(agent_id, b->proxy_id);

	if (a->desired != b->desired)
		return a->desired;
	if (weight_a != weight_b)
		return weight_a > weight_b;
	return strcmp(a->proxy_id, b->proxy_id) < 0;
}

size_t strategy_mark_surplus(const struct strategy *strategy,
	const char *agent_id, struct strategy_tunnel *tunnels, size_t count)
{
	size_t surplus = 0;

	for (size_t i = 0; i < count; i++) {
		size_t rank = 0;

		for (size_t j = 0; j < count; j++)
			rank += j != i &&
				precedes(agent_id, &tunnels[j], &tunnels[i]);
		tunnels[i].surplus = strategy->count && rank >= strategy->count;
		surplus += tunnels[i].surplus;
	}
	return surplus;
}
