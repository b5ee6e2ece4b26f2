/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads peerway.yaml(5) whole or not at all:
 *
 *   bytes -> tree with lines (conf_tree) -> keys and types (conf_schema)
 *         -> values (libcyaml, and below for what it cannot express)
 *         -> numbers, defaults, ranges (conf_number) -> rules (conf_rules)
 *
 * Owns struct conf. Its strings come from cyaml's allocator, which is
 * realloc(), so xstrdup() may fill in for them; proxy_server and labels are no
 * part of cyaml's schema and are freed here.
 */
#include "shared/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/conf_number.h"
#include "shared/conf_rules.h"
#include "shared/conf_schema.h"
#include "shared/conf_tree.h"
#include "shared/identity.h"
#include "shared/sock.h"

#define FILE_MAX (1u << 20)

static const struct cyaml_config cyaml = {
	.mem_fn = cyaml_mem,
	.log_level = CYAML_LOG_ERROR,
	.flags = CYAML_CFG_NO_ALIAS,
};

/* --- what cyaml's schemas cannot express --- */

static bool load_proxy_servers(struct conf *conf, const struct conf_node *root,
	struct conf_error *error)
{
	const struct conf_node *node =
		conf_tree_find(root, "agent_service.proxy_server");
	const struct conf_node *child;
	unsigned count = !node			     ? 0
			 : node->kind == CONF_SCALAR ? 1
						     : node->count;

	if (!node)
		return true;
	if (node->kind == CONF_MAPPING)
		return conf_error_at(
			error, node, "must be an address or a list of them");
	conf->agent.proxy_server = xcalloc(count + 1, sizeof(char *));
	if (node->kind == CONF_SCALAR) {
		conf->agent.proxy_server[0] = xstrdup(node->text);
		conf->agent.proxy_server_count = 1;
		return true;
	}
	TAILQ_FOREACH (child, &node->children, entry) {
		if (child->kind != CONF_SCALAR)
			return conf_error_at(error, child, "must be a text");
		conf->agent.proxy_server[conf->agent.proxy_server_count++] =
			xstrdup(child->text);
	}
	return true;
}

static bool load_labels(struct conf *conf, const struct conf_node *root,
	struct conf_error *error)
{
	const struct conf_node *node =
		conf_tree_find(root, "agent_service.labels");
	const struct conf_node *child;

	if (!node)
		return true;
	if (node->kind != CONF_MAPPING)
		return conf_error_at(
			error, node, "must be a group of names with values");
	conf->agent.labels =
		xcalloc(node->count + 1, sizeof(struct conf_label));
	TAILQ_FOREACH (child, &node->children, entry) {
		struct conf_label *label =
			&conf->agent.labels[conf->agent.labels_count];

		if (child->kind != CONF_SCALAR)
			return conf_error_at(error, child, "must be a text");
		label->name = xstrdup(child->key);
		label->value = xstrdup(child->text);
		conf->agent.labels_count++;
	}
	return true;
}

/* A section that is there is enabled unless it says otherwise. */
static void load_enabled(struct conf *conf, const struct conf_node *root)
{
	if (conf_tree_find(root, "auth_service") &&
		!conf_tree_find(root, "auth_service.enabled"))
		conf->auth.enabled = true;
	if (conf_tree_find(root, "proxy_service") &&
		!conf_tree_find(root, "proxy_service.enabled"))
		conf->proxy.enabled = true;
	if (conf_tree_find(root, "agent_service") &&
		!conf_tree_find(root, "agent_service.enabled"))
		conf->agent.enabled = true;
}

/* What the file says itself, besides values. */
static void load_said(struct conf *conf, const struct conf_node *root)
{
	conf->auth.tunnel_strategy_set =
		conf_tree_find(root, "auth_service.tunnel_strategy") != NULL;
	conf->auth.keep_alive_set =
		conf_tree_find(root, "auth_service.keep_alive_interval") ||
		conf_tree_find(root, "auth_service.keep_alive_count_max");
	conf->auth.storage.tls.enabled =
		conf_tree_find(root, "auth_service.storage.tls") != NULL;
}

/* --- defaults --- */

static void set_default(char **text, const char *standard)
{
	if (!*text)
		*text = xstrdup(standard);
}

/* The hostname up to the first dot, as a label. */
static char *default_agent_name(void)
{
	char name[256] = "";

	gethostname(name, sizeof(name) - 1);
	name[strcspn(name, ".")] = '\0';
	for (char *p = name; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p += 'a' - 'A';
		else if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789", *p))
			*p = '-';
	}
	return xstrdup(*name ? name : "localhost");
}

