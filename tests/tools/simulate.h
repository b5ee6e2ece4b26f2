/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A fleet larger than any machine for tests: the agent's own tracker,
 * candidates and strategy, the proxy's own admission and rebalancing, on a
 * clock of the simulation's. What lies between them (networks, handshakes, the
 * way of a record through authd) are times:
 *
 *   an attempt reaches the proxy after SIM_TRIP_MS and costs it
 *   SIM_HANDSHAKE_US of its one core; a tunnel is published, and a list of
 *   proxies heard by those with a tunnel, after SIM_PUBLISH_MS
 *
 * Everything random comes of the seed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/attempts.h"
#include "agent/candidates.h"
#include "agent/pool.h"
#include "agent/strategy.h"
#include "agent/tracker.h"
#include "proxy/admission.h"
#include "routed/rebalance.h"

#define SIM_TRIP_MS 5
#define SIM_HANDSHAKE_US 1500
#define SIM_PUBLISH_MS 100
#define SIM_LEASE_MS 5000
#define SIM_PUSH_MS 120000
#define SIM_RESTART_MS 2000	/* of a proxy, from its end to its listening */
#define SIM_CONNECT_TRY_MS 5000 /* of an attempt at nobody */
#define SIM_SILENT_MIN_MS 15000 /* until a silent tunnel is found dead */
#define SIM_SILENT_MAX_MS 30000
#define SIM_ZONES 3

enum sim_event {
	SIM_REVIEW,	/* agent */
	SIM_ARRIVE,	/* agent at proxy */
	SIM_OPEN,	/* agent's handshake with proxy is done */
	SIM_NOBODY,	/* agent's attempt at proxy got no answer */
	SIM_PUBLISHED,	/* agent's tunnel at proxy */
	SIM_LOST,	/* agent finds its tunnel at proxy dead */
	SIM_LIST,	/* those with a tunnel hear of the proxies */
	SIM_PUSH,	/* the same, though nothing has changed */
	SIM_LEASE_OVER, /* of proxy */
	SIM_UP,		/* proxy */
	SIM_BALANCE,	/* all proxies look at their counts */
	SIM_STEP,	/* of the scenario */
	SIM_EVENTS,
};

struct sim_tunnel {
	uint32_t proxy;
	uint32_t life; /* of the proxy, when it was opened */
	uint32_t at;   /* in the proxy's array */
	bool published;
	bool dead; /* the proxy is gone, and the agent does not know */
};

struct sim_agent {
	struct tracker *tracker;
	struct candidates *candidates;
	struct sim_tunnel *tunnels;
	uint32_t tunnel_count;
	uint32_t attempts;
	int64_t attempts_from;
	int64_t newest_attempt;
	struct strategy_waits waits;
	int64_t review_at; /* earliest that is planned; INT64_MAX: none */
	int64_t out_since; /* of reach; -1: is in reach */
	int64_t out_ms;	   /* the longest time out of reach so far */
	bool was_out;
	uint8_t zone;
};

enum sim_state { SIM_DOWN, SIM_SILENT, SIM_SERVING, SIM_DRAINING };

struct sim_proxy {
	char id[37];
	char addr[24];
	enum sim_state state;
	bool listed; /* its record is there */
	uint32_t life;
	uint8_t zone;
	int64_t busy_until_us;
	struct admission admission;
	struct rebalance rebalance;
	uint32_t *agents; /* that have a tunnel here */
	uint32_t agent_count;
	uint32_t agent_room;
	uint32_t moving; /* asked, and still here */
	int64_t asked_at;
};

struct sim_options {
	uint32_t agents;
	uint32_t proxies;
	uint32_t count; /* agent_connection_count */
	uint64_t seed;
	bool zones; /* agents and proxies have them */
};

struct sim_stats {
	uint64_t lists;
	uint64_t handshakes;
	uint64_t put_off;
	uint64_t moves;
};

struct sim_heap;
struct conf;

