/* SPDX-License-Identifier: Apache-2.0 */
/* The proxies: records, handshakes on one core each, moves that they ask for.
 */
#include "tests/tools/simulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/conf.h"

void sim_proxies_new(struct sim *sim)
{
	sim->proxies = xcalloc(sim->options.proxies, sizeof(struct sim_proxy));
	for (uint32_t i = 0; i < sim->options.proxies; i++) {
		struct sim_proxy *proxy = &sim->proxies[i];

		snprintf(proxy->id, sizeof(proxy->id),
			"00000000-0000-4000-8000-%012u", i);
		snprintf(proxy->addr, sizeof(proxy->addr), "p%u:3080", i);
		proxy->zone = (uint8_t)(i % SIM_ZONES);
	}
}

void sim_proxies_free(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.proxies; i++)
		free(sim->proxies[i].agents);
	free(sim->proxies);
	fleet_unref(sim->fleet);
}

/* ---- records ---- */

static void make_list(struct sim *sim)
{
	struct discovery discovery = {.revision = ++sim->revision};

	strcpy(discovery.store_id, "simulated");
	discovery.proxies =
		xcalloc(sim->options.proxies, sizeof(discovery.proxies[0]));
	for (uint32_t i = 0; i < sim->options.proxies; i++) {
		const struct sim_proxy *proxy = &sim->proxies[i];
		struct discovery_proxy *entry;

		if (!proxy->listed)
			continue;
		entry = &discovery.proxies[discovery.proxy_count++];
		strcpy(entry->id, proxy->id);
		strcpy(entry->public_addr[0], proxy->addr);
		entry->public_addr_count = 1;
		entry->draining = proxy->state == SIM_DRAINING;
		entry->strategy = DISCOVERY_PROXY_PEERING;
		entry->agent_connection_count = sim->options.count;
		if (sim->options.zones)
			snprintf(entry->zone, sizeof(entry->zone), "zone-%u",
				proxy->zone);
	}
	fleet_unref(sim->fleet);
	sim->fleet = fleet_new(&discovery);
	free(discovery.proxies);
}

void sim_records_changed(struct sim *sim)
{
	if (!sim->list_planned)
		sim_after(sim, SIM_PUBLISH_MS, SIM_LIST, 0, 0, 0);
	sim->list_planned = true;
}

void sim_on_push(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.agents; i++)
		sim_hear(sim, i);
	sim_after(sim, SIM_PUSH_MS, SIM_PUSH, 0, 0, 0);
}

void sim_on_list(struct sim *sim)
{
	sim->list_planned = false;
	make_list(sim);
	for (uint32_t i = 0; i < sim->options.agents; i++)
		sim_hear(sim, i);
}

/* ---- life ---- */

void sim_proxy_start(struct sim *sim, uint32_t number)
{
	struct sim_proxy *proxy = &sim->proxies[number];

	proxy->state = SIM_SERVING;
	proxy->listed = true;
	proxy->life++;
	proxy->busy_until_us = 0;
	proxy->rebalance = (struct rebalance){0};
	proxy->moving = 0;
	admission_init(
		&proxy->admission, sim->conf->proxy.max_tunnel_handshakes);
	sim_records_changed(sim);
}

void sim_proxy_stop(struct sim *sim, uint32_t number, bool silent, bool orderly)
{
	struct sim_proxy *proxy = &sim->proxies[number];

	proxy->state = silent ? SIM_SILENT : SIM_DOWN;
	/* dying takes the tunnel off the end of the array, or leaves it dead */
	for (uint32_t i = proxy->agent_count; i-- > 0;)
		sim_tunnel_dies(sim, proxy->agents[i], number, !silent);
	if (orderly) {
		proxy->listed = false;
		sim_records_changed(sim);
	} else {
		sim_after(sim, SIM_LEASE_MS, SIM_LEASE_OVER, 0, number,
			proxy->life);
	}
}

void sim_on_lease_over(struct sim *sim, uint32_t number, uint32_t life)
{
	struct sim_proxy *proxy = &sim->proxies[number];

	if (proxy->life != life || !proxy->listed)
		return;
	proxy->listed = false;
	sim_records_changed(sim);
}

void sim_proxy_drain(struct sim *sim, uint32_t number)
{
	sim->proxies[number].state = SIM_DRAINING;
	sim_records_changed(sim);
}

/* ---- tunnels ---- */

uint32_t sim_attach(struct sim *sim, uint32_t number, uint32_t agent)
{
	struct sim_proxy *proxy = &sim->proxies[number];

	if (proxy->agent_count == proxy->agent_room) {
		proxy->agent_room =
			proxy->agent_room ? proxy->agent_room * 2 : 64;
		proxy->agents = xrealloc(proxy->agents,
			proxy->agent_room * sizeof(*proxy->agents));
	}
	proxy->agents[proxy->agent_count] = agent;
	return proxy->agent_count++;
}