static void set_peerway_defaults(struct conf *conf)
{
	set_default(&conf->cluster_name, "");
	set_default(&conf->data_dir, "/var/lib/peerway");
	set_default(&conf->run_dir, "/run/peerway");
	set_default(&conf->host_uuid, "");
	set_default(&conf->join.token_file, "");
	set_default(&conf->join.ca_pin, "");
	set_default(&conf->identity.cert, "");
	set_default(&conf->identity.key, "");
	set_default(&conf->identity.ca, "");
	set_default(&conf->identity.user_ca, "");
	set_default(&conf->log.level, "info");
	set_default(&conf->diag.authd, "");
	set_default(&conf->diag.proxy, "");
	set_default(&conf->diag.peerd, "");
	set_default(&conf->diag.routed, "");
	set_default(&conf->diag.agent, "");
}

/* In etcd, which others may read, the CAs' keys are sealed. */
static void set_storage_defaults(struct conf *conf)
{
	struct conf_storage *storage = &conf->auth.storage;

	set_default(&storage->type, "sqlite");
	set_default(&storage->prefix, "/peerway");
	set_default(&storage->tls.ca, "");
	set_default(&storage->tls.cert, "");
	set_default(&storage->tls.key, "");
	set_default(&storage->user.name, "");
	set_default(&storage->user.password_file, "");
	if (!conf->auth.ca_key_file && !strcmp(storage->type, "etcd"))
		conf->auth.ca_key_file =
			xasprintf("%s/authd/ca.key", conf->data_dir);
	set_default(&conf->auth.ca_key_file, "");
}

static void set_service_defaults(struct conf *conf)
{
	struct conf_proxy *proxy = &conf->proxy;

	set_default(&conf->auth.listen_addr, "0.0.0.0:3025");
	set_storage_defaults(conf);
	/* As in the reference, no connections at all means one. */
	if (!conf->auth.tunnel_strategy.agent_connection_count)
		conf->auth.tunnel_strategy.agent_connection_count = 1;
	set_default(&proxy->listen_addr, "0.0.0.0:3080");
	set_default(&proxy->tunnel_listen_addr, "0.0.0.0:3024");
	set_default(&proxy->peer_listen_addr, "0.0.0.0:3021");
	set_default(&proxy->peer_public_addr, "");
	set_default(&proxy->min_tls, "1.2");
	set_default(&proxy->region, "");
	set_default(&proxy->zone, "");
	set_default(&proxy->group, "");
	for (unsigned i = 0; i < proxy->tcp_listeners_count; i++) {
		set_default(&proxy->tcp_listeners[i].listen, "");
		set_default(&proxy->tcp_listeners[i].target, "");
	}
	set_default(&conf->agent.region, "");
	set_default(&conf->agent.zone, "");
	if (!conf->agent.name)
		conf->agent.name = default_agent_name();
	set_default(&conf->agent.https_proxy, "");
	for (unsigned i = 0; i < conf->agent.services_count; i++) {
		set_default(&conf->agent.services[i].name, "");
		set_default(&conf->agent.services[i].type, "");
		set_default(&conf->agent.services[i].addr, "");
	}
}

/* --- the usual ports --- */

/* Others use the address as it stands, gRPC with a port of its own where none
 * is. */
static void complete(char **addr, uint16_t port)
{
	char host[SOCK_ADDR_MAX];
	uint16_t given;
	char *whole;

	if (sock_split(*addr, 0, host, sizeof(host), &given) == 0 ||
		sock_split(*addr, port, host, sizeof(host), &given) < 0)
		return;
	whole = xasprintf(
		strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
	free(*addr);
	*addr = whole;
}

static void complete_all(char **list, unsigned count, uint16_t port)
{
	for (unsigned i = 0; i < count; i++)
		complete(&list[i], port);
}

static void complete_addresses(struct conf *conf)
{
	struct conf_proxy *proxy = &conf->proxy;

	complete_all(conf->auth_servers, conf->auth_servers_count, 3025);
	if (proxy->peer_public_addr[0])
		complete(&proxy->peer_public_addr, 3021);
	complete_all(proxy->public_addr, proxy->public_addr_count, 3080);
	complete_all(proxy->tunnel_public_addr, proxy->tunnel_public_addr_count,
		3024);
}

/* --- loading --- */

static bool fill(struct conf *conf, const struct conf_node *root,
	struct conf_error *error)
{
	if (!load_proxy_servers(conf, root, error) ||
		!load_labels(conf, root, error) ||
		!conf_numbers_load(conf, root, error))
		return false;
	load_enabled(conf, root);
	load_said(conf, root);
	set_peerway_defaults(conf);
	set_service_defaults(conf);
	if (!conf_rules_check(conf, root, error))
		return false;
	complete_addresses(conf);
	return true;
}

static struct conf *load_values(
	const uint8_t *text, size_t len, struct conf_error *error)
{
	struct conf *conf = NULL;
	cyaml_err_t err = cyaml_load_data(
		text, len, &cyaml, &conf_schema, (cyaml_data_t **)&conf, NULL);

	if (err != CYAML_OK) {
		conf_error_set(error, 1, "yaml", "%s", cyaml_strerror(err));
		return NULL;
	}
	return conf;
}

struct conf *conf_parse(
	const char *name, const uint8_t *text, size_t len, char **error_out)
{
	struct conf_error error = {.file = name};
	struct conf_node *root = conf_tree_parse(text, len, &error);
	struct conf *conf = NULL;

	if (root && conf_schema_check(root, &error))
		conf = load_values(text, len, &error);
	if (conf && !fill(conf, root, &error)) {
		conf_free(conf);
		conf = NULL;
	}
	conf_tree_free(root);
	if (!conf)
		*error_out = error.text;
	return conf;
}

void conf_free(struct conf *conf)
{
	if (!conf)
		return;
	for (unsigned i = 0; i < conf->agent.proxy_server_count; i++)
		free(conf->agent.proxy_server[i]);
	free(conf->agent.proxy_server);
	for (unsigned i = 0; i < conf->agent.labels_count; i++) {
		free(conf->agent.labels[i].name);
		free(conf->agent.labels[i].value);
	}
	free(conf->agent.labels);
	cyaml_free(&cyaml, &conf_schema, conf, 0);
}

/* Up to FILE_MAX + 1 bytes of the file, or -errno. */
static ssize_t read_file(const char *path, uint8_t *text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t len = 0;
	ssize_t n = 1;

	if (fd < 0)
		return -errno;
	while (n > 0 && len <= FILE_MAX) {
		n = read(fd, text + len, FILE_MAX + 1 - len);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n > 0)
			len += n;
	}
	if (n < 0)
		n = -errno;
	close(fd);
	return n < 0 ? n : (ssize_t)len;
}

