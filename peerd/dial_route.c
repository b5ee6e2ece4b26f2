/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom a dial asks, one after the other: a sibling that has the tunnel, the
 * peers that the cache names, and, once, authd for others. Talks to ask.c,
 * client.c and routed_link.c.
 *
 * A newcomer's trap: at most one of ask, call and lookup is pending, and each
 * callback first clears its own field. Any of them may end the dial, after
 * which nothing here may touch it.
 */
#include <fcntl.h>
#include <string.h>

#include "peerd/dial_private.h"
#include "peerd/peers.h"
#include "peerd/refusal.h"
#include "peerd/routed_link.h"
#include "peerd/switchboard.h"
#include "shared/log.h"

#define LOOKUP_MS 3000

static void ask_next(struct dial *dial);

/* An attempt has failed: go on, or give up. */
static void attempt_failed(
	struct dial *dial, Peerway__Ipc__DialCode code, const char *message)
{
	attempts_end(&dial->attempts, message, dial_now(dial));
	if (!refusal_may_retry(code)) {
		dial_fail(dial, code, message);
		return;
	}
	if (code != CODE(OFFLINE))
		dial->worst = code;
	ask_next(dial);
}

/* ---- a sibling ---- */

static void on_sibling_answer(void *arg, const struct ask_answer *answer)
{
	struct dial *dial = arg;

	dial->ask = 0;
	if (answer->code == CODE(CODE_NONE))
		dial_taken(dial, answer->worker);
	else
		attempt_failed(dial, answer->code, answer->message);
}

static void ask_sibling(struct dial *dial, const struct tunnel_entry *tunnel)
{
	struct peerd *peerd = dial->dials->peerd;
	Peerway__Ipc__Dial ask = *dial->request;
	int copy = fcntl(dial->fd, F_DUPFD_CLOEXEC, 0);

	attempts_begin(&dial->attempts, PEERWAY__IPC__ROUTE__ROUTE_SIBLING,
		peerd->id, dial_now(dial));
	if (copy < 0) {
		attempt_failed(dial, CODE(INTERNAL),
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
		attempt_failed(dial, CODE(OFFLINE),
			"the worker that held the tunnel has gone");
}

/* ---- a peer ---- */

static void on_peer_answer(void *arg, const struct client_answer *answer)
{
	struct dial *dial = arg;
	struct client_call *call = dial->call;

	dial->call = NULL;
	dial->reported =
		answer->trace && trace_report_parse(answer->trace,
					 strlen(answer->trace), &dial->report);
	if (answer->code == CODE(CODE_NONE))
		dial_join(dial, call);
	else
		attempt_failed(dial, answer->code, answer->text);
}

static void ask_peer(struct dial *dial, struct channel *channel)
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
		.arg = dial,
	};

	dial->call = client_dial(channel, &setup);
}

/* Adds who holds the agent, of those not yet asked. */
static void add_candidate(struct peerd *peerd, struct candidates *candidates,
	const char *proxy_id)
{
	if (strcmp(proxy_id, peerd->id) != 0)
		candidates_add(candidates, proxy_id,
			peers_rank(peerd->peers, proxy_id));
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

static void on_looked_up(void *arg, const Peerway__Ipc__LookupReply *reply)
{
	struct dial *dial = arg;

	dial->lookup = 0;
	if (reply->error[0]) {
		log_debug("lookup failed: %s agent=%s", reply->error,
			dial->request->agent_id);
	} else {
		for (size_t i = 0; i < reply->n_tunnels; i++)
			add_candidate(dial->dials->peerd, &dial->candidates,
				reply->tunnels[i]->proxy_id);
	}
	ask_next(dial);
}

static bool look_up(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;
	int64_t limit = dial_time_left(dial) / 2;

	dial->looked_up = true;
	if (limit > LOOKUP_MS)
		limit = LOOKUP_MS;
	dial->lookup = routed_link_lookup(peerd->routed,
		dial->request->agent_id, (uint32_t)limit, on_looked_up, dial);
	return dial->lookup != 0;
}

/* ---- whom to ask next ---- */

static void give_up(struct dial *dial)
{
	Peerway__Ipc__DialCode code = dial->worst;

	if (dial_time_left(dial) <= 0)
		dial_fail(dial, CODE(TIMED_OUT), "dial timeout");
	else if (dial->attempts.count == 0)
		dial_fail(dial, CODE(OFFLINE),
			"agent is offline: no proxy holds a tunnel of it");
	else
		dial_fail(dial, code == CODE(CODE_NONE) ? CODE(OFFLINE) : code,
			"agent is offline: every proxy that holds a tunnel of "
			"it has failed");
}

static void ask_next(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;

	while (dial_time_left(dial) > 0 && !dial->request->from_peer) {
		struct candidate *candidate =
			candidates_next(&dial->candidates);
		struct channel *channel;

		if (!candidate) {
			if (!dial->looked_up && look_up(dial))
				return;
			break;
		}
		strcpy(dial->proxy_id, candidate->proxy_id);
		attempts_begin(&dial->attempts, PEERWAY__IPC__ROUTE__ROUTE_PEER,
			dial->proxy_id, dial_now(dial));
		channel = peers_channel(peerd->peers, dial->proxy_id);
		if (channel) {
			ask_peer(dial, channel);
			return;
		}
		attempts_end(&dial->attempts,
			"this proxy does not take part in peering",
			dial_now(dial));
	}
	give_up(dial);
}

void dial_stop_asking(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;

	if (dial->ask)
		asks_cancel(peerd->switchboard->asks, dial->ask);
	if (dial->lookup)
		routed_link_cancel(peerd->routed, dial->lookup);
	if (dial->call)
		client_cancel(dial->call);
	dial->ask = dial->lookup = 0;
	dial->call = NULL;
}

void dial_route(struct dial *dial)
{
	const struct tunnel_entry *tunnel =
		tunnels_find(dial->dials->peerd->switchboard->tunnels,
			dial->request->agent_id);

	dial_candidates(
		dial->dials->peerd, dial->request->agent_id, &dial->candidates);
	if (tunnel)
		ask_sibling(dial, tunnel);
	else
		ask_next(dial);
}
