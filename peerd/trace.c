/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resolves a target, notes whom a dial would ask, dials, and answers with all
 * of it: see trace.h. Owns the answer while the dial is under way, and our end
 * of the pair that stands for the client.
 *
 * A newcomer's trap: a worker resolves with its own tunnels first, and so does
 * this, with all workers'. What is local to a worker is a sibling to peerd.
 */
#include "peerd/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peerd/connection_id.h"
#include "peerd/dial.h"
#include "peerd/peers.h"
#include "peerd/switchboard.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"
#include "shared/sock.h"
#include "shared/target.h"

#define MATCHES_MAX 512
#define WHY_MAX 1024

struct trace {
	struct peerd *peerd;
	struct ctl_call *call;
	json_t *answer;
	int fd; /* our end */
	int64_t started_us;
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static json_t *text_json(const char *text)
{
	json_t *json = json_string(text);

	return json ? json : json_string("?");
}

/* ---- the target ---- */

struct gathering {
	const struct target *target;
	struct target_match *matches;
	size_t count;
};

static void add_service(struct gathering *g,
	const Peerway__Record__TunnelRecord *record,
	const Peerway__Record__Service *service)
{
	struct target_match *match = &g->matches[g->count];

	if (g->count == MATCHES_MAX)
		return;
	snprintf(match->agent_id, sizeof(match->agent_id), "%s",
		record->agent_id);
	snprintf(match->agent, sizeof(match->agent), "%s", record->name);
	snprintf(match->service, sizeof(match->service), "%s", service->name);
	snprintf(match->type, sizeof(match->type), "%s", service->type);
	match->port = (uint16_t)service->port;
	g->count++;
}

static void add_tunnel(void *arg, const struct tunnel_entry *entry)
{
	struct gathering *g = arg;
	const Peerway__Record__TunnelRecord *record = entry->record;

	if (g->target->agent_id[0]
			? strcmp(g->target->agent_id, record->agent_id)
			: strcmp(g->target->agent, record->name))
		return;
	for (size_t i = 0; i < record->n_services; i++)
		add_service(g, record, record->services[i]);
}

/* This host's tunnels, then what the cache has of other agents; *own_out of
 * them are the former. */
static size_t gather(struct peerd *peerd, const struct target *target,
	struct target_match *matches, size_t *own_out)
{
	struct gathering g = {.target = target, .matches = matches};
	struct target_match *cached = xcalloc(MATCHES_MAX, sizeof(*cached));
	int count = -1;

	tunnels_each(peerd->switchboard->tunnels, add_tunnel, &g);
	*own_out = g.count;
	if (peerd->cache)
		count = cache_match(peerd->cache, target, cached, MATCHES_MAX);
	if (count > 0)
		g.count = target_unite(
			matches, g.count, MATCHES_MAX, cached, (size_t)count);
	free(cached);
	return g.count;
}

static json_t *resolved_json(
	struct peerd *peerd, const struct target_match *match, bool own)
{
	json_t *json = json_pack("{s:o, s:o, s:o, s:o, s:i, s:s}", "agent",
		text_json(match->agent), "agent_id", text_json(match->agent_id),
		"service", text_json(match->service), "type",
		text_json(match->type), "port", (int)match->port, "known_from",
		own ? "tunnel" : "cache");
	struct cache_meta meta;

	if (!own && cache_meta(peerd->cache, &meta) >= 0)
		json_object_set_new(json, "cache_revision",
			json_integer((json_int_t)meta.revision));
	return json;
}

/* False, and why, when the target is not one service. */
static bool resolve(struct trace *trace, const char *text,
	struct target_match *out, char why[WHY_MAX])
{
	struct peerd *peerd = trace->peerd;
	struct target_match *matches = xcalloc(MATCHES_MAX, sizeof(*matches));
	struct target target;
	const char *reason;
	size_t own, count, index;
	bool found = false;

	if (target_parse(text, peerd->conf->cluster_name, &target, &reason)) {
		snprintf(why, WHY_MAX, "%s", reason);
	} else {
		count = gather(peerd, &target, matches, &own);
		found = target_choose(&target, matches, count, &index, why,
				WHY_MAX) == TARGET_ONE;
	}
	if (found) {
		*out = matches[index];
		json_object_set_new(trace->answer, "resolved",
			resolved_json(peerd, out, index < own));
	}
	free(matches);
	return found;
}

/* ---- whom it asks ---- */

static void note_candidates(struct trace *trace, const char *agent_id)
{
	struct peerd *peerd = trace->peerd;
	struct candidates candidates = {0};
	const struct candidate *candidate;
	char reason[CANDIDATE_REASON_SIZE];
	json_t *list = json_array();

	dial_candidates(peerd, agent_id, &candidates);
	while ((candidate = candidates_next(&candidates))) {
		candidates_reason(candidate, reason);
		json_array_append_new(
			list, json_pack("{s:s, s:o, s:s}", "proxy_id",
				      candidate->proxy_id, "hostname",
				      text_json(peers_hostname(peerd->peers,
					      candidate->proxy_id)),
				      "reason", reason));
	}
	json_object_set_new(trace->answer, "candidates", list);
}

/* ---- what came of it ---- */

static const char *route_name(Peerway__Ipc__Route route)
{
	return route == PEERWAY__IPC__ROUTE__ROUTE_PEER ? "peer" : "sibling";
}

static json_t *attempts_json(
	struct trace *trace, const struct dial_outcome *outcome)
{
	json_t *list = json_array();

