/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom a dial asks: a sibling that has the tunnel, then the peers that the
 * cache names, and, once, authd for others. Talks to ask.c, client.c and
 * lookup.c.
 *
 * A newcomer's trap: up to DIAL_TRIES peers and a lookup are pending at a time,
 * and each callback first clears its own field. Any of them may end the dial,
 * after which nothing here may touch it.
 */
#include <fcntl.h>
#include <string.h>

#include "peerd/dial_private.h"
#include "peerd/lookup.h"
#include "peerd/meters.h"
#include "peerd/peers.h"
#include "peerd/refusal.h"
#include "peerd/switchboard.h"
#include "shared/log.h"

/* When the only holder that is known has said nothing for so long, authd may
 * know another. */
#define SILENT_MS 1000

static void advance(struct dial *dial);
static void look_up(struct dial *dial);

static void count(const struct dial *dial, enum meter meter)
{
	metric_add(&dial->dials->peerd->metrics, meter, 1);
}

/* An attempt has failed: go on, or give up. */
static void attempt_failed(struct dial *dial, size_t attempt,
	Peerway__Ipc__DialCode code, const char *message)
{
	attempts_end(&dial->attempts, attempt, message, dial_now(dial));
	if (!refusal_may_retry(code)) {
		dial_stop_asking(dial);
		dial_fail(dial, code, message);
		return;
	}
	/* that somebody was too slow says more than that others failed */
	if (code != CODE(OFFLINE) && dial->worst != CODE(TIMED_OUT))
		dial->worst = code;
	advance(dial);
}

/* ---- a sibling ---- */

static void on_sibling_answer(void *arg, const struct ask_answer *answer)
{
	struct dial *dial = arg;

	dial->ask = 0;
	if (answer->code == CODE(CODE_NONE))
		dial_taken(dial, answer->worker);
	else
		attempt_failed(
			dial, dial->ask_attempt, answer->code, answer->message);
}

static void ask_sibling(struct dial *dial, const struct tunnel_entry *tunnel)
{
	struct peerd *peerd = dial->dials->peerd;
	Peerway__Ipc__Dial ask = *dial->request;
	int copy = fcntl(dial->fd, F_DUPFD_CLOEXEC, 0);

	dial->ask_attempt = attempts_begin(&dial->attempts,
		PEERWAY__IPC__ROUTE__ROUTE_SIBLING, peerd->id, "",
		dial_now(dial));
	if (copy < 0) {
		attempt_failed(dial, dial->ask_attempt, CODE(INTERNAL),
			"this proxy is out of descriptors");
		return;
	}
	ask.connection_id.data = dial->connection_id;
	ask.connection_id.len = CONNECTION_ID_SIZE;
	ask.deadline_ms = (uint32_t)dial_time_left(dial);
	ask.from_peer = false;
	dial->ask = asks_start(peerd->switchboard->asks, tunnel->link, &ask,
		copy, on_sibling_answer, dial);
	if (!dial->ask)
		attempt_failed(dial, dial->ask_attempt, CODE(OFFLINE),
			"the worker that held the tunnel has gone");
}

/* ---- peers ---- */

static struct dial_try *free_try(struct dial *dial)
{
	for (size_t i = 0; i < DIAL_TRIES; i++) {
		if (!dial->tries[i].call)
			return &dial->tries[i];
	}
	return NULL;
}

static size_t tries_under_way(const struct dial *dial)
{
	size_t n = 0;

	for (size_t i = 0; i < DIAL_TRIES; i++)
		n += dial->tries[i].call != NULL;
	return n;
}

/* Cancels the calls that are under way. */
static void drop_tries(struct dial *dial, const char *why)
{
	for (size_t i = 0; i < DIAL_TRIES; i++) {
		struct dial_try *try = &dial->tries[i];

		if (!try->call)
			continue;
		client_cancel(try->call);
		try->call = NULL;
		attempts_end(
			&dial->attempts, try->attempt, why, dial_now(dial));
	}
}

static void won(struct dial_try *try)
{
	struct dial *dial = try->dial;
	struct client_call *call = try->call;

	try->call = NULL;
	attempts_end(&dial->attempts, try->attempt, NULL, dial_now(dial));
	if (try->hedge)
		count(dial, METER_HEDGES_WON);
	drop_tries(dial, "another proxy was faster");
	dial_stop_asking(dial);
	dial_join(dial, try->proxy_id, call);
}

static void on_peer_answer(void *arg, const struct client_answer *answer)
{
	struct dial_try *try = arg;
	struct dial *dial = try->dial;

	if (answer->code == CODE(CODE_NONE)) {
		dial->reported = answer->trace &&
				 trace_report_parse(answer->trace,
					 strlen(answer->trace), &dial->report);
		won(try);
		return;
	}
	try->call = NULL;
	count(dial,
		try->from_authd ? METER_ERROR_DIRECT_DIAL : METER_ERROR_RPC);
	attempt_failed(dial, try->attempt, answer->code, answer->text);
}

static void ask_peer(
	struct dial *dial, struct dial_try *try, struct channel *channel)
{
	const struct request_fields fields = {
		.agent_id = dial->request->agent_id,
		.cluster = dial->dials->peerd->conf->cluster_name,
		.type = dial->request->type,
		.source = dial->request->source,
		.service = dial->request->service,
		.port = dial->request->port,
	};
	const struct client_dial setup = {
		.fields = &fields,
		.connection_id = dial->connection_id,
		.user = dial->request->user,
		.deadline_ms = candidates_share(dial_time_left(dial),
			candidates_untried(&dial->candidates) + 1),
		.on_answer = on_peer_answer,
		.arg = try,
	};

