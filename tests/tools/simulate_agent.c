/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agents: what agent/pool.c and agent/attempts.c do with the rules, without
 * sockets. No rule is here; each is asked of the library.
 */
#include "tests/tools/simulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

#define TUNNELS_MAX 16

static const char *const zone_names[SIM_ZONES] = {"zone-0", "zone-1", "zone-2"};

static struct place place_of(
	const struct sim *sim, const struct sim_agent *agent)
{
	return (struct place){
		"", sim->options.zones ? zone_names[agent->zone] : ""};
}

void sim_agents_new(struct sim *sim)
{
	static const char *const servers[] = {"p0", "p1", "p2"};

	sim->agents = xcalloc(sim->options.agents, sizeof(struct sim_agent));
	for (uint32_t i = 0; i < sim->options.agents; i++) {
		struct sim_agent *agent = &sim->agents[i];
		struct place place;

		agent->zone = (uint8_t)(i % SIM_ZONES);
		place = place_of(sim, agent);
		agent->tracker = tracker_new();
		agent->candidates = candidates_new(servers, 3, &place, 0);
		agent->tunnels = xcalloc(TUNNELS_MAX, sizeof(*agent->tunnels));
		agent->review_at = INT64_MAX;
		agent->out_since = 0;
	}
	sim->out_of_reach = sim->options.agents;
}

void sim_agents_free(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.agents; i++) {
		candidates_free(sim->agents[i].candidates);
		tracker_free(sim->agents[i].tracker);
		free(sim->agents[i].tunnels);
	}
	free(sim->agents);
}

/* ---- reach ---- */

static void note_reach(struct sim *sim, struct sim_agent *agent)
{
	bool reached = false;

	for (uint32_t i = 0; i < agent->tunnel_count; i++)
		reached = reached || (agent->tunnels[i].published &&
					     !agent->tunnels[i].dead);
	if (reached == (agent->out_since < 0))
		return;
	if (!reached) {
		agent->out_since = sim->now;
		agent->was_out = true;
		sim->out_of_reach++;
		return;
	}
	if (sim->now - agent->out_since > agent->out_ms)
		agent->out_ms = sim->now - agent->out_since;
	agent->out_since = -1;
	sim->out_of_reach--;
}

/* ---- tunnels ---- */

static struct sim_tunnel *find_tunnel(
	struct sim_agent *agent, uint32_t proxy, uint32_t life)
{
	for (uint32_t i = 0; i < agent->tunnel_count; i++)
		if (agent->tunnels[i].proxy == proxy &&
			agent->tunnels[i].life == life)
			return &agent->tunnels[i];
	return NULL;
}

static void remove_tunnel(
	struct sim *sim, struct sim_agent *agent, struct sim_tunnel *tunnel)
{
	struct sim_proxy *proxy = &sim->proxies[tunnel->proxy];

	if (proxy->life == tunnel->life && proxy->moving &&
		tracker_is_leaving(agent->tracker, proxy->id))
		proxy->moving--;
	sim_detach(sim, tunnel->proxy, tunnel->at);
	tracker_release(agent->tracker, proxy->id);
	*tunnel = agent->tunnels[--agent->tunnel_count];
	note_reach(sim, agent);
}

/* As pool.c's lose(). */
static void lose(
	struct sim *sim, uint32_t number, uint32_t proxy, uint32_t life)
{
	struct sim_agent *agent = &sim->agents[number];
	struct sim_tunnel *tunnel = find_tunnel(agent, proxy, life);

	if (!tunnel)
		return;
	remove_tunnel(sim, agent, tunnel);
	agent->attempts_from = sim->now + sim_random(sim) % POOL_LOST_MS;
	candidates_failed(agent->candidates, sim->proxies[proxy].addr, sim->now,
		sim_random(sim));
	sim_review_within(sim, number, 0);
}

void sim_tunnel_dies(
	struct sim *sim, uint32_t number, uint32_t proxy, bool known)
{
	struct sim_agent *agent = &sim->agents[number];
	uint32_t life = sim->proxies[proxy].life;
	struct sim_tunnel *tunnel = find_tunnel(agent, proxy, life);

