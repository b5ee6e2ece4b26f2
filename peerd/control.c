/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What peerd shows of itself on peerd.sock, and to other proxies. Reads
 * everyone, changes nothing.
 * The JSON is an interface of its own: keys are added, never renamed.
 */
#include "peerd/control.h"

#include <string.h>
#include <unistd.h>

#include "peerd/clock_text.h"
#include "peerd/inquiry.h"
#include "peerd/lifecycle.h"
#include "peerd/meters.h"
#include "peerd/peers.h"
#include "peerd/routed_link.h"
#include "peerd/switchboard.h"
#include "peerd/trace.h"
#include "peerd/worker_link.h"

static json_t *time_json(int64_t unix_ms)
{
	char text[CLOCK_TEXT_SIZE];

	if (!unix_ms)
		return json_null();
	clock_text(unix_ms, text);
	return json_string(text);
}

struct worker_list {
	struct peerd *peerd;
	json_t *list;
};

static void add_worker(
	void *arg, uint64_t link, const Peerway__Ipc__Hello *hello)
{
	struct worker_list *workers = arg;

	json_array_append_new(workers->list,
		json_pack("{s:i, s:i, s:i}", "worker", (int)hello->worker,
			"pid", (int)hello->pid, "tunnels",
			(int)switchboard_tunnel_count(
				workers->peerd->switchboard, link)));
}

static json_t *workers_json(struct peerd *peerd)
{
	struct worker_list workers = {.peerd = peerd, .list = json_array()};

	worker_links_each(peerd->workers, add_worker, &workers);
	return workers.list;
}

static json_t *cache_json(struct peerd *peerd)
{
	struct cache_meta meta;

	if (!peerd->cache || cache_meta(peerd->cache, &meta) < 0)
		return json_null();
	return json_pack("{s:s, s:I, s:s}", "path", peerd->cache_path,
		"revision", (json_int_t)meta.revision, "store_id",
		meta.store_id);
}

static json_int_t meter(struct peerd *peerd, enum meter index)
{
	return (json_int_t)metric_get(&peerd->metrics, index);
}

static json_t *dials_json(struct peerd *peerd)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "sibling",
		meter(peerd, METER_DIALS_SIBLING), "peer",
		meter(peerd, METER_DIALS_PEER), "failed",
		meter(peerd, METER_DIALS_FAILED), "pending",
		meter(peerd, METER_DIALS_PENDING));
}

static void answer_status(struct ctl_call *call, void *arg, json_t *args)
{
	struct peerd *peerd = arg;
	const char *listening = lifecycle_listening(peerd->lifecycle);
	int64_t uptime = loop_now(peerd->loop) - peerd->started;
	json_t *status = json_pack(
		"{s:s, s:s, s:s, s:i, s:I, s:s?, s:s, s:b, s:b}", "proxy_id",
		peerd->id, "cluster", peerd->conf->cluster_name, "version",
		PEERWAY_VERSION, "pid", (int)getpid(), "uptime_s",
		(json_int_t)(uptime / 1000), "listening", listening, "strategy",
		peerd->peering ? "proxy_peering" : "agent_mesh", "draining",
		lifecycle_is_draining(peerd->lifecycle), "routed",
		routed_link_is_up(peerd->routed));

	json_object_set_new(status, "time", time_json(clock_text_now()));
	json_object_set_new(status, "identity",
		json_pack("{s:o, s:s}", "not_after",
			time_json(peerd->identity_not_after * 1000),
			"last_error",
			routed_link_identity_error(peerd->routed)));
	json_object_set_new(status, "peers", peers_json(peerd->peers));
	json_object_set_new(status, "duplicate_peer_addrs",
		peers_duplicates_json(peerd->peers));
	json_object_set_new(status, "workers", workers_json(peerd));
	json_object_set_new(status, "dials", dials_json(peerd));
	json_object_set_new(status, "streams",
		json_integer(meter(peerd, METER_STREAMS_CALLER) +
			     meter(peerd, METER_STREAMS_CALLEE)));
	json_object_set_new(status, "bytes_held",
		json_integer(meter(peerd, METER_BYTES_HELD)));
	json_object_set_new(status, "cache", cache_json(peerd));
	ctl_reply(call, status);
}

static json_t *services_json(const Peerway__Record__TunnelRecord *record)
{
	json_t *services = json_array();

	for (size_t i = 0; i < record->n_services; i++) {
		const Peerway__Record__Service *service = record->services[i];

		json_array_append_new(
			services, json_pack("{s:s, s:s, s:i}", "name",
					  service->name, "type", service->type,
					  "port", (int)service->port));
	}
	return services;
}

static void add_tunnel(void *arg, const struct tunnel_entry *entry)
{
	struct worker_list *tunnels = arg;
	const Peerway__Record__TunnelRecord *record = entry->record;
	uint32_t worker =
		worker_links_number(tunnels->peerd->workers, entry->link);

	json_array_append_new(tunnels->list,
		json_pack("{s:s, s:s, s:i, s:o, s:s, s:o}", "agent_id",
			record->agent_id, "name", record->name, "worker",
			(int)worker, "since",
			time_json((int64_t)record->since_ms), "remote_addr",
			entry->remote_addr, "services", services_json(record)));
}

static void answer_tunnels(struct ctl_call *call, void *arg, json_t *args)
{
	struct peerd *peerd = arg;
	struct worker_list tunnels = {.peerd = peerd, .list = json_array()};

	tunnels_each(peerd->switchboard->tunnels, add_tunnel, &tunnels);
	ctl_reply(call, json_pack("{s:o}", "tunnels", tunnels.list));
}

static void answer_ping(struct ctl_call *call, void *arg, json_t *args)
{
	struct peerd *peerd = arg;
	const char *peer = json_string_value(json_object_get(args, "peer"));

	if (peer)
		inquiries_ping(peerd->inquiries, call, peer);
	else
		ctl_fail(call, "ping: which peer? {\"peer\": NAME or UUID}");
}

static void answer_ask(struct ctl_call *call, void *arg, json_t *args)
{
	struct peerd *peerd = arg;
	const char *peer = NULL;
	const char *verb = NULL;
	json_t *inner = NULL;

	if (json_unpack(args, "{s:s, s:s, s?o}", "peer", &peer, "verb", &verb,
		    "args", &inner) < 0)
		ctl_fail(call, "ask: peer or verb is missing");
	else
		inquiries_ask(peerd->inquiries, call, peer, verb, inner);
}

static void answer_trace(struct ctl_call *call, void *arg, json_t *args)
{
	const char *target = json_string_value(json_object_get(args, "target"));

	if (target)
		trace_start(arg, call, target);
	else
		ctl_fail(call, "trace: which target? {\"target\": TEXT}");
}

static const struct ctl_verb verbs[] = {
	{"status", answer_status},
	{"tunnels", answer_tunnels},
	{"ping", answer_ping},
	{"ask", answer_ask},
	{"trace", answer_trace},
	{NULL, NULL},
};

const struct ctl_verb control_mesh_verbs[] = {
	{"status", answer_status},
	{"tunnels", answer_tunnels},
	{NULL, NULL},
};

void control_serve(struct peerd *peerd)
{
	ctl_serve(verbs, peerd);
}
