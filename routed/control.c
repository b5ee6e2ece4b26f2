/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs and their JSON, which is a documented interface: fields are added,
 * never changed. Owns nothing.
 *
 * What is easily got wrong: an agent has a record per proxy; ls shows it once,
 * with the proxies that hold it. Records come ordered by agent, so the agent
 * being built is the last one.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "routed/control.h"
#include "routed/routed.h"
#include "shared/alloc.h"

#define PROXIES_MAX 4096

/* RFC 3339, UTC. */
static json_t *time_json(int64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	char text[32];
	struct tm tm;

	if (unix_ms <= 0)
		return json_null();
	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

/* Text that came from elsewhere and may not be UTF-8. */
static json_t *text_json(const char *text)
{
	json_t *string = json_string(text);

	return string ? string : json_string("?");
}

/* ---- status ---- */

static json_t *lease_json(const struct routed *routed)
{
	const struct session_lease *lease = session_lease(routed->session);
	const char *state = "none";

	if (lease->id && session_state(routed->session) == SESSION_OPEN)
		state = lease->previous ? "replacing" : "held";
	else if (lease->id)
		state = "not kept alive";
	return json_pack("{s:I, s:I, s:s}", "id", (json_int_t)lease->id,
		"epoch", (json_int_t)lease->epoch, "state", state);
}

static json_t *cache_json(const struct routed *routed)
{
	int64_t age = mirror_age_ms(routed->mirror);
	struct cache_meta meta;

	mirror_position(routed->mirror, &meta);
	return json_pack("{s:s, s:s, s:I, s:o}", "path",
		mirror_path(routed->mirror), "store_id", meta.store_id,
		"revision", (json_int_t)meta.revision, "age_ms",
		age < 0 ? json_null() : json_integer(age));
}

/* What is wrong now; null: nothing. */
static json_t *error_json(const struct routed *routed)
{
	const char *error = membership_last_error(routed->membership);

	if (!error[0])
		error = mirror_last_error(routed->mirror);
	if (!error[0] && session_state(routed->session) != SESSION_OPEN)
		error = session_last_error(routed->session);
	return error[0] ? text_json(error) : json_null();
}

static void handle_status(struct ctl_call *call, void *arg, json_t *args)
{
	const struct routed *routed = arg;
	bool open = session_state(routed->session) == SESSION_OPEN;
	int64_t not_after_ms = membership_not_after(routed->membership) * 1000;

	ctl_reply(call,
		json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:o, s:o, s:o, s:o,"
			  " s:{s:o, s:s?}, s:I, s:I, s:i, s:b, s:b}",
			"proxy_id", routed->proxy_id, "cluster",
			routed->conf->cluster_name, "version", PEERWAY_VERSION,
			"pid", (int)getpid(), "auth_server",
			session_address(routed->session), "auth_state",
			open ? "connected" : "unreachable", "since",
			time_json(session_since_ms(routed->session)),
			"last_error", error_json(routed), "lease",
			lease_json(routed), "cache", cache_json(routed),
			"identity", "not_after", time_json(not_after_ms),
			"directory", membership_directory(routed->membership),
			"tunnels_published",
			(json_int_t)publish_published(routed->publish),
			"tunnels_pending",
			(json_int_t)publish_pending(routed->publish), "workers",
			(int)links_workers(routed->links), "draining",
			routed->draining || links_are_draining(routed->links),
			"rebalancing", mover_is_active(routed->mover)));
}

/* ---- proxies ---- */

static json_t *texts_json(char *const *texts, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, text_json(texts[i]));
	return array;
}

static json_t *strategy_json(const Peerway__Record__TunnelStrategy *strategy)
{
	if (!strategy)
		return json_null();
	if (strategy->type != PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING)
		return json_pack("{s:s}", "type", "agent_mesh");
	return json_pack("{s:s, s:I}", "type", "proxy_peering",
		"agent_connection_count",
		(json_int_t)strategy->agent_connection_count);
}

static json_t *proxy_json(const Peerway__Record__ProxyRecord *proxy)
{
	bool draining = proxy->state == PEERWAY__RECORD__PROXY_STATE__DRAINING;
	json_t *json = json_object();

	json_object_set_new(json, "id", text_json(proxy->id));
	json_object_set_new(json, "hostname", text_json(proxy->hostname));
	json_object_set_new(json, "peer_addr", text_json(proxy->peer_addr));
	json_object_set_new(json, "public_addr",
		texts_json(proxy->public_addr, proxy->n_public_addr));
	json_object_set_new(json, "tunnel_addr",
		texts_json(proxy->tunnel_addr, proxy->n_tunnel_addr));
	json_object_set_new(json, "version", text_json(proxy->version));
	json_object_set_new(
		json, "state", json_string(draining ? "draining" : "serving"));
	json_object_set_new(json, "strategy", strategy_json(proxy->strategy));
	json_object_set_new(json, "group", text_json(proxy->group));
	json_object_set_new(json, "generation",
		json_integer((json_int_t)proxy->generation));
	json_object_set_new(json, "region", text_json(proxy->region));
	json_object_set_new(json, "zone", text_json(proxy->zone));
	json_object_set_new(
		json, "epoch", json_integer((json_int_t)proxy->epoch));
	json_object_set_new(json, "workers", json_integer(proxy->workers));
	return json;
}