	if (known) {
		lose(sim, number, proxy, life);
		return;
	}
	if (!tunnel)
		return;
	tunnel->dead = true;
	note_reach(sim, agent);
	sim_after(sim,
		SIM_SILENT_MIN_MS +
			sim_random(sim) %
				(SIM_SILENT_MAX_MS - SIM_SILENT_MIN_MS),
		SIM_LOST, number, proxy, life);
}

void sim_on_lost(struct sim *sim, uint32_t agent, uint32_t proxy, uint32_t life)
{
	lose(sim, agent, proxy, life);
}

void sim_on_open(
	struct sim *sim, uint32_t number, uint32_t proxy_number, uint32_t life)
{
	struct sim_agent *agent = &sim->agents[number];
	struct sim_proxy *proxy = &sim->proxies[proxy_number];

	if (proxy->life != life || proxy->state < SIM_SERVING ||
		tracker_is_claimed(agent->tracker, proxy->id) ||
		agent->tunnel_count == TUNNELS_MAX) {
		if (proxy->life == life && proxy->state >= SIM_SERVING)
			admission_end(&proxy->admission, sim->now, true);
		sim_refused(sim, number, proxy_number);
		return;
	}
	admission_end(&proxy->admission, sim->now, true);
	candidates_idle(agent->candidates, proxy->addr);
	candidates_settled(agent->candidates, proxy->addr);
	tracker_claim(agent->tracker, proxy->id, sim->now);
	agent->attempts--;
	agent->tunnels[agent->tunnel_count++] =
		(struct sim_tunnel){.proxy = proxy_number,
			.life = life,
			.at = sim_attach(sim, proxy_number, number)};
	sim_after(
		sim, SIM_PUBLISH_MS, SIM_PUBLISHED, number, proxy_number, life);
	sim_hear(sim, number);
	sim_review_within(sim, number, 0);
}

void sim_on_published(
	struct sim *sim, uint32_t number, uint32_t proxy, uint32_t life)
{
	struct sim_agent *agent = &sim->agents[number];
	struct sim_tunnel *tunnel = find_tunnel(agent, proxy, life);

	if (!tunnel)
		return;
	tunnel->published = true;
	note_reach(sim, agent);
	sim_review_within(sim, number, 0);
}

/* ---- attempts that came to nothing ---- */

static void give_back(struct sim *sim, uint32_t number, uint32_t proxy)
{
	struct sim_agent *agent = &sim->agents[number];

	candidates_idle(agent->candidates, sim->proxies[proxy].addr);
	tracker_return(agent->tracker);
	agent->attempts--;
	sim_review_within(sim, number, 0);
}

void sim_refused(struct sim *sim, uint32_t number, uint32_t proxy)
{
	candidates_failed(sim->agents[number].candidates,
		sim->proxies[proxy].addr, sim->now, sim_random(sim));
	give_back(sim, number, proxy);
}

void sim_put_off(
	struct sim *sim, uint32_t number, uint32_t proxy, unsigned seconds)
{
	candidates_hold(sim->agents[number].candidates,
		sim->proxies[proxy].addr,
		sim->now + seconds * 1000 +
			sim_random(sim) % ATTEMPTS_JITTER_MS,
		sim->now, sim_random(sim));
	give_back(sim, number, proxy);
}

/* ---- what it hears ---- */

void sim_introduce(struct sim *sim, uint32_t number)
{
	struct sim_agent *agent = &sim->agents[number];

	int64_t from = sim->now + sim_random(sim) % POOL_NEWS_MS;

	sim->stats.lists++;
	if (tracker_mention(agent->tracker, sim->fleet, sim->now)) {
		tracker_set_count(agent->tracker, sim->fleet->strategy.count);
		if (agent->tunnel_count && agent->attempts_from < from)
			agent->attempts_from = from;
	}
	sim_review_within(sim, number, 0);
}

