/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The discovery JSON: proxies write it, agents and peerctl read it. The answer
 * to /webapi/find is the same document with the keys of the reference added
 * (`proxy.ssh...`, `server_version`), so that its programs find what they look
 * for; reading them back is not needed.
 *
 * What one gets wrong: absent is not zero. A proxy that does not say a strategy
 * runs agent_mesh, which never closes a tunnel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/discovery.h"
#include "shared/field.h"
#include "shared/identity.h"
#include "shared/sock.h"

/* 3024 and 3080 stand in for a missing port where one dials. */
#define ANY_PORT 3080

static const char *const strategies[] = {
	[DISCOVERY_AGENT_MESH] = "agent_mesh",
	[DISCOVERY_PROXY_PEERING] = "proxy_peering",
};

static json_t *addrs_json(
	const char addrs[DISCOVERY_ADDRS_MAX][300], unsigned count)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, json_string(addrs[i]));
	return list;
}

static json_t *proxy_json(const struct discovery_proxy *proxy)
{
	return json_pack("{s:s, s:o, s:o, s:s, s:s, s:I, s:s, s:I, s:s, s:s}",
		"id", proxy->id, "public_addr",
		addrs_json(proxy->public_addr, proxy->public_addr_count),
		"tunnel_addr",
		addrs_json(proxy->tunnel_addr, proxy->tunnel_addr_count),
		"state", proxy->draining ? "draining" : "serving", "strategy",
		strategies[proxy->strategy], "agent_connection_count",
		(json_int_t)proxy->agent_connection_count, "group",
		proxy->group, "generation", (json_int_t)proxy->generation,
		"region", proxy->region, "zone", proxy->zone);
}

static const struct discovery_proxy *find_self(
	const struct discovery *discovery)
{
	for (size_t i = 0; i < discovery->proxy_count; i++)
		if (strcmp(discovery->proxies[i].id, discovery->self_id) == 0)
			return &discovery->proxies[i];
	return NULL;
}

/* The keys by which the reference's programs know a proxy. */
static void add_reference_keys(
	json_t *document, const struct discovery *discovery)
{
	const struct discovery_proxy *self = find_self(discovery);
	json_t *ssh = json_object();

	if (self && self->public_addr_count)
		json_object_set_new(
			ssh, "public_addr", json_string(self->public_addr[0]));
	if (self && self->tunnel_addr_count)
		json_object_set_new(ssh, "ssh_tunnel_public_addr",
			json_string(self->tunnel_addr[0]));
	json_object_set_new(
		document, "server_version", json_string(PEERWAY_VERSION));
	json_object_set_new(document, "proxy",
		json_pack("{s:o, s:b}", "ssh", ssh, "tls_routing_enabled", 1));
	json_object_set_new(
		document, "self_id", json_string(discovery->self_id));
}

char *discovery_to_json(const struct discovery *discovery, bool find)
{
	json_t *proxies = json_array();
	json_t *document;
	char *text;

	for (size_t i = 0; i < discovery->proxy_count; i++)
		json_array_append_new(
			proxies, proxy_json(&discovery->proxies[i]));
	document = json_pack("{s:s, s:I, s:I, s:o}", "cluster_name",
		discovery->cluster_name, "keep_alive_interval_ms",
		(json_int_t)discovery->keep_alive_interval_ms,
		"keep_alive_count_max",
		(json_int_t)discovery->keep_alive_count_max, "proxies",
		proxies);
	if (discovery->host_ca) {
		json_object_set_new(
			document, "host_ca", json_string(discovery->host_ca));
		json_object_set_new(document, "host_ca_id",
			json_string(discovery->host_ca_id));
		json_object_set_new(document, "renew_spread_ms",
			json_integer(discovery->renew_spread_ms));
	}
	if (discovery->revision) {
		json_object_set_new(
			document, "store_id", json_string(discovery->store_id));
		json_object_set_new(document, "revision",
			json_integer((json_int_t)discovery->revision));
	}
	if (find)
		add_reference_keys(document, discovery);
	text = json_dumps(document, JSON_COMPACT);
	json_decref(document);
	return text;
}

static int read_addrs(const struct field *at, const char *key,
	char addrs[DISCOVERY_ADDRS_MAX][300], unsigned *count_out)
{
	json_t *list, *value;
	size_t i;
	int ret = field_array(at, key, DISCOVERY_ADDRS_MAX, &list);

	json_array_foreach(list, i, value)
	{
		char name[32], host[300];
		uint16_t port;

		snprintf(name, sizeof(name), "%s[%zu]", key, i);
		ret = field_value(at, name, value, addrs[i], 300);
		if (ret == 0 && sock_split(addrs[i], ANY_PORT, host,
					sizeof(host), &port) < 0)
			ret = field_fail(at, name, "is not host:port");
		if (ret < 0)
			return ret;
		*count_out = i + 1;
	}
	return ret;
}

static int read_state(const struct field *at, struct discovery_proxy *out)
{
	char text[32] = "serving";
	int ret = field_text(at, "state", false, text, sizeof(text));

	if (ret < 0)
		return ret;
	out->draining = strcmp(text, "draining") == 0;
	if (!out->draining && strcmp(text, "serving") != 0)
		return field_fail(
			at, "state", "is neither serving nor draining");
	return 0;
}