struct conf *conf_load_as(const char *path, const char *name, char **error_out)
{
	struct conf_error error = {.file = name};
	uint8_t *text = xcalloc(1, FILE_MAX + 1);
	ssize_t len = read_file(path, text);
	struct conf *conf = NULL;

	if (len < 0)
		conf_error_set(&error, 0, "file", "cannot be read: %s",
			strerror(-len));
	else if (len > FILE_MAX)
		conf_error_set(&error, 0, "file", "larger than 1 MiB");
	else
		conf = conf_parse(name, text, len, &error.text);
	free(text);
	if (!conf)
		*error_out = error.text;
	return conf;
}

struct conf *conf_load(const char *path, char **error_out)
{
	return conf_load_as(path, path, error_out);
}

/* --- the host's uuid --- */

static int read_uuid(const char *path, char uuid_out[CONF_UUID_SIZE])
{
	char text[CONF_UUID_SIZE + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text));
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return n;
	/* The uuid, with or without a newline. */
	if (n < CONF_UUID_SIZE - 1 || n > CONF_UUID_SIZE)
		return -EBADMSG;
	if (n == CONF_UUID_SIZE && text[CONF_UUID_SIZE - 1] != '\n')
		return -EBADMSG;
	text[CONF_UUID_SIZE - 1] = '\0';
	if (!identity_uuid_is_valid(text))
		return -EBADMSG;
	memcpy(uuid_out, text, CONF_UUID_SIZE);
	return 0;
}

static int write_uuid(const char *path)
{
	char text[CONF_UUID_SIZE];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	ssize_t n;

	if (fd < 0)
		return -errno;
	identity_uuid_make(text);
	text[CONF_UUID_SIZE - 1] = '\n';
	n = write(fd, text, sizeof(text));
	n = n < 0 ? -errno : n == sizeof(text) ? 0 : -EIO;
	if (!n && fsync(fd) < 0)
		n = -errno;
	close(fd);
	return n;
}

/* Written beside and linked: link() fails when the name exists, so two daemons
 * that start at once agree, and none ever reads half a uuid. Beside has a name
 * by chance: in a pod every daemon is process 1. */
static int make_uuid(const char *path)
{
	char unique[CONF_UUID_SIZE];
	char *beside;
	int ret;

	identity_uuid_make(unique);
	beside = xasprintf("%s.%s", path, unique);
	ret = write_uuid(beside);
	if (!ret && link(beside, path) < 0 && errno != EEXIST)
		ret = -errno;
	unlink(beside);
	free(beside);
	return ret;
}

int conf_host_uuid(const struct conf *conf, char uuid_out[CONF_UUID_SIZE])
{
	char *path;
	int ret;

	if (*conf->host_uuid) {
		memcpy(uuid_out, conf->host_uuid, CONF_UUID_SIZE);
		return 0;
	}
	if (mkdir(conf->data_dir, 0750) < 0 && errno != EEXIST)
		return -errno;
	path = xasprintf("%s/host_uuid", conf->data_dir);
	ret = read_uuid(path, uuid_out);
	if (ret == -ENOENT) {
		ret = make_uuid(path);
		if (!ret)
			ret = read_uuid(path, uuid_out);
	}
	free(path);
	return ret;
}
