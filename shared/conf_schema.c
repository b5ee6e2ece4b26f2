/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of peerway.yaml(5): libcyaml's schemas for the structs of conf.h.
 *
 * The schemas are used twice: by cyaml to load, and by conf_schema_check() to
 * say which line has an unknown key or a wrong type. The check is also the
 * stricter one: cyaml takes any word but "no", "false", "0" and "disable" for
 * true, `010` for 8 and -1 for a large number.
 */
#include "shared/conf_schema.h"

#include <stdio.h>
#include <string.h>

#include "shared/conf_number.h"

#define TEXT_MAX 4096
#define LIST_MAX 64
#define OPTIONAL CYAML_FLAG_OPTIONAL
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- the schemas --- */

#define TEXT(key, type, member) \
	CYAML_FIELD_STRING_PTR(key, OPTIONAL, type, member, 0, TEXT_MAX)
#define NUMBER(key, type, member) CYAML_FIELD_UINT(key, OPTIONAL, type, member)
#define TEXTS(key, type, member, max)                                          \
	CYAML_FIELD_SEQUENCE(key, CYAML_FLAG_POINTER | OPTIONAL, type, member, \
		&text_entry, 0, max)
/* Read from the tree, because of its unit or its shape. */
#define FROM_TREE(key) CYAML_FIELD_IGNORE(key, OPTIONAL)

static const struct cyaml_schema_value text_entry = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, TEXT_MAX),
};

static const cyaml_strval_t log_formats[] = {
	{"text", CONF_LOG_TEXT},
	{"json", CONF_LOG_JSON},
};

static const cyaml_strval_t strategies[] = {
	{"agent_mesh", CONF_AGENT_MESH},
	{"proxy_peering", CONF_PROXY_PEERING},
};