static int read_strategy(const struct field *at, struct discovery_proxy *out)
{
	char text[32] = "agent_mesh";
	uint64_t count = 1;
	int ret = field_text(at, "strategy", false, text, sizeof(text));

	if (ret < 0)
		return ret;
	if (strcmp(text, strategies[DISCOVERY_PROXY_PEERING]) == 0)
		out->strategy = DISCOVERY_PROXY_PEERING;
	else if (strcmp(text, strategies[DISCOVERY_AGENT_MESH]) != 0)
		return field_fail(at, "strategy",
			"is neither agent_mesh nor proxy_peering");
	ret = field_number(
		at, "agent_connection_count", false, UINT32_MAX, &count);
	out->agent_connection_count = count;
	return ret;
}

static int read_proxy(const struct field *at, struct discovery_proxy *out)
{
	int ret = field_text(at, "id", true, out->id, sizeof(out->id));

	if (ret == 0 && !identity_uuid_is_valid(out->id))
		ret = field_fail(at, "id", "is not a uuid");
	if (ret == 0)
		ret = read_addrs(at, "public_addr", out->public_addr,
			&out->public_addr_count);
	if (ret == 0)
		ret = read_addrs(at, "tunnel_addr", out->tunnel_addr,
			&out->tunnel_addr_count);
	if (ret == 0)
		ret = read_state(at, out);
	if (ret == 0)
		ret = read_strategy(at, out);
	if (ret == 0)
		ret = field_text(
			at, "group", false, out->group, sizeof(out->group));
	if (ret == 0)
		ret = field_number(
			at, "generation", false, INT64_MAX, &out->generation);
	if (ret == 0)
		ret = field_text(
			at, "region", false, out->region, sizeof(out->region));
	if (ret == 0)
		ret = field_text(
			at, "zone", false, out->zone, sizeof(out->zone));
	return ret;
}

static int read_proxies(const struct field *top, struct discovery *out)
{
	json_t *list, *value;
	size_t i;
	int ret = field_array(top, "proxies", DISCOVERY_PROXIES_MAX, &list);

	if (ret < 0 || !list)
		return ret;
	out->proxies =
		xcalloc(json_array_size(list) + 1, sizeof(out->proxies[0]));
	json_array_foreach(list, i, value)
	{
		char place[32];
		struct field at = {value, place, top->error};

		snprintf(place, sizeof(place), "proxies[%zu]", i);
		if (!json_is_object(value))
			return field_fail(top, place, "is not an object");
		strcat(place, ".");
		ret = read_proxy(&at, &out->proxies[i]);
		if (ret < 0)
			return ret;
		out->proxy_count++;
	}
	return 0;
}

/* PEM is longer than a field is, and has line ends. */
static int read_cas(const struct field *top, struct discovery *out)
{
	json_t *pem = json_object_get(top->object, "host_ca");
	uint64_t spread = 0;
	int ret;

	if (!pem || json_is_null(pem))
		return 0;
	if (!json_is_string(pem) ||
		json_string_length(pem) > DISCOVERY_CA_MAX ||
		strlen(json_string_value(pem)) != json_string_length(pem))
		return field_fail(top, "host_ca", "is not PEM");
	ret = field_text(top, "host_ca_id", true, out->host_ca_id,
		sizeof(out->host_ca_id));
	if (ret == 0)
		ret = field_number(
			top, "renew_spread_ms", false, UINT32_MAX, &spread);
	if (ret < 0)
		return ret;
	out->renew_spread_ms = (uint32_t)spread;
	out->host_ca = xstrdup(json_string_value(pem));
	return 0;
}

static int read_discovery(const struct field *top, struct discovery *out)
{
	uint64_t interval = 0, count = 0;
	int ret = field_text(top, "cluster_name", true, out->cluster_name,
		sizeof(out->cluster_name));

	if (ret == 0 && !out->cluster_name[0])
		ret = field_fail(top, "cluster_name", "is empty");
	if (ret == 0)
		ret = field_number(top, "keep_alive_interval_ms", false,
			UINT32_MAX, &interval);
	if (ret == 0)
		ret = field_number(
			top, "keep_alive_count_max", false, UINT32_MAX, &count);
	if (ret == 0)
		ret = field_text(top, "self_id", false, out->self_id,
			sizeof(out->self_id));
	if (ret == 0 && out->self_id[0] &&
		!identity_uuid_is_valid(out->self_id))
		ret = field_fail(top, "self_id", "is not a uuid");
	if (ret == 0)
		ret = field_text(top, "store_id", false, out->store_id,
			sizeof(out->store_id));
	if (ret == 0)
		ret = field_number(
			top, "revision", false, INT64_MAX, &out->revision);
	if (ret == 0)
		ret = read_cas(top, out);
	if (ret == 0)
		ret = read_proxies(top, out);
	out->keep_alive_interval_ms = interval;
	out->keep_alive_count_max = count;
	return ret;
}

struct discovery *discovery_from_json(
	const char *text, size_t len, char **error_out)
{
	struct discovery *out;
	char error[FIELD_ERROR_MAX];
	json_t *document = field_document(text, len, error);
	struct field top = {document, "", error};

	if (!document) {
		*error_out = xstrdup(error);
		return NULL;
	}
	out = xcalloc(1, sizeof(*out));
	if (read_discovery(&top, out) < 0) {
		*error_out = xstrdup(error);
		discovery_free(out);
		out = NULL;
	}
	json_decref(document);
	return out;
}

void discovery_free(struct discovery *discovery)
{
	if (!discovery)
		return;
	free(discovery->proxies);
	free(discovery->host_ca);
	free(discovery);
}
