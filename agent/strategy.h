/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The tunnel strategy in force, out of what the live proxies say they run
 * with, and which tunnels are too many under it. Pure.
 *
 * A fleet changes its strategy one restarted proxy after another. As long as
 * one proxy runs agent_mesh it reaches no agent without a tunnel of its own, so
 * one such voice opens a tunnel to every proxy, and only a proxy_peering from
 * all of them lets a tunnel be closed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/tracker.h"

struct strategy {
	enum discovery_strategy type;
	uint32_t count; /* 0: a tunnel to every proxy */
};

/* No proxy known: agent_mesh. With different counts, the largest. */
struct strategy strategy_in_force(
	const struct tracker_proxy *proxies, size_t count);

struct strategy_tunnel {
	const char *proxy_id;
	bool desired;
	bool surplus; /* set by strategy_mark_surplus() */
};

/*
 * Marks the ready tunnels that may go; returns how many. What stays: desired
 * ones first, and among these by a hash of agent and proxy, so that the tunnels
 * of many agents stay spread over the proxies.
 */
size_t strategy_mark_surplus(const struct strategy *strategy,
	const char *agent_id, struct strategy_tunnel *tunnels, size_t count);
