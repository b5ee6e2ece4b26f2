/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules between keys. Values come from struct conf, so that defaults are
 * checked like what was written; the tree is asked only for lines.
 *
 * Keys of a section that is not enabled are checked for their form, but none
 * is demanded there.
 */
#include "shared/conf_rules.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/https_proxy.h"
#include "shared/identity.h"
#include "shared/log.h"
#include "shared/sock.h"
#include "shared/target.h"

/* X.509 gives a common name 64 characters, and a host certificate's is
 * "<host uuid>.<cluster>". */
#define CLUSTER_NAME_MAX 27
/* sun_path holds 107, the longest name below run_dir is "/routed.sock". */
#define RUN_DIR_MAX 95
#define LABELS_MAX 64
#define LABEL_NAME_MAX 63
#define LABEL_VALUE_MAX 256
#define TYPE_MAX 31
#define STORE_PREFIX_MAX 64 /* auth/etcd_codec.h */

struct rules {
	const struct conf *conf;
	const struct conf_node *root;
	struct conf_error *error;
};

/* An error at path, with the line of its nearest ancestor if it is absent. */
static bool wrong(const struct rules *r, const char *path, const char *format,
	...) __attribute__((format(printf, 3, 4)));

static bool wrong(
	const struct rules *r, const char *path, const char *format, ...)
{
	const struct conf_node *node = conf_tree_nearest(r->root, path);
	char what[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	return conf_error_set(r->error, node->line, path, "%s", what);
}

/* The same for key of the index-th entry of a list. */
static bool wrong_entry(const struct rules *r, const char *list, unsigned index,
	const char *key, const char *what)
{
	const struct conf_node *node = conf_tree_find(r->root, list);
	const struct conf_node *child = NULL;
	char path[CONF_TREE_PATH_MAX];

	if (node && node->kind == CONF_SEQUENCE)
		TAILQ_FOREACH (child, &node->children, entry)
			if (child->index == index)
				break;
	if (!child)
		return wrong(r, list, "%s", what);
	node = *key ? conf_tree_child(child, key, strlen(key)) : NULL;
	conf_tree_path(child, path, sizeof(path));
	if (*key)
		snprintf(path + strlen(path), sizeof(path) - strlen(path),
			".%s", key);
	return conf_error_set(
		r->error, node ? node->line : child->line, path, "%s", what);
}

/* --- forms; each gives NULL or what is wrong --- */

static const char *listen_form(const char *text)
{
	struct sock_addr addr;

	if (sock_parse(text, 0, &addr) < 0)
		return "must be an IP address and a port, as 0.0.0.0:3080";
	return NULL;
}

static const char *public_form(const char *text)
{
	char host[SOCK_ADDR_MAX];
	uint16_t port;

	/* Any default will do: that one is given is all that matters here. */
	if (sock_split(text, 1, host, sizeof(host), &port) < 0 || !*host)
		return "must be a host name or address, as proxy.example.com "
		       "or 192.0.2.1:3080";
	return NULL;
}

static const char *service_addr_form(const char *text)
{
	char host[SOCK_ADDR_MAX];
	uint16_t port;

	if (sock_split(text, 0, host, sizeof(host), &port) < 0 || !*host)
		return "must be host and port, as 127.0.0.1:22";
	return NULL;
}

static const char *name_form(const char *text)
{
	if (!identity_name_is_valid(text))
		return "must be one label of a-z, 0-9 and -, at most 63 long";
	return NULL;
}

static const char *short_text_form(const char *text)
{
	if (strlen(text) > 63)
		return "longer than 63 bytes";
	return NULL;
}

static const char *type_form(const char *text)
{
	if (!*text)
		return "must be set: what kind of service, as node or db";
	if (strlen(text) > TYPE_MAX || !identity_name_is_valid(text))
		return "must be one word of a-z, 0-9 and -, at most 31 long";
	return NULL;
}

/* An address with or without "/prefix length". */
static const char *cidr_form(const char *text)
{
	const char *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	unsigned char bytes[16];
	unsigned long max = strchr(text, ':') ? 128 : 32;
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	char *end = NULL;

	if (len >= sizeof(address))
		return "must be a network, as 192.0.2.0/24";
	memcpy(address, text, len);
	address[len] = '\0';
	if (inet_pton(max == 128 ? AF_INET6 : AF_INET, address, bytes) != 1)
		return "must be a network, as 192.0.2.0/24";
	if (slash && (strspn(slash + 1, "0123456789") != strlen(slash + 1) ||
			     !slash[1] || strtoul(slash + 1, &end, 10) > max))
		return "prefix length out of range";
	return NULL;
}

static const char *cluster_form(const char *text)
{
	bool label_open = false;

	if (!*text)
		return "must be set: the name of the cluster, as example";
	if (strlen(text) > CLUSTER_NAME_MAX)
		return "longer than 27 characters, the room that a host "
		       "certificate has for it";
	for (const char *p = text; *p; p++) {
		bool letter =
			strchr("abcdefghijklmnopqrstuvwxyz0123456789", *p);
		bool inner = *p == '-' && label_open;

		if (!letter && !inner && !(*p == '.' && label_open))
			return "must be labels of a-z, 0-9 and - with dots "
			       "between them";
		label_open = *p != '.';
		if (*p == '-' && (p[1] == '.' || !p[1]))
			return "a label must not end with -";
	}
	return label_open ? NULL : "must not end with a dot";
}

/* --- sections --- */

/* A text key and its form; where optional, empty is fine. */
struct text_rule {
	const char *path;
	size_t offset;
	const char *(*form)(const char *text);
	bool optional;
};

#define RULE(path, member, form, optional)                          \
	{                                                           \
		path, offsetof(struct conf, member), form, optional \
	}

static const struct text_rule text_rules[] = {
	RULE("peerway.cluster_name", cluster_name, cluster_form, false),
	RULE("peerway.diag.authd", diag.authd, listen_form, true),
	RULE("peerway.diag.proxy", diag.proxy, listen_form, true),
	RULE("peerway.diag.peerd", diag.peerd, listen_form, true),
	RULE("peerway.diag.routed", diag.routed, listen_form, true),
	RULE("peerway.diag.agent", diag.agent, listen_form, true),
	RULE("auth_service.listen_addr", auth.listen_addr, listen_form, false),
	RULE("proxy_service.listen_addr", proxy.listen_addr, listen_form,
		false),
	RULE("proxy_service.tunnel_listen_addr", proxy.tunnel_listen_addr,
		listen_form, false),
	RULE("proxy_service.peer_listen_addr", proxy.peer_listen_addr,
		listen_form, true),
	RULE("proxy_service.peer_public_addr", proxy.peer_public_addr,
		public_form, true),
	RULE("proxy_service.region", proxy.region, short_text_form, true),
	RULE("proxy_service.zone", proxy.zone, short_text_form, true),
	RULE("agent_service.region", agent.region, short_text_form, true),
	RULE("agent_service.zone", agent.zone, short_text_form, true),
	RULE("proxy_service.group", proxy.group, short_text_form, true),
	RULE("agent_service.name", agent.name, name_form, false),
	RULE("agent_service.https_proxy", agent.https_proxy, https_proxy_check,
		true),
};

static bool check_texts(const struct rules *r)
{
	for (size_t i = 0; i < sizeof(text_rules) / sizeof(text_rules[0]);
		i++) {
		const struct text_rule *rule = &text_rules[i];
		const char *text = *(char **)((char *)r->conf + rule->offset);
		const char *what;

		if (!*text && rule->optional)
			continue;
		what = rule->form(text);
		if (what)
			return wrong(r, rule->path, "%s", what);
	}
	return true;
}

static bool check_list(const struct rules *r, const char *path,
	char *const *list, unsigned count,
	const char *(*form)(const char *text))
{
	for (unsigned i = 0; i < count; i++) {
		const char *what = form(list[i]);

		if (what)
			return wrong_entry(r, path, i, "", what);
	}
	return true;
}

static bool check_dir(
	const struct rules *r, const char *path, const char *dir, size_t max)
{
	if (dir[0] != '/')
		return wrong(r, path, "must be an absolute path");
	if (strlen(dir) > max)
		return wrong(r, path, "longer than %zu bytes", max);
	return true;
}

static bool check_pin(const struct rules *r, const char *pin)
{
	const char *hex = pin + strlen("sha256:");

	if (strncmp(pin, "sha256:", strlen("sha256:")) || strlen(hex) != 64 ||
		strspn(hex, "0123456789abcdefABCDEF") != 64)
		return wrong(r, "peerway.join.ca_pin",
			"must be sha256: and 64 hex digits");
	return true;
}

static bool check_identity(const struct rules *r)
{
	const struct conf_join *join = &r->conf->join;
	const struct conf_identity *own = &r->conf->identity;

	if (*join->ca_pin && !check_pin(r, join->ca_pin))
		return false;
	if (*join->token_file && !*join->ca_pin)
		return wrong(r, "peerway.join.ca_pin",
			"must be set when token_file is set");
	if (*join->ca_pin && !*join->token_file)
		return wrong(r, "peerway.join.token_file",
			"must be set when ca_pin is set");
	if (!*own->cert && !*own->key && !*own->ca && !*own->user_ca)
		return true;
	if (*join->token_file)
		return wrong(r, "peerway.identity",
			"give either join or identity, not both");
	if (!*own->cert)
		return wrong(r, "peerway.identity.cert", "must be set");
	if (!*own->key)
		return wrong(r, "peerway.identity.key", "must be set");
	if (!*own->ca)
		return wrong(r, "peerway.identity.ca", "must be set");
	return true;
}

static bool check_peerway(const struct rules *r)
{
	const struct conf *conf = r->conf;
	enum log_level level;

	if (*conf->host_uuid && !identity_uuid_is_valid(conf->host_uuid))
		return wrong(r, "peerway.host_uuid",
			"must be a uuid in lower case, as "
			"123e4567-e89b-42d3-a456-426614174000");
	if (log_level_parse(conf->log.level, &level) < 0)
		return wrong(r, "peerway.log.level",
			"\"%.64s\" is not error, warn, info or debug",
			conf->log.level);
	return check_dir(r, "peerway.data_dir", conf->data_dir, 1024) &&
	       check_dir(r, "peerway.run_dir", conf->run_dir, RUN_DIR_MAX) &&
	       check_list(r, "peerway.auth_servers", conf->auth_servers,
		       conf->auth_servers_count, public_form) &&
	       check_identity(r);
}

/* A slash at the beginning and none at the end; printable ASCII. */
static bool is_prefix(const char *text)
{
	size_t len = strlen(text);

	if (*text != '/' || len < 2 || len > STORE_PREFIX_MAX ||
		text[len - 1] == '/')
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] >= 0x7f)
			return false;
	return true;
}

