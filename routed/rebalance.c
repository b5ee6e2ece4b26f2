/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebalancing. What is easily got wrong: every proxy decides for itself from
 * counts that are a moment old. Who sent all to the emptiest would make it the
 * fullest; so targets are drawn by what they lack.
 */
#include "routed/rebalance.h"

#include <string.h>

/* Credit for this many seconds at most: no burst after a pause. */
#define CREDIT_S 2

bool rebalance_is_compared(
	const struct rebalance_host *own, const struct rebalance_host *other)
{
	bool apart = own->agent_connection_count > 1;

	return own->takes && other->takes &&
	       other->generation == own->generation &&
	       strcmp(other->group, own->group) == 0 &&
	       strcmp(other->region, own->region) == 0 &&
	       (!apart || strcmp(other->zone, own->zone) == 0);
}

static size_t sum(const size_t *tunnels, size_t count)
{
	size_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += tunnels[i];
	return total;
}

/* Rounded down: an agent that moves is counted twice for a moment, and that may
 * not make those who hold one too many fall silent. */
static size_t average(const size_t *tunnels, size_t count)
{
	return sum(tunnels, count) / count;
}

static uint64_t earn(struct rebalance *rebalance, uint32_t rate, int64_t now_ms)
{
	uint64_t most = (uint64_t)rate * 1000 * CREDIT_S;

	if (rebalance->last_ms && now_ms > rebalance->last_ms)
		rebalance->credit +=
			(uint64_t)(now_ms - rebalance->last_ms) * rate;
	if (rebalance->credit > most)
		rebalance->credit = most;
	rebalance->last_ms = now_ms;
	return rebalance->credit / 1000;
}

static bool is_much(size_t difference, size_t even, uint32_t threshold)
{
	return difference >= REBALANCE_LEAST &&
	       (uint64_t)difference * 100 > (uint64_t)even * threshold;
}

static size_t worst_lack(const size_t *tunnels, size_t count, size_t even)
{
	size_t worst = 0;

	for (size_t i = 0; i < count; i++)
		if (tunnels[i] < even && even - tunnels[i] > worst)
			worst = even - tunnels[i];
	return worst;
}

size_t rebalance_next(struct rebalance *rebalance,
	const struct rebalance_settings *settings, const size_t *tunnels,
	size_t count, size_t self, size_t under_way, int64_t now_ms)
{
	uint64_t may = earn(rebalance, settings->rate, now_ms);
	size_t even = average(tunnels, count);
	size_t own = tunnels[self], over, next;
	size_t lack = worst_lack(tunnels, count, even);

	over = own > even ? own - even : 0;
	if (is_much(over, even, settings->threshold) ||
		is_much(lack, even, settings->threshold))
		rebalance->active = settings->rate > 0;
	if (!over || !lack)
		rebalance->active = false;
	if (!rebalance->active || over <= under_way)
		return 0;
	next = over - under_way < may ? over - under_way : (size_t)may;
	rebalance->credit -= (uint64_t)next * 1000;
	return next;
}

int rebalance_target(const size_t *tunnels, size_t count, uint32_t random)
{
	size_t even = average(tunnels, count);
	uint64_t lack = 0, draw;

	for (size_t i = 0; i < count; i++)
		lack += tunnels[i] < even ? even - tunnels[i] : 0;
	if (!lack)
		return -1;
	draw = random % lack;
	for (size_t i = 0; i < count; i++) {
		uint64_t of_this = tunnels[i] < even ? even - tunnels[i] : 0;

		if (draw < of_this)
			return (int)i;
		draw -= of_this;
	}
	return -1;
}