	for (size_t i = 0; i < outcome->attempt_count; i++) {
		const Peerway__Ipc__Attempt *attempt = outcome->attempts[i];

		json_array_append_new(list,
			json_pack("{s:s, s:o, s:o, s:i, s:o}", "route",
				route_name(attempt->route), "proxy_id",
				text_json(attempt->proxy_id), "hostname",
				text_json(peers_hostname(trace->peerd->peers,
					attempt->proxy_id)),
				"ms", (int)attempt->ms, "error",
				attempt->error[0] ? text_json(attempt->error)
						  : json_null()));
	}
	return list;
}

static void note_way(struct trace *trace, const struct dial_outcome *outcome)
{
	json_t *answer = trace->answer;

	json_object_set_new(
		answer, "route", json_string(route_name(outcome->route)));
	json_object_set_new(answer, "proxy_id", text_json(outcome->proxy_id));
	json_object_set_new(answer, "hostname",
		text_json(peers_hostname(
			trace->peerd->peers, outcome->proxy_id)));
	if (outcome->route == PEERWAY__IPC__ROUTE__ROUTE_SIBLING)
		json_object_set_new(
			answer, "worker", json_integer(outcome->worker));
	if (!outcome->report)
		return;
	json_object_set_new(
		answer, "worker", json_integer(outcome->report->worker));
	json_object_set_new(answer, "worker_ms",
		json_real((double)outcome->report->us / 1000));
}

/* Ends the trace. error NULL: it went well. */
static void finish(struct trace *trace, const char *error)
{
	json_object_set_new(trace->answer, "ok", json_boolean(!error));
	json_object_set_new(
		trace->answer, "error", error ? text_json(error) : json_null());
	json_object_set_new(trace->answer, "ms",
		json_real((double)(now_us() - trace->started_us) / 1000));
	ctl_reply(trace->call, trace->answer);
	if (trace->fd >= 0)
		close(trace->fd);
	loop_free_later(trace->peerd->loop, free, trace);
}

static void on_outcome(void *arg, const struct dial_outcome *outcome)
{
	struct trace *trace = arg;

	json_object_set_new(
		trace->answer, "attempts", attempts_json(trace, outcome));
	if (!outcome->message)
		note_way(trace, outcome);
	finish(trace, outcome->message);
}

/* ---- the dial ---- */

static void dial(struct trace *trace, const struct target_match *match)
{
	Peerway__Ipc__Dial request = PEERWAY__IPC__DIAL__INIT;
	struct target_match copy = *match;
	uint8_t connection_id[CONNECTION_ID_SIZE];
	char hex[2 * CONNECTION_ID_SIZE + 1];
	int pair[2];

	if (sock_pair(pair) < 0) {
		finish(trace, "this proxy is out of descriptors");
		return;
	}
	trace->fd = pair[0];
	connection_id_make(connection_id);
	connection_id_format(connection_id, hex);
	json_object_set_new(trace->answer, "connection_id", json_string(hex));
	request.connection_id.data = connection_id;
	request.connection_id.len = CONNECTION_ID_SIZE;
	request.agent_id = copy.agent_id;
	request.service = copy.service;
	request.type = copy.type;
	request.port = copy.port;
	request.source = (char *)"127.0.0.1:0";
	dials_begin_own(trace->peerd->switchboard->dials, &request, pair[1],
		on_outcome, trace);
}

void trace_start(struct peerd *peerd, struct ctl_call *call, const char *target)
{
	struct trace *trace = xcalloc(1, sizeof(*trace));
	struct target_match match;
	char why[WHY_MAX];

	trace->peerd = peerd;
	trace->call = call;
	trace->fd = -1;
	trace->started_us = now_us();
	trace->answer = json_pack("{s:o, s:n, s:[], s:[]}", "target",
		text_json(target), "resolved", "candidates", "attempts");
	if (!resolve(trace, target, &match, why)) {
		finish(trace, why);
		return;
	}
	note_candidates(trace, match.agent_id);
	dial(trace, &match);
}