struct sim {
	struct sim_options options;
	struct conf *conf; /* of a proxy host that says nothing: the defaults */
	int64_t now;	   /* ms; begins at 1 */
	uint64_t random;
	struct sim_heap *heap;
	struct sim_proxy *proxies;
	struct sim_agent *agents;
	struct fleet *fleet; /* as all proxies know it */
	uint64_t revision;
	bool list_planned;
	uint32_t out_of_reach; /* agents */
	struct sim_stats stats;
	void (*step)(struct sim *sim); /* SIM_STEP; NULL: none */
	void *scenario;
};

/* ---- simulate_clock.c ---- */

struct sim_heap *sim_heap_new(void);
void sim_heap_free(struct sim_heap *heap);
void sim_after(struct sim *sim, int64_t ms, enum sim_event event,
	uint32_t agent, uint32_t proxy, uint32_t life);
/* Handles events until nothing is left before the time, or done() says so;
 * true: it did. done may be NULL. */
bool sim_run(struct sim *sim, int64_t until, bool (*done)(struct sim *sim));
uint32_t sim_random(struct sim *sim);

/* ---- simulate_proxy.c ---- */

void sim_proxies_new(struct sim *sim);
void sim_proxies_free(struct sim *sim);
/* Whether they even out with each other. */
bool sim_is_compared(const struct sim *sim, const struct sim_proxy *one,
	const struct sim_proxy *other);
/* The records have changed: all hear of it, together. */
void sim_records_changed(struct sim *sim);
void sim_proxy_start(struct sim *sim, uint32_t proxy);
/* Its tunnels are lost; silent: nobody is told. The record goes with the lease,
 * or at once (orderly). */
void sim_proxy_stop(struct sim *sim, uint32_t proxy, bool silent, bool orderly);
void sim_proxy_drain(struct sim *sim, uint32_t proxy);
uint32_t sim_attach(struct sim *sim, uint32_t proxy, uint32_t agent);
void sim_detach(struct sim *sim, uint32_t proxy, uint32_t at);
void sim_on_arrive(struct sim *sim, uint32_t agent, uint32_t proxy);
void sim_on_list(struct sim *sim);
void sim_on_push(struct sim *sim);
void sim_on_lease_over(struct sim *sim, uint32_t proxy, uint32_t life);
void sim_on_balance(struct sim *sim);

/* ---- simulate_agent.c ---- */

void sim_agents_new(struct sim *sim);
void sim_agents_free(struct sim *sim);
/* Looks again, at the latest after ms. */
void sim_review_within(struct sim *sim, uint32_t agent, int64_t ms);
void sim_hear(struct sim *sim, uint32_t agent);
/* What it has asked for with /webapi/find, before it has a tunnel. */
void sim_introduce(struct sim *sim, uint32_t agent);
/* The proxy asks it to go to another; false: it does not. */
bool sim_ask_to_move(
	struct sim *sim, uint32_t agent, uint32_t from, uint32_t to);
/* Its tunnel at proxy cannot be used any more, and known: it knows. */
void sim_tunnel_dies(
	struct sim *sim, uint32_t agent, uint32_t proxy, bool known);
void sim_put_off(
	struct sim *sim, uint32_t agent, uint32_t proxy, unsigned seconds);
void sim_refused(struct sim *sim, uint32_t agent, uint32_t proxy);
void sim_on_review(struct sim *sim, uint32_t agent);
void sim_on_open(
	struct sim *sim, uint32_t agent, uint32_t proxy, uint32_t life);
void sim_on_published(
	struct sim *sim, uint32_t agent, uint32_t proxy, uint32_t life);
void sim_on_lost(
	struct sim *sim, uint32_t agent, uint32_t proxy, uint32_t life);

/* ---- simulate_scenario.c ---- */

struct sim_scenario {
	const char *name;
	const char *what;
	void (*prepare)(struct sim_options *options); /* may be NULL */
	/* Begins it; SIM_STEP events call sim->step. */
	void (*begin)(struct sim *sim);
	/* Whether what was begun has been done. */
	bool (*done)(struct sim *sim);
};

extern const struct sim_scenario sim_scenarios[]; /* a NULL name ends */