void sim_hear(struct sim *sim, uint32_t number)
{
	struct sim_agent *agent = &sim->agents[number];
	bool hears = false;

	for (uint32_t i = 0; i < agent->tunnel_count; i++)
		hears = hears || !agent->tunnels[i].dead;
	if (!hears)
		return;
	sim_introduce(sim, number);
}

bool sim_ask_to_move(
	struct sim *sim, uint32_t number, uint32_t from, uint32_t to)
{
	struct sim_agent *agent = &sim->agents[number];

	if (tracker_is_claimed(agent->tracker, sim->proxies[to].id) ||
		!tracker_leave(agent->tracker, sim->proxies[from].id,
			sim->proxies[to].id, sim->now))
		return false;
	sim_review_within(sim, number, 0);
	return true;
}

/* ---- the review ---- */

void sim_review_within(struct sim *sim, uint32_t number, int64_t ms)
{
	struct sim_agent *agent = &sim->agents[number];

	if (agent->review_at <= sim->now + ms)
		return;
	agent->review_at = sim->now + ms;
	sim_after(sim, ms, SIM_REVIEW, number, 0, 0);
}

static void judge(struct sim *sim, struct sim_agent *agent,
	struct strategy_tunnel *tunnels, const struct place *place)
{
	char id[37];

	for (uint32_t i = 0; i < agent->tunnel_count; i++) {
		const struct sim_proxy *proxy =
			&sim->proxies[agent->tunnels[i].proxy];
		const char *zone =
			sim->options.zones ? zone_names[proxy->zone] : "";

		tunnels[i] = (struct strategy_tunnel){
			.proxy_id = proxy->id,
			.place = {"", zone},
			.desired = !tracker_is_needless(
				agent->tracker, proxy->id, sim->now),
			.published = agent->tunnels[i].published,
		};
	}
	snprintf(id, sizeof(id), "11111111-0000-4000-8000-%012u",
		(unsigned)(agent - sim->agents));
	strategy_judge(sim->options.count, tracker_target(agent->tracker),
		place, id, tunnels, agent->tunnel_count);
}

static int64_t close_needless(struct sim *sim, struct sim_agent *agent)
{
	struct strategy_tunnel tunnels[TUNNELS_MAX];
	const struct place place = place_of(sim, agent);
	bool ripe[STRATEGY_SURPLUS + 1];
	int64_t due;

	judge(sim, agent, tunnels, &place);
	due = strategy_ripen(
		&agent->waits, tunnels, agent->tunnel_count, sim->now, ripe);
	for (uint32_t i = agent->tunnel_count; i-- > 0;) {
		if (!ripe[tunnels[i].verdict])
			continue;
		remove_tunnel(sim, agent, &agent->tunnels[i]);
		tunnels[i] = tunnels[agent->tunnel_count];
	}
	return due;
}

static int64_t start_attempts(
	struct sim *sim, uint32_t number, struct sim_agent *agent)
{
	struct candidate candidate;
	int64_t due;
	bool hedge;

	if (sim->now < agent->attempts_from)
		return agent->attempts_from;
	while (tracker_may_begin(agent->tracker, agent->attempts,
		agent->newest_attempt, sim->now, &hedge, &due)) {
		if (!candidates_pick(agent->candidates, agent->tracker, hedge,
			    sim->now, sim_random(sim), &candidate, &due)) {
			tracker_return(agent->tracker);
			break;
		}
		agent->attempts++;
		agent->newest_attempt = sim->now;
		sim_after(sim, SIM_TRIP_MS, SIM_ARRIVE, number,
			(uint32_t)atoi(candidate.key + 1), 0);
	}
	return due;
}

void sim_on_review(struct sim *sim, uint32_t number)
{
	struct sim_agent *agent = &sim->agents[number];
	int64_t due, next;

	if (agent->review_at > sim->now)
		return; /* an earlier one has been */
	agent->review_at = INT64_MAX;
	due = tracker_expire(agent->tracker, sim->now);
	next = close_needless(sim, agent);
	if (next < due)
		due = next;
	next = start_attempts(sim, number, agent);
	if (next < due)
		due = next;
	if (due != INT64_MAX)
		sim_review_within(sim, number, due - sim->now);
}