static const struct cyaml_schema_field join_fields[] = {
	TEXT("token_file", struct conf_join, token_file),
	TEXT("ca_pin", struct conf_join, ca_pin),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field identity_fields[] = {
	TEXT("cert", struct conf_identity, cert),
	TEXT("key", struct conf_identity, key),
	TEXT("ca", struct conf_identity, ca),
	TEXT("user_ca", struct conf_identity, user_ca),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field log_fields[] = {
	TEXT("level", struct conf_log, level),
	CYAML_FIELD_ENUM("format", OPTIONAL | CYAML_FLAG_STRICT,
		struct conf_log, format, log_formats, COUNT(log_formats)),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field diag_fields[] = {
	TEXT("authd", struct conf_diag, authd),
	TEXT("proxy", struct conf_diag, proxy),
	TEXT("peerd", struct conf_diag, peerd),
	TEXT("routed", struct conf_diag, routed),
	TEXT("agent", struct conf_diag, agent),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field peerway_fields[] = {
	TEXT("cluster_name", struct conf, cluster_name),
	TEXT("data_dir", struct conf, data_dir),
	TEXT("run_dir", struct conf, run_dir),
	TEXT("host_uuid", struct conf, host_uuid),
	TEXTS("auth_servers", struct conf, auth_servers, LIST_MAX),
	CYAML_FIELD_MAPPING("join", OPTIONAL, struct conf, join, join_fields),
	CYAML_FIELD_MAPPING(
		"identity", OPTIONAL, struct conf, identity, identity_fields),
	CYAML_FIELD_MAPPING("log", OPTIONAL, struct conf, log, log_fields),
	CYAML_FIELD_MAPPING("diag", OPTIONAL, struct conf, diag, diag_fields),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field strategy_fields[] = {
	CYAML_FIELD_ENUM("type", OPTIONAL | CYAML_FLAG_STRICT,
		struct conf_tunnel_strategy, type, strategies,
		COUNT(strategies)),
	NUMBER("agent_connection_count", struct conf_tunnel_strategy,
		agent_connection_count),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field etcd_tls_fields[] = {
	TEXT("ca", struct conf_etcd_tls, ca),
	TEXT("cert", struct conf_etcd_tls, cert),
	TEXT("key", struct conf_etcd_tls, key),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field etcd_user_fields[] = {
	TEXT("name", struct conf_etcd_user, name),
	TEXT("password_file", struct conf_etcd_user, password_file),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field storage_fields[] = {
	TEXT("type", struct conf_storage, type),
	TEXTS("endpoints", struct conf_storage, endpoints, LIST_MAX),
	TEXT("prefix", struct conf_storage, prefix),
	FROM_TREE("compaction"),
	CYAML_FIELD_MAPPING(
		"tls", OPTIONAL, struct conf_storage, tls, etcd_tls_fields),
	CYAML_FIELD_MAPPING(
		"user", OPTIONAL, struct conf_storage, user, etcd_user_fields),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field auth_fields[] = {
	CYAML_FIELD_BOOL("enabled", OPTIONAL, struct conf_auth, enabled),
	TEXT("listen_addr", struct conf_auth, listen_addr),
	TEXTS("public_addr", struct conf_auth, public_addr, LIST_MAX),
	CYAML_FIELD_MAPPING("tunnel_strategy", OPTIONAL, struct conf_auth,
		tunnel_strategy, strategy_fields),
	FROM_TREE("keep_alive_interval"),
	NUMBER("keep_alive_count_max", struct conf_auth, keep_alive_count_max),
	FROM_TREE("lease_ttl"),
	TEXT("ca_key_file", struct conf_auth, ca_key_file),
	CYAML_FIELD_MAPPING(
		"storage", OPTIONAL, struct conf_auth, storage, storage_fields),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field tcp_listener_fields[] = {
	TEXT("listen", struct conf_tcp_listener, listen),
	TEXT("target", struct conf_tcp_listener, target),
	TEXTS("allow_from", struct conf_tcp_listener, allow_from, LIST_MAX),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_value tcp_listener_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_tcp_listener,
		tcp_listener_fields),
};

static const struct cyaml_schema_field rebalance_fields[] = {
	NUMBER("threshold", struct conf_rebalance, threshold),
	NUMBER("rate", struct conf_rebalance, rate),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field proxy_fields[] = {
	CYAML_FIELD_BOOL("enabled", OPTIONAL, struct conf_proxy, enabled),
	TEXT("listen_addr", struct conf_proxy, listen_addr),
	TEXT("tunnel_listen_addr", struct conf_proxy, tunnel_listen_addr),
	TEXT("peer_listen_addr", struct conf_proxy, peer_listen_addr),
	TEXT("peer_public_addr", struct conf_proxy, peer_public_addr),
	TEXTS("public_addr", struct conf_proxy, public_addr, LIST_MAX),
	TEXTS("tunnel_public_addr", struct conf_proxy, tunnel_public_addr,
		LIST_MAX),
	NUMBER("workers", struct conf_proxy, workers),
	CYAML_FIELD_SEQUENCE("tcp_listeners", CYAML_FLAG_POINTER | OPTIONAL,
		struct conf_proxy, tcp_listeners, &tcp_listener_entry, 0, 256),
	FROM_TREE("dial_timeout"),
	FROM_TREE("handshake_timeout"),
	NUMBER("max_handshakes", struct conf_proxy, max_handshakes),
	NUMBER("max_tunnel_handshakes", struct conf_proxy,
		max_tunnel_handshakes),
	NUMBER("max_clients", struct conf_proxy, max_clients),
	NUMBER("max_tunnels", struct conf_proxy, max_tunnels),
	FROM_TREE("drain_timeout"),
	CYAML_FIELD_MAPPING("rebalance", OPTIONAL, struct conf_proxy, rebalance,
		rebalance_fields),
	TEXT("min_tls", struct conf_proxy, min_tls),
	FROM_TREE("stream_buffer_max"),
	FROM_TREE("buffer_max"),
	FROM_TREE("peer_memory_max"),
	FROM_TREE("peer_connections"),
	CYAML_FIELD_BOOL("peer_plain", OPTIONAL, struct conf_proxy, peer_plain),
	TEXT("region", struct conf_proxy, region),
	TEXT("zone", struct conf_proxy, zone),
	TEXT("group", struct conf_proxy, group),
	NUMBER("generation", struct conf_proxy, generation),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field service_fields[] = {
	TEXT("name", struct conf_service, name),
	TEXT("type", struct conf_service, type),
	TEXT("addr", struct conf_service, addr),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_value service_entry = {
	CYAML_VALUE_MAPPING(
		CYAML_FLAG_DEFAULT, struct conf_service, service_fields),
};

static const struct cyaml_schema_field agent_fields[] = {
	CYAML_FIELD_BOOL("enabled", OPTIONAL, struct conf_agent, enabled),
	TEXT("name", struct conf_agent, name),
	FROM_TREE("proxy_server"),
	FROM_TREE("labels"),
	CYAML_FIELD_SEQUENCE("services", CYAML_FLAG_POINTER | OPTIONAL,
		struct conf_agent, services, &service_entry, 0, 256),
	NUMBER("max_streams", struct conf_agent, max_streams),
	TEXT("https_proxy", struct conf_agent, https_proxy),
	FROM_TREE("reconnect_max_interval"),
	TEXT("region", struct conf_agent, region),
	TEXT("zone", struct conf_agent, zone),
	FROM_TREE("surplus_timeout"),
	CYAML_FIELD_END,
};

static const struct cyaml_schema_field top_fields[] = {
	{
		/* These keys are struct conf's own members. */
		.key = "peerway",
		.data_offset = 0,
		.value = {CYAML_VALUE_MAPPING(
			OPTIONAL, struct conf, peerway_fields)},
	},
	CYAML_FIELD_MAPPING(
		"auth_service", OPTIONAL, struct conf, auth, auth_fields),
	CYAML_FIELD_MAPPING(
		"proxy_service", OPTIONAL, struct conf, proxy, proxy_fields),
	CYAML_FIELD_MAPPING(
		"agent_service", OPTIONAL, struct conf, agent, agent_fields),
	CYAML_FIELD_END,
};

const struct cyaml_schema_value conf_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct conf, top_fields),
};

/* --- the check --- */

static bool check_value(const struct conf_node *node,
	const struct cyaml_schema_value *schema, struct conf_error *error);

static bool check_mapping(const struct conf_node *node,
	const struct cyaml_schema_value *schema, struct conf_error *error)
{
	const struct conf_node *child;

	if (node->kind != CONF_MAPPING)
		return conf_error_at(
			error, node, "must be a group of keys with values");
	TAILQ_FOREACH (child, &node->children, entry) {
		const struct cyaml_schema_field *field = schema->mapping.fields;

		while (field->key && strcmp(field->key, child->key))
			field++;
		if (!field->key)
			return conf_error_at(error, child, "unknown key");
		if (!check_value(child, &field->value, error))
			return false;
	}
	return true;
}

static bool check_sequence(const struct conf_node *node,
	const struct cyaml_schema_value *schema, struct conf_error *error)
{
	const struct conf_node *child;

	if (node->kind != CONF_SEQUENCE)
		return conf_error_at(error, node, "must be a list");
	if (node->count > schema->sequence.max)
		return conf_error_at(error, node,
			"has %u entries, more than %u", node->count,
			schema->sequence.max);
	TAILQ_FOREACH (child, &node->children, entry)
		if (!check_value(child, schema->sequence.entry, error))
			return false;
	return true;
}

static bool check_enum(const struct conf_node *node,
	const struct cyaml_schema_value *schema, struct conf_error *error)
{
	bool strategy = schema->enumeration.strings == strategies;

	if (node->kind != CONF_SCALAR)
		return conf_error_at(error, node, "%s",
			strategy ? "invalid type parameter" : "must be a word");
	for (uint32_t i = 0; i < schema->enumeration.count; i++)
		if (!strcmp(schema->enumeration.strings[i].str, node->text))
			return true;
	if (strategy)
		return conf_error_at(error, node,
			"unknown tunnel strategy: \"%.64s\"", node->text);
	return conf_error_at(error, node, "\"%.64s\" is not %s or %s",
		node->text, schema->enumeration.strings[0].str,
		schema->enumeration.strings[1].str);
}

static bool check_text(const struct conf_node *node,
	const struct cyaml_schema_value *schema, struct conf_error *error)
{
	if (node->kind != CONF_SCALAR)
		return conf_error_at(error, node, "must be a text");
	if (node->plain && (!*node->text || !strcmp(node->text, "~") ||
				   !strcmp(node->text, "null")))
		return conf_error_at(error, node,
			"has no value (write \"\" for an empty text)");
	if (strlen(node->text) > schema->string.max)
		return conf_error_at(error, node, "longer than %u bytes",
			schema->string.max);
	return true;
}

static bool check_bool(const struct conf_node *node, struct conf_error *error)
{
	static const char *const words[] = {"yes", "no", "true", "false"};

	for (size_t i = 0; node->kind == CONF_SCALAR && i < COUNT(words); i++)
		if (node->plain && !strcmp(words[i], node->text))
			return true;
	return conf_error_at(error, node, "must be yes or no");
}

static bool check_value(const struct conf_node *node,
	const struct cyaml_schema_value *schema, struct conf_error *error)
{
	uint64_t number;

	switch (schema->type) {
	case CYAML_MAPPING:
		return check_mapping(node, schema, error);
	case CYAML_SEQUENCE:
		return check_sequence(node, schema, error);
	case CYAML_ENUM:
		return check_enum(node, schema, error);
	case CYAML_BOOL:
		return check_bool(node, error);
	case CYAML_STRING:
		return check_text(node, schema, error);
	case CYAML_UINT:
		return conf_number_check(node, CONF_UNIT_NONE, &number, error);
	default:
		return true;
	}
}

bool conf_schema_check(const struct conf_node *root, struct conf_error *error)
{
	return check_value(root, &conf_schema, error);
}

/* --- the list of keys --- */

static void list_keys(const struct cyaml_schema_value *schema, const char *path,
	void (*fn)(void *arg, const char *path), void *arg)
{
	const struct cyaml_schema_field *field;

	if (schema->type != CYAML_MAPPING) {
		fn(arg, path);
		return;
	}
	for (field = schema->mapping.fields; field->key; field++) {
		const struct cyaml_schema_value *value = &field->value;
		bool list = value->type == CYAML_SEQUENCE &&
			    value->sequence.entry->type == CYAML_MAPPING;
		char below[CONF_TREE_PATH_MAX];

		snprintf(below, sizeof(below), "%s%s%s%s", path,
			*path ? "." : "", field->key, list ? "[]" : "");
		list_keys(list ? value->sequence.entry : value, below, fn, arg);
	}
}

void conf_schema_keys(void (*fn)(void *arg, const char *path), void *arg)
{
	list_keys(&conf_schema, "", fn, arg);
}