static bool check_etcd(const struct rules *r)
{
	static const char base[] = "auth_service.storage";
	const struct conf_storage *storage = &r->conf->auth.storage;

	if (!storage->endpoints_count)
		return wrong(r, base,
			"endpoints must be set when type is etcd, as "
			"[etcd1.internal:2379]");
	if (!is_prefix(storage->prefix))
		return wrong(r, "auth_service.storage.prefix",
			"must be at most %d characters, with a slash at the "
			"beginning and none at the end, as /peerway",
			STORE_PREFIX_MAX);
	if (!*storage->tls.cert != !*storage->tls.key)
		return wrong(r, "auth_service.storage.tls",
			"give both cert and key, or neither");
	if (!*storage->user.name != !*storage->user.password_file)
		return wrong(r, "auth_service.storage.user",
			"give both name and password_file, or neither");
	return check_list(r, "auth_service.storage.endpoints",
		storage->endpoints, storage->endpoints_count,
		service_addr_form);
}

static bool check_storage(const struct rules *r)
{
	static const char *const of_etcd[] = {
		"endpoints", "prefix", "compaction", "tls", "user"};
	const struct conf_storage *storage = &r->conf->auth.storage;
	char path[64];

	if (!strcmp(storage->type, "etcd"))
		return check_etcd(r);
	if (strcmp(storage->type, "sqlite"))
		return wrong(r, "auth_service.storage.type",
			"\"%.64s\" is not sqlite or etcd", storage->type);
	for (size_t i = 0; i < sizeof(of_etcd) / sizeof(of_etcd[0]); i++) {
		snprintf(path, sizeof(path), "auth_service.storage.%s",
			of_etcd[i]);
		if (conf_tree_find(r->root, path))
			return wrong(r, path, "goes with type etcd only");
	}
	return true;
}

