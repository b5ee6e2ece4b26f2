/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How many agents a proxy asks to have their tunnel elsewhere, and where. Pure:
 * counts, time and random bits are given.
 *
 * A proxy that holds more than the threshold over the average begins, and goes
 * on until it is at the average; so does one that holds any more than the
 * average while another lacks more than the threshold (one that is new in a
 * large fleet makes nobody hold much too much). Those that are about even leave
 * each other alone. At most rate agents a second are asked. What is under way
 * (asked, and still here) is no longer counted as too much.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A smaller difference is not worth a move. */
#define REBALANCE_LEAST 5

struct rebalance_settings {
	uint32_t threshold; /* percent over the average */
	uint32_t rate;	    /* agents a second; 0: never */
};

/* What decides which proxies are compared with each other. */
struct rebalance_host {
	bool takes; /* serves, in proxy_peering */
	const char *group;
	uint64_t generation;
	const char *region;
	const char *zone;
	uint32_t agent_connection_count;
};

/* Where the agents of own could be as well: proxies of its region, group and
 * generation. Agents with several tunnels have them in different zones; then
 * those of its zone. */
bool rebalance_is_compared(
	const struct rebalance_host *own, const struct rebalance_host *other);

/* An agent that was asked has left by then, or will not. */
#define REBALANCE_UNDER_WAY_MS 15000

/* Zeroed: nothing to do so far. */
struct rebalance {
	bool active;
	uint64_t credit; /* of moves, in thousandths */
	int64_t last_ms;
};

/*
 * tunnels[i] of each proxy that counts, self among them. Returns how many
 * agents are to be asked now.
 */
size_t rebalance_next(struct rebalance *rebalance,
	const struct rebalance_settings *settings, const size_t *tunnels,
	size_t count, size_t self, size_t under_way, int64_t now_ms);
/* Where one of them had best go: a proxy below the average, by chance and the
 * more likely the more it lacks. -1: none is. */
int rebalance_target(const size_t *tunnels, size_t count, uint32_t random);
