/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What peerd shows of itself on peerd.sock. Reads everyone, changes nothing.
 * The JSON is an interface of its own: keys are added, never renamed.
 */
#include "peerd/control.h"

#include <string.h>
#include <unistd.h>

#include "peerd/clock_text.h"
#include "peerd/lifecycle.h"
#include "peerd/meters.h"
#include "peerd/peers.h"
#include "peerd/routed_link.h"
#include "peerd/switchboard.h"
#include "peerd/worker_link.h"
#include "shared/ctl.h"

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

	json_object_set_new(status, "identity",
		json_pack("{s:o, s:s}", "not_after",
			time_json(peerd->identity_not_after * 1000),
			"last_error",
			routed_link_identity_error(peerd->routed)));
	json_object_set_new(status, "peers", peers_json(peerd->peers));
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

static const struct ctl_verb verbs[] = {
	{"status", answer_status},
	{"tunnels", answer_tunnels},
	{NULL, NULL},
};

void control_serve(struct peerd *peerd)
{
	ctl_serve(verbs, peerd);
}