static bool check_auth(const struct rules *r)
{
	const struct conf_auth *auth = &r->conf->auth;

	if (conf_tree_find(r->root, "auth_service.tunnel_strategy") &&
		!conf_tree_find(r->root, "auth_service.tunnel_strategy.type"))
		return wrong(r, "auth_service.tunnel_strategy",
			"missing type parameter");
	if (*auth->ca_key_file && *auth->ca_key_file != '/')
		return wrong(r, "auth_service.ca_key_file",
			"must be an absolute path");
	if (!check_storage(r))
		return false;
	return check_list(r, "auth_service.public_addr", auth->public_addr,
		auth->public_addr_count, public_form);
}

static bool check_tcp_listener(const struct rules *r, unsigned index)
{
	static const char list[] = "proxy_service.tcp_listeners";
	const struct conf_tcp_listener *l =
		&r->conf->proxy.tcp_listeners[index];
	const char *what = listen_form(l->listen);
	struct target target;

	if (what)
		return wrong_entry(r, list, index, "listen", what);
	if (target_parse(l->target, r->conf->cluster_name, &target, &what) < 0)
		return wrong_entry(r, list, index, "target", what);
	for (unsigned i = 0; i < l->allow_from_count; i++) {
		what = cidr_form(l->allow_from[i]);
		if (what)
			return wrong_entry(r, list, index, "allow_from", what);
	}
	return true;
}

