/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to the fleet. */
#include "tests/tools/simulate.h"

#include <stdlib.h>

#include "shared/alloc.h"

#define STEP_MS 100
#define DRAIN_MS 60000
/* A host that was started takes clients, and the next one's turn comes. */
#define READY_MS 1000

/* ---- rolling restart ---- */

struct rolling {
	uint32_t next; /* to be restarted */
	uint32_t slots;
	struct {
		uint32_t proxy;
		enum { FREE, LEAVING, AWAY } state;
		int64_t since;
	} slot[64];
};

static void roll_slot(struct sim *sim, struct rolling *rolling, uint32_t slot)
{
	uint32_t number = rolling->slot[slot].proxy;
	struct sim_proxy *proxy = &sim->proxies[number];
	int64_t age = sim->now - rolling->slot[slot].since;

	switch (rolling->slot[slot].state) {
	case LEAVING:
		if (proxy->agent_count && age < DRAIN_MS)
			return;
		sim_proxy_stop(sim, number, false, true);
		sim_after(sim, SIM_RESTART_MS, SIM_UP, 0, number, 0);
		rolling->slot[slot].state = AWAY;
		rolling->slot[slot].since = sim->now;
		return;
	case AWAY:
		if (age < SIM_RESTART_MS + READY_MS)
			return;
		rolling->slot[slot].state = FREE;
		/* fall through */
	case FREE:
		if (rolling->next == sim->options.proxies)
			return;
		rolling->slot[slot].proxy = rolling->next++;
		rolling->slot[slot].state = LEAVING;
		rolling->slot[slot].since = sim->now;
		sim_proxy_drain(sim, rolling->slot[slot].proxy);
	}
}

static void roll(struct sim *sim)
{
	struct rolling *rolling = sim->scenario;

	for (uint32_t i = 0; i < rolling->slots; i++)
		roll_slot(sim, rolling, i);
	sim_after(sim, STEP_MS, SIM_STEP, 0, 0, 0);
}

/* One in fifty at a time. */
static void begin_rolling(struct sim *sim)
{
	struct rolling *rolling = xcalloc(1, sizeof(*rolling));

	rolling->slots = (sim->options.proxies + 49) / 50;
	if (rolling->slots > 64)
		rolling->slots = 64;
	sim->scenario = rolling;
	sim->step = roll;
	sim_after(sim, 0, SIM_STEP, 0, 0, 0);
}

static bool rolling_is_done(struct sim *sim)
{
	const struct rolling *rolling = sim->scenario;

	for (uint32_t i = 0; i < rolling->slots; i++)
		if (rolling->slot[i].state != FREE)
			return false;
	return rolling->next == sim->options.proxies;
}

/* ---- scale-out ---- */

static void begin_scale_out(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.proxies; i++)
		if (sim->proxies[i].state == SIM_DOWN)
			sim_proxy_start(sim, i);
}

/* ---- loss of a zone ---- */

static void prepare_zones_one(struct sim_options *options)
{
	options->zones = true;
	options->count = 1;
}

static void prepare_zones_two(struct sim_options *options)
{
	options->zones = true;
	options->count = 2;
}

static void begin_zone_loss(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.proxies; i++)
		if (sim->proxies[i].zone == 0)
			sim_proxy_stop(sim, i, true, false);
}

/* ---- all at once ---- */

static void begin_restart(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.proxies; i++) {
		sim_proxy_stop(sim, i, false, false);
		sim_after(sim, SIM_RESTART_MS, SIM_UP, 0, i, 0);
	}
}

static bool nothing_to_wait_for(struct sim *sim)
{
	return true;
}

const struct sim_scenario sim_scenarios[] = {
	{"rolling-restart",
		"every proxy is drained and restarted, 2 % at a time", NULL,
		begin_rolling, rolling_is_done},
	{"scale-out", "a quarter more proxies than there were", NULL,
		begin_scale_out, nothing_to_wait_for},
	{"zone-loss-1", "a third of the proxies falls silent, one tunnel each",
		prepare_zones_one, begin_zone_loss, nothing_to_wait_for},
	{"zone-loss-2", "the same with two tunnels each", prepare_zones_two,
		begin_zone_loss, nothing_to_wait_for},
	{"fleet-restart", "all proxies die and are back after 2 s", NULL,
		begin_restart, nothing_to_wait_for},
	{NULL, NULL, NULL, NULL, NULL},
};