void sim_detach(struct sim *sim, uint32_t number, uint32_t at)
{
	struct sim_proxy *proxy = &sim->proxies[number];
	uint32_t moved = proxy->agents[--proxy->agent_count];
	struct sim_agent *agent = &sim->agents[moved];

	proxy->agents[at] = moved;
	for (uint32_t i = 0; i < agent->tunnel_count; i++)
		if (agent->tunnels[i].proxy == number &&
			agent->tunnels[i].at == proxy->agent_count)
			agent->tunnels[i].at = at;
}

void sim_on_arrive(struct sim *sim, uint32_t agent, uint32_t number)
{
	struct sim_proxy *proxy = &sim->proxies[number];
	int64_t now_us = sim->now * 1000;

	if (proxy->state == SIM_SILENT) {
		sim_after(
			sim, SIM_CONNECT_TRY_MS, SIM_NOBODY, agent, number, 0);
		return;
	}
	if (proxy->state == SIM_DOWN) {
		sim_refused(sim, agent, number);
		return;
	}
	if (!admission_has_room(&proxy->admission)) {
		sim->stats.put_off++;
		sim_put_off(sim, agent, number,
			admission_retry_after(
				&proxy->admission, sim->now, sim_random(sim)));
		return;
	}
	admission_begin(&proxy->admission, sim->now);
	sim->stats.handshakes++;
	if (proxy->busy_until_us < now_us)
		proxy->busy_until_us = now_us;
	proxy->busy_until_us += SIM_HANDSHAKE_US;
	sim_after(sim, (proxy->busy_until_us - now_us + 999) / 1000, SIM_OPEN,
		agent, number, proxy->life);
}

/* ---- moves ---- */

static void ask_some(struct sim *sim, uint32_t from, size_t *tunnels,
	const uint32_t *numbers, size_t count, size_t wanted)
{
	struct sim_proxy *proxy = &sim->proxies[from];

	for (size_t tries = 0; wanted && tries < 4 * wanted + 100; tries++) {
		int target = rebalance_target(tunnels, count, sim_random(sim));
		uint32_t agent;

		if (target < 0 || !proxy->agent_count)
			return;
		agent = proxy->agents[sim_random(sim) % proxy->agent_count];
		if (!sim_ask_to_move(sim, agent, from, numbers[target]))
			continue;
		sim->stats.moves++;
		proxy->moving++;
		proxy->asked_at = sim->now;
		tunnels[target]++;
		wanted--;
	}
}

static struct rebalance_host host_of(
	const struct sim *sim, const struct sim_proxy *proxy)
{
	static const char *const zones[SIM_ZONES] = {"0", "1", "2"};

	return (struct rebalance_host){
		.takes = proxy->state == SIM_SERVING,
		.group = "",
		.region = "",
		.zone = sim->options.zones ? zones[proxy->zone] : "",
		.agent_connection_count = sim->options.count,
	};
}

bool sim_is_compared(const struct sim *sim, const struct sim_proxy *one,
	const struct sim_proxy *other)
{
	const struct rebalance_host host = host_of(sim, one);
	const struct rebalance_host other_host = host_of(sim, other);

	return rebalance_is_compared(&host, &other_host);
}

static void review(struct sim *sim, size_t *tunnels, const uint32_t *numbers,
	size_t count, size_t self)
{
	const struct rebalance_settings settings = {
		sim->conf->proxy.rebalance.threshold,
		sim->conf->proxy.rebalance.rate};
	struct sim_proxy *proxy = &sim->proxies[numbers[self]];
	size_t next;

	if (sim->now - proxy->asked_at > REBALANCE_UNDER_WAY_MS)
		proxy->moving = 0;
	next = rebalance_next(&proxy->rebalance, &settings, tunnels, count,
		self, proxy->moving, sim->now);
	if (next)
		ask_some(sim, numbers[self], tunnels, numbers, count, next);
}

/* Those that are compared with that one; marks them as done. */
static void balance_with(struct sim *sim, uint32_t first, bool *done)
{
	uint32_t proxies = sim->options.proxies;
	size_t *tunnels = xcalloc(proxies, sizeof(*tunnels));
	uint32_t *numbers = xcalloc(proxies, sizeof(*numbers));
	size_t count = 0;

	for (uint32_t i = 0; i < proxies; i++) {
		if (!sim_is_compared(
			    sim, &sim->proxies[first], &sim->proxies[i]))
			continue;
		done[i] = true;
		numbers[count] = i;
		tunnels[count++] = sim->proxies[i].agent_count;
	}
	for (size_t i = 0; i < count; i++)
		review(sim, tunnels, numbers, count, i);
	free(tunnels);
	free(numbers);
}

/* All look at the same counts, of one moment. */
void sim_on_balance(struct sim *sim)
{
	bool *done = xcalloc(sim->options.proxies, sizeof(*done));

	for (uint32_t i = 0; i < sim->options.proxies; i++)
		if (sim->proxies[i].state == SIM_SERVING && !done[i])
			balance_with(sim, i, done);
	free(done);
	sim_after(sim, 1000, SIM_BALANCE, 0, 0, 0);
}