static bool check_proxy(const struct rules *r)
{
	const struct conf_proxy *proxy = &r->conf->proxy;

	if (*proxy->peer_public_addr && !*proxy->peer_listen_addr)
		return wrong(r, "proxy_service.peer_public_addr",
			"peer_listen_addr must be set when peer_public_addr "
			"is set");
	if (strcmp(proxy->min_tls, "1.2") && strcmp(proxy->min_tls, "1.3"))
		return wrong(r, "proxy_service.min_tls",
			"\"%.64s\" is not 1.2 or 1.3", proxy->min_tls);
	if (proxy->buffer_max < proxy->stream_buffer_max)
		return wrong(r, "proxy_service.buffer_max",
			"must not be less than stream_buffer_max");
	for (unsigned i = 0; i < proxy->tcp_listeners_count; i++)
		if (!check_tcp_listener(r, i))
			return false;
	if (proxy->enabled && !r->conf->auth_servers_count)
		return wrong(r, "peerway.auth_servers",
			"must be set when proxy_service is enabled");
	return check_list(r, "proxy_service.public_addr", proxy->public_addr,
		       proxy->public_addr_count, public_form) &&
	       check_list(r, "proxy_service.tunnel_public_addr",
		       proxy->tunnel_public_addr,
		       proxy->tunnel_public_addr_count, public_form);
}

static bool check_labels(const struct rules *r)
{
	static const char path[] = "agent_service.labels";
	const struct conf_agent *agent = &r->conf->agent;

	if (agent->labels_count > LABELS_MAX)
		return wrong(r, path, "more than %d labels", LABELS_MAX);
	for (unsigned i = 0; i < agent->labels_count; i++) {
		const struct conf_label *label = &agent->labels[i];

		if (!*label->name || strlen(label->name) > LABEL_NAME_MAX)
			return wrong(r, path,
				"the name \"%.64s\" must be 1 to %d bytes",
				label->name, LABEL_NAME_MAX);
		if (strlen(label->value) > LABEL_VALUE_MAX)
			return wrong(r, path,
				"the value of \"%.64s\" is longer than %d "
				"bytes",
				label->name, LABEL_VALUE_MAX);
	}
	return true;
}

static bool check_service(const struct rules *r, unsigned index)
{
	static const char list[] = "agent_service.services";
	const struct conf_service *service = &r->conf->agent.services[index];
	const char *what = name_form(service->name);

	if (what)
		return wrong_entry(r, list, index, "name", what);
	for (unsigned i = 0; i < index; i++)
		if (!strcmp(r->conf->agent.services[i].name, service->name))
			return wrong_entry(r, list, index, "name",
				"a service of this name was given before");
	what = type_form(service->type);
	if (what)
		return wrong_entry(r, list, index, "type", what);
	what = service_addr_form(service->addr);
	if (what)
		return wrong_entry(r, list, index, "addr", what);
	return true;
}

static bool check_agent(const struct rules *r)
{
	const struct conf_agent *agent = &r->conf->agent;

	for (unsigned i = 0; i < agent->services_count; i++)
		if (!check_service(r, i))
			return false;
	if (agent->enabled && !agent->proxy_server_count)
		return wrong(r, "agent_service.proxy_server",
			"must be set when agent_service is enabled");
	return check_labels(r) &&
	       check_list(r, "agent_service.proxy_server", agent->proxy_server,
		       agent->proxy_server_count, public_form);
}

bool conf_rules_check(const struct conf *conf, const struct conf_node *root,
	struct conf_error *error)
{
	const struct rules r = {.conf = conf, .root = root, .error = error};

	return check_texts(&r) && check_peerway(&r) && check_auth(&r) &&
	       check_proxy(&r) && check_agent(&r);
}