	try->call = client_dial(channel, &setup);
}

/* Asks the best candidate that is left; false: there is none. */
static bool ask_next(struct dial *dial, bool hedge)
{
	struct peers *peers = dial->dials->peerd->peers;
	struct dial_try *try = free_try(dial);
	struct candidate *candidate;

	while (try && (candidate = candidates_next(&dial->candidates))) {
		struct channel *channel =
			peers_channel(peers, candidate->proxy_id);

		try->dial = dial;
		try->hedge = hedge;
		try->from_authd = candidate->from_authd;
		strcpy(try->proxy_id, candidate->proxy_id);
		try->attempt = attempts_begin(&dial->attempts,
			PEERWAY__IPC__ROUTE__ROUTE_PEER, try->proxy_id,
			peers_hostname(peers, try->proxy_id), dial_now(dial));
		if (channel) {
			ask_peer(dial, try, channel);
			timer_set(dial->hedge,
				candidates_hedge_ms(&candidate->rank));
			return true;
		}
		count(dial, METER_ERROR_NOT_FOUND);
		attempts_end(&dial->attempts, try->attempt,
			"this proxy does not take part in peering",
			dial_now(dial));
	}
	return false;
}

void dial_on_hedge(void *arg)
{
	struct dial *dial = arg;

	if (dial->ask || tries_under_way(dial) != 1)
		return;
	if (ask_next(dial, true))
		count(dial, METER_HEDGES);
	else if (!dial->looked_up && dial_now(dial) - dial->started < SILENT_MS)
		timer_set(dial->hedge, SILENT_MS);
	else if (!dial->looked_up)
		look_up(dial);
}

/* Adds who holds the agent, of those not yet asked. */
static struct candidate *add_candidate(struct peerd *peerd,
	struct candidates *candidates, const char *proxy_id)
{
	if (strcmp(proxy_id, peerd->id) == 0)
		return NULL;
	return candidates_add(
		candidates, proxy_id, peers_rank(peerd->peers, proxy_id));
}

void dial_candidates(
	struct peerd *peerd, const char *agent_id, struct candidates *out)
{
	struct cache_holder holders[CANDIDATES_MAX];
	int count = peerd->cache ? cache_holders(peerd->cache, agent_id,
					   holders, CANDIDATES_MAX)
				 : 0;

	for (int i = 0; i < count; i++)
		add_candidate(peerd, out, holders[i].proxy_id);
}

/* ---- authd ---- */

static void on_looked_up(void *arg, const struct lookup_answer *answer)
{
	struct dial *dial = arg;

	dial->lookup = 0;
	if (answer->error) {
		count(dial, METER_ERROR_FETCH);
		log_debug("lookup failed: %s agent=%s", answer->error,
			dial->request->agent_id);
	}
	for (size_t i = 0; i < answer->count; i++) {
		struct candidate *candidate = add_candidate(dial->dials->peerd,
			&dial->candidates, answer->proxy_ids[i]);

		if (candidate)
			candidate->from_authd = true;
	}
	advance(dial);
}

static void look_up(struct dial *dial)
{
	dial->looked_up = true;
	dial->lookup = lookups_ask(dial->dials->peerd->lookups,
		dial->request->agent_id, on_looked_up, dial);
}

/* ---- whom to ask next ---- */

static void give_up(struct dial *dial)
{
	Peerway__Ipc__DialCode code = dial->worst;

	count(dial, METER_ERROR_UNREACHABLE);
	if (dial->attempts.count == 0)
		dial_fail(dial, CODE(OFFLINE),
			"agent is offline: no proxy holds a tunnel of it");
	else if (code == CODE(TIMED_OUT))
		dial_fail(dial, code, "no proxy has connected in time");
	else
		dial_fail(dial, code == CODE(CODE_NONE) ? CODE(OFFLINE) : code,
			"agent is offline: every proxy that holds a tunnel of "
			"it has failed");
}

void dial_on_deadline(void *arg)
{
	struct dial *dial = arg;

	if (dial->ask)
		attempts_end(&dial->attempts, dial->ask_attempt,
			"no answer in time", dial_now(dial));
	drop_tries(dial, "no answer in time");
	dial_stop_asking(dial);
	count(dial, METER_ERROR_UNREACHABLE);
	dial_fail(dial, CODE(TIMED_OUT), "no proxy has connected in time");
}

static void advance(struct dial *dial)
{
	if (!dial->request->from_peer) {
		if (ask_next(dial, false))
			return;
		if (tries_under_way(dial) || dial->lookup)
			return;
		if (!dial->looked_up) {
			look_up(dial);
			return;
		}
	}
	give_up(dial);
}

void dial_stop_asking(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;

	if (dial->ask)
		asks_cancel(peerd->switchboard->asks, dial->ask);
	if (dial->lookup)
		lookups_cancel(peerd->lookups, dial->lookup);
	dial->ask = dial->lookup = 0;
	drop_tries(dial, "given up");
}

void dial_route(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;
	const struct tunnel_entry *tunnel = tunnels_find(
		peerd->switchboard->tunnels, dial->request->agent_id);

	dial_candidates(peerd, dial->request->agent_id, &dial->candidates);
	if (tunnel)
		ask_sibling(dial, tunnel);
	else
		advance(dial);
}