/* All proxies' records as JSON, -EIO when the cache cannot be read. */
static int collect_proxies(struct routed *routed, json_t *array)
{
	struct cache *cache = mirror_cache(routed->mirror);
	Peerway__Record__ProxyRecord **records =
		xcalloc(PROXIES_MAX, sizeof(*records));
	int count = cache ? cache_proxies(cache, records, PROXIES_MAX) : -1;

	for (int i = 0; i < count; i++) {
		json_array_append_new(array, proxy_json(records[i]));
		peerway__record__proxy_record__free_unpacked(records[i], NULL);
	}
	free(records);
	return count;
}

static void fail_unread(struct ctl_call *call, struct routed *routed)
{
	ctl_fail(call, "the cache cannot be read; see routed's log");
	mirror_suspect(routed->mirror);
}

static void handle_proxies(struct ctl_call *call, void *arg, json_t *args)
{
	json_t *array = json_array();

	if (collect_proxies(arg, array) < 0) {
		json_decref(array);
		fail_unread(call, arg);
		return;
	}
	ctl_reply(call, json_pack("{s:o}", "proxies", array));
}

/* ---- agents ---- */

struct listing {
	json_t *agents;
	json_t *hostnames;  /* of proxies, by id */
	json_t *last;	    /* in agents; NULL: none yet */
	const char *wanted; /* name or uuid; NULL: all */
};

static json_t *labels_json(const Peerway__Record__TunnelRecord *record)
{
	json_t *labels = json_object();

	for (size_t i = 0; i < record->n_labels; i++)
		json_object_set_new(labels, record->labels[i]->name,
			text_json(record->labels[i]->value));
	return labels;
}

static json_t *services_json(const Peerway__Record__TunnelRecord *record)
{
	json_t *services = json_array();

	for (size_t i = 0; i < record->n_services; i++)
		json_array_append_new(services,
			json_pack("{s:s, s:s, s:I}", "name",
				record->services[i]->name, "type",
				record->services[i]->type, "port",
				(json_int_t)record->services[i]->port));
	return services;
}

static json_t *agent_json(const Peerway__Record__TunnelRecord *record)
{
	return json_pack("{s:s, s:s, s:o, s:o, s:[]}", "agent_id",
		record->agent_id, "name", record->name, "labels",
		labels_json(record), "services", services_json(record),
		"proxies");
}

static bool is_last(const struct listing *listing, const char *agent_id)
{
	return listing->last && strcmp(json_string_value(json_object_get(
					       listing->last, "agent_id")),
					agent_id) == 0;
}

static int add_tunnel(void *arg, const Peerway__Record__TunnelRecord *record)
{
	struct listing *listing = arg;
	const char *hostname = json_string_value(
		json_object_get(listing->hostnames, record->proxy_id));

	if (listing->wanted && strcmp(listing->wanted, record->name) != 0 &&
		strcmp(listing->wanted, record->agent_id) != 0)
		return 0;
	if (!is_last(listing, record->agent_id)) {
		listing->last = agent_json(record);
		json_array_append_new(listing->agents, listing->last);
	}
	json_array_append_new(json_object_get(listing->last, "proxies"),
		json_pack("{s:s, s:s, s:o}", "id", record->proxy_id, "hostname",
			hostname ? hostname : "", "since",
			time_json((int64_t)record->since_ms)));
	return 0;
}

static json_t *hostnames_of(json_t *proxies)
{
	json_t *hostnames = json_object();
	json_t *proxy;
	size_t i;

	json_array_foreach(proxies, i, proxy) json_object_set(hostnames,
		json_string_value(json_object_get(proxy, "id")),
		json_object_get(proxy, "hostname"));
	return hostnames;
}

static void list_agents(
	struct ctl_call *call, struct routed *routed, const char *wanted)
{
	struct cache *cache = mirror_cache(routed->mirror);
	struct listing listing = {.agents = json_array(), .wanted = wanted};
	json_t *proxies = json_array();
	int count = collect_proxies(routed, proxies);

	listing.hostnames = hostnames_of(proxies);
	if (count >= 0)
		count = cache_tunnels_all(cache, add_tunnel, &listing);
	if (count < 0) {
		json_decref(listing.agents);
		fail_unread(call, routed);
	} else {
		ctl_reply(call, json_pack("{s:o}", "agents", listing.agents));
	}
	json_decref(listing.hostnames);
	json_decref(proxies);
}

static void handle_ls(struct ctl_call *call, void *arg, json_t *args)
{
	list_agents(call, arg, NULL);
}

static void handle_routes(struct ctl_call *call, void *arg, json_t *args)
{
	const char *agent = json_string_value(json_object_get(args, "agent"));

	if (agent)
		list_agents(call, arg, agent);
	else
		ctl_fail(
			call, "routes: which agent? {\"agent\": NAME or UUID}");
}

static void handle_validate(struct ctl_call *call, void *arg, json_t *args)
{
	const struct routed *routed = arg;

	validate_start(routed->validate, call);
}

const struct ctl_verb control_verbs[] = {
	{"status", handle_status},
	{"ls", handle_ls},
	{"routes", handle_routes},
	{"proxies", handle_proxies},
	{"validate", handle_validate},
	{NULL, NULL},
};
