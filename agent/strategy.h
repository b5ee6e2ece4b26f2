/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which tunnels are to be given up, and which proxies come before others. Pure.
 *
 * Make before break: nothing is given up before as many tunnels to desired
 * proxies as there should be are published, that is, known to every proxy as
 * the way to this agent.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/fleet.h"

/* Where somebody is; empty: unknown, and as near as any. */
struct place {
	const char *region;
	const char *zone;
};

/*
 * How good a proxy there is for a further tunnel; the smaller the better: one
 * of the own region, then a zone with fewer of our tunnels (so that several
 * spread), then the own zone.
 */
uint32_t strategy_distance(const struct place *own, const struct place *proxy,
	size_t tunnels_in_zone);

enum strategy_verdict {
	STRATEGY_STAY,
	STRATEGY_LEAVE,	  /* its proxy is not desired */
	STRATEGY_SURPLUS, /* more than the count */
};

struct strategy_tunnel {
	const char *proxy_id;
	struct place place;
	bool desired;	/* its proxy is, and has not asked us to leave */
	bool published; /* its proxy has said so */
	enum strategy_verdict verdict; /* set by strategy_judge() */
};

/* A verdict is carried out when it has held for so long: a fleet in the middle
 * of a restart changes its mind, and news of a published tunnel spreads. */
#define STRATEGY_LEAVE_MS 1000
#define STRATEGY_SURPLUS_MS 5000

/* Since when a tunnel has had each verdict; zeroed: none has. */
struct strategy_waits {
	int64_t since[STRATEGY_SURPLUS + 1];
};

/* After strategy_judge(): which verdicts are to be carried out now; returns
 * when to look again, INT64_MAX: when something changed. */
int64_t strategy_ripen(struct strategy_waits *waits,
	const struct strategy_tunnel *tunnels, size_t tunnel_count, int64_t now,
	bool ripe_out[STRATEGY_SURPLUS + 1]);

/*
 * Judges the ready tunnels; returns how many may go. count: how many there
 * should be, 0: to every proxy; target: how many there can be
 * (tracker_target()). What stays of several is spread over zones, near, and
 * then chosen by a hash of agent and proxy, so that the tunnels of many agents
 * stay spread over the proxies.
 */
size_t strategy_judge(uint32_t count, size_t target, const struct place *own,
	const char *agent_id, struct strategy_tunnel *tunnels,
	size_t tunnel_count);
