/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/conf.h"
#include "shared/conf_number.h"
#include "shared/conf_schema.h"

#define HEAD "peerway:\n  cluster_name: example\n"

static struct conf *parse(const char *text, char **error_out)
{
	*error_out = NULL;
	return conf_parse(
		"f.yaml", (const uint8_t *)text, strlen(text), error_out);
}

static struct conf *must_parse(const char *text)
{
	char *error;
	struct conf *conf = parse(text, &error);

	if (!conf)
		fail_msg("%s", error);
	return conf;
}

static void must_fail(const char *text, const char *expected)
{
	char *error;
	struct conf *conf = parse(text, &error);

	assert_null(conf);
	assert_string_equal(error, expected);
	free(error);
}

static void defaults_are_the_documented_ones(void **state)
{
	struct conf *conf = must_parse(HEAD);

	assert_string_equal(conf->cluster_name, "example");
	assert_string_equal(conf->data_dir, "/var/lib/peerway");
	assert_string_equal(conf->run_dir, "/run/peerway");
	assert_string_equal(conf->host_uuid, "");
	assert_string_equal(conf->log.level, "info");
	assert_int_equal(conf->log.format, CONF_LOG_TEXT);
	assert_string_equal(conf->diag.proxy, "");
	assert_false(conf->auth.enabled);
	assert_false(conf->proxy.enabled);
	assert_false(conf->agent.enabled);
	assert_string_equal(conf->auth.listen_addr, "0.0.0.0:3025");
	assert_int_equal(conf->auth.tunnel_strategy.type, CONF_AGENT_MESH);
	assert_int_equal(conf->auth.tunnel_strategy.agent_connection_count, 1);
	assert_int_equal(conf->auth.keep_alive_interval, 15000);
	assert_int_equal(conf->auth.keep_alive_count_max, 2);
	assert_int_equal(conf->auth.lease_ttl, 5000);
	assert_string_equal(conf->auth.storage.type, "sqlite");
	assert_string_equal(conf->proxy.listen_addr, "0.0.0.0:3080");
	assert_string_equal(conf->proxy.tunnel_listen_addr, "0.0.0.0:3024");
	assert_string_equal(conf->proxy.peer_listen_addr, "0.0.0.0:3021");
	assert_string_equal(conf->proxy.min_tls, "1.2");
	assert_int_equal(conf->proxy.workers, 1);
	assert_int_equal(conf->proxy.dial_timeout, 10000);
	assert_int_equal(conf->proxy.handshake_timeout, 10000);
	assert_int_equal(conf->proxy.max_handshakes, 256);
	assert_int_equal(conf->proxy.max_tunnel_handshakes, 160);
	assert_int_equal(conf->proxy.max_clients, 10000);
	assert_int_equal(conf->proxy.max_tunnels, 20000);
	assert_int_equal(conf->proxy.drain_timeout, 300000);
	assert_int_equal(conf->proxy.stream_buffer_max, 4 << 20);
	assert_int_equal(conf->proxy.buffer_max, 256 << 20);
	assert_int_equal(conf->proxy.peer_memory_max, 256 << 20);
	assert_false(conf->proxy.peer_plain);
	assert_int_equal(conf->proxy.peer_connections, 1);
	assert_int_equal(conf->agent.max_streams, 10000);
	assert_int_equal(conf->agent.reconnect_max_interval, 5000);
	assert_true(*conf->agent.name);
	conf_free(conf);
}

static const char whole[] =
	"peerway:\n"
	"  cluster_name: example\n"
	"  data_dir: /tmp/d\n"
	"  host_uuid: 123e4567-e89b-42d3-a456-426614174000\n"
	"  auth_servers: [auth1.internal:3025, 10.0.0.1:3025]\n"
	"  join: {token_file: /etc/peerway/token, ca_pin: \"sha256:"
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}\n"
	"  log: {level: debug, format: json}\n"
	"  diag: {authd: 127.0.0.1:3000}\n"
	"auth_service:\n"
	"  enabled: yes\n"
	"  tunnel_strategy: {type: proxy_peering, agent_connection_count: 2}\n"
	"  keep_alive_interval: 500ms\n"
	"  lease_ttl: 2s\n"
	"proxy_service:\n"
	"  public_addr: [proxy.example.com:3080]\n"
	"  peer_public_addr: proxy1.internal:3021\n"
	"  workers: 4\n"
	"  drain_timeout: 1h\n"
	"  dial_timeout: 2m\n"
	"  peer_plain: yes\n"
	"  peer_connections: 8\n"
	"  buffer_max: 1GiB\n"
	"  stream_buffer_max: 65536\n"
	"  tcp_listeners: [{listen: 127.0.0.1:15432, target: pg.db-host-1, "
	"allow_from: [127.0.0.0/8, \"::1\"]}]\n"
	"agent_service:\n"
	"  enabled: no\n"
	"  name: db-host-1\n"
	"  proxy_server: proxy.example.com:3080\n"
	"  labels: {env: staging, rack: 7}\n"
	"  services:\n"
	"    - {name: ssh, type: node, addr: 127.0.0.1:22}\n"
	"    - {name: pg, type: db, addr: db.internal:5432}\n";

static void addresses_have_their_usual_ports(void **state)
{
	struct conf *conf = must_parse(
		"peerway:\n"
		"  cluster_name: example\n"
		"  auth_servers: [auth.internal, 10.0.0.1, \"[fd00::1]\", "
		"a:1]\n"
		"proxy_service:\n"
		"  peer_public_addr: proxy1.internal\n"
		"  public_addr: [proxy.example.com]\n"
		"  tunnel_public_addr: [proxy1.example.com]\n");

	assert_string_equal(conf->auth_servers[0], "auth.internal:3025");
	assert_string_equal(conf->auth_servers[1], "10.0.0.1:3025");
	assert_string_equal(conf->auth_servers[2], "[fd00::1]:3025");
	assert_string_equal(conf->auth_servers[3], "a:1");
	assert_string_equal(
		conf->proxy.peer_public_addr, "proxy1.internal:3021");
	assert_string_equal(
		conf->proxy.public_addr[0], "proxy.example.com:3080");
	assert_string_equal(
		conf->proxy.tunnel_public_addr[0], "proxy1.example.com:3024");
	conf_free(conf);
}

static void every_key_arrives(void **state)
{
	struct conf *conf = must_parse(whole);

	assert_int_equal(conf->auth_servers_count, 2);
	assert_string_equal(conf->auth_servers[1], "10.0.0.1:3025");
	assert_string_equal(conf->join.token_file, "/etc/peerway/token");
	assert_int_equal(conf->log.format, CONF_LOG_JSON);
	assert_true(conf->auth.enabled);
	assert_int_equal(conf->auth.tunnel_strategy.type, CONF_PROXY_PEERING);
	assert_int_equal(conf->auth.tunnel_strategy.agent_connection_count, 2);
	assert_int_equal(conf->auth.keep_alive_interval, 500);
	assert_int_equal(conf->auth.lease_ttl, 2000);
	assert_true(conf->proxy.enabled); /* the section is there */
	assert_int_equal(conf->proxy.workers, 4);
	assert_int_equal(conf->proxy.drain_timeout, 3600000);
	assert_int_equal(conf->proxy.dial_timeout, 120000);
	assert_true(conf->proxy.peer_plain);
	assert_int_equal(conf->proxy.peer_connections, 8);
	assert_int_equal(conf->proxy.buffer_max, 1 << 30);
	assert_int_equal(conf->proxy.stream_buffer_max, 65536);
	assert_int_equal(conf->proxy.tcp_listeners_count, 1);
	assert_string_equal(
		conf->proxy.tcp_listeners[0].target, "pg.db-host-1");
	assert_int_equal(conf->proxy.tcp_listeners[0].allow_from_count, 2);
	assert_false(conf->agent.enabled);
	assert_int_equal(conf->agent.proxy_server_count, 1);
	assert_string_equal(
		conf->agent.proxy_server[0], "proxy.example.com:3080");
	assert_int_equal(conf->agent.labels_count, 2);
	assert_string_equal(conf->agent.labels[1].name, "rack");
	assert_string_equal(conf->agent.labels[1].value, "7");
	assert_int_equal(conf->agent.services_count, 2);
	assert_string_equal(conf->agent.services[1].addr, "db.internal:5432");
	conf_free(conf);
}

static void proxy_server_may_be_a_list(void **state)
{
	struct conf *conf = must_parse(
		HEAD "agent_service:\n  proxy_server:\n  - a:1\n  - b:2\n");

	assert_int_equal(conf->agent.proxy_server_count, 2);
	assert_string_equal(conf->agent.proxy_server[1], "b:2");
	conf_free(conf);
}

static void no_connections_means_one(void **state)
{
	struct conf *conf = must_parse(
		HEAD "auth_service:\n  tunnel_strategy: {type: proxy_peering, "
		     "agent_connection_count: 0}\n");

	assert_int_equal(conf->auth.tunnel_strategy.agent_connection_count, 1);
	conf_free(conf);
}

/* Each error is one line that names the exact place. */
static const struct bad {
	const char *text;
	const char *error;
} bad[] = {
	/* the document */
	{"", "f.yaml:1: yaml: the file is empty"},
	{"# nothing\n", "f.yaml:1: yaml: the file is empty"},
	{"---\n", "f.yaml:1: yaml: the file is empty"},
	{"- a\n", "f.yaml:1: yaml: must be sections: `peerway:`, "
		  "`proxy_service:`, ..."},
	{"a: b: c\n", "f.yaml:1: yaml: mapping values are not allowed in this "
		      "context"},
	{HEAD "  log: [\n", "f.yaml:4: yaml: did not find expected node "
			    "content"},
	{HEAD "---\na: b\n", "f.yaml:3: yaml: a second document"},
	{HEAD "  \xff: x\n", "f.yaml:3: yaml: invalid leading UTF-8 octet"},
	{HEAD "  run_dir: \"/a\\0b\"\n", "f.yaml:3: run_dir: a NUL byte"},
	{HEAD "  ? [a]\n  : b\n", "f.yaml:3: yaml: a key must be a plain word"},
	/* keys */
	{HEAD "  colour: red\n", "f.yaml:3: peerway.colour: unknown key"},
	{HEAD "web_service: {}\n", "f.yaml:3: web_service: unknown key"},
	{HEAD "agent_service:\n  services:\n    - name: a\n      kind: b\n",
		"f.yaml:6: agent_service.services[0].kind: unknown key"},
	{HEAD "  run_dir: /a\n  cluster_name: two\n",
		"f.yaml:4: peerway.cluster_name: duplicate key, first on line "
		"2"},
	{HEAD "peerway: {}\n",
		"f.yaml:3: peerway: duplicate key, first on line 1"},
	/* aliases, tags */
	{"peerway: &a\n  cluster_name: example\n",
		"f.yaml:1: peerway: anchors and aliases are not accepted"},
	{HEAD "  run_dir: *a\n", "f.yaml:3: peerway.run_dir: anchors and "
				 "aliases are not accepted"},
	{HEAD "  run_dir: !!str /a\n",
		"f.yaml:3: peerway.run_dir: tags are not accepted"},
	/* types */
	{HEAD "  log: info\n", "f.yaml:3: peerway.log: must be a group of keys "
			       "with values"},
	{HEAD "  auth_servers: a:1\n",
		"f.yaml:3: peerway.auth_servers: must be a list"},
	{HEAD "  run_dir: [a]\n", "f.yaml:3: peerway.run_dir: must be a text"},
	{HEAD "  run_dir:\n", "f.yaml:3: peerway.run_dir: has no value (write "
			      "\"\" for an empty text)"},
	{HEAD "auth_service: {enabled: off}\n",
		"f.yaml:3: auth_service.enabled: must be yes or no"},
	{HEAD "proxy_service:\n  workers: many\n",
		"f.yaml:4: proxy_service.workers: \"many\" is not a whole "
		"number"},
	{HEAD "proxy_service:\n  workers: [1]\n",
		"f.yaml:4: proxy_service.workers: must be a whole number"},
	{HEAD "proxy_service:\n  workers: 2.5\n",
		"f.yaml:4: proxy_service.workers: \"2.5\" is not a whole "
		"number"},
	{HEAD "proxy_service:\n  workers: 0x2\n",
		"f.yaml:4: proxy_service.workers: \"0x2\" is not a whole "
		"number"},
	{HEAD "proxy_service:\n  workers: 010\n",
		"f.yaml:4: proxy_service.workers: \"010\" begins with 0, which "
		"could mean octal: leave the 0 out"},
	{HEAD "proxy_service:\n  dial_timeout: 15\n",
		"f.yaml:4: proxy_service.dial_timeout: \"15\" is not a time "
		"with its unit, such as 500ms, 15s, 2m or 1h"},
	{HEAD "proxy_service:\n  dial_timeout: 010s\n",
		"f.yaml:4: proxy_service.dial_timeout: \"010s\" begins with 0, "
		"which could mean octal: leave the 0 out"},
	{HEAD "proxy_service:\n  buffer_max: 4MB\n",
		"f.yaml:4: proxy_service.buffer_max: \"4MB\" is not a size, "
		"such as 65536, 64KiB, 4MiB or 1GiB"},
	{HEAD "  log: {format: xml}\n",
		"f.yaml:3: peerway.log.format: \"xml\" is not text or json"},
	{HEAD "  log: {level: loud}\n",
		"f.yaml:3: peerway.log.level: \"loud\" is not error, warn, "
		"info or debug"},
	{HEAD "agent_service: {labels: [a]}\n",
		"f.yaml:3: agent_service.labels: must be a group of names with "
		"values"},
	{HEAD "agent_service: {proxy_server: {a: b}}\n",
		"f.yaml:3: agent_service.proxy_server: must be an address or a "
		"list of them"},
	/* ranges */
	{HEAD "proxy_service:\n  enabled: no\n  workers: 65\n",
		"f.yaml:5: proxy_service.workers: 65 is out of range: must be "
		"1 to 64"},
	{HEAD "proxy_service:\n  workers: 0\n",
		"f.yaml:4: proxy_service.workers: 0 is out of range: must be 1 "
		"to 64"},
	{HEAD "proxy_service:\n  workers: 99999999999999999999\n",
		"f.yaml:4: proxy_service.workers: \"99999999999999999999\" is "
		"not a whole number"},
	{HEAD "auth_service:\n  lease_ttl: 1s\n",
		"f.yaml:4: auth_service.lease_ttl: 1s is out of range: must be "
		"2s to 10m"},
	{HEAD "proxy_service:\n  stream_buffer_max: 1KiB\n",
		"f.yaml:4: proxy_service.stream_buffer_max: 1KiB is out of "
		"range: must be 64KiB to 1GiB"},
	{HEAD "auth_service:\n  tunnel_strategy:\n    type: proxy_peering\n"
	      "    agent_connection_count: -1\n",
		"f.yaml:6: auth_service.tunnel_strategy.agent_connection_count:"
		" \"-1\" is negative: must be a whole number"},
	{HEAD "auth_service:\n  tunnel_strategy:\n    type: proxy_peering\n"
	      "    agent_connection_count: 1001\n",
		"f.yaml:6: auth_service.tunnel_strategy.agent_connection_count:"
		" 1001 is out of range: must be 0 to 1000"},
	/* where records are kept */
	{HEAD "auth_service:\n  storage: {type: redis}\n",
		"f.yaml:4: auth_service.storage.type: \"redis\" is not sqlite "
		"or etcd"},
	{HEAD "auth_service:\n  storage: {type: etcd}\n",
		"f.yaml:4: auth_service.storage: endpoints must be set when "
		"type is etcd, as [etcd1.internal:2379]"},
	{HEAD "auth_service:\n  storage:\n    endpoints: [e:2379]\n",
		"f.yaml:5: auth_service.storage.endpoints: goes with type etcd "
		"only"},
	{HEAD "auth_service:\n  storage:\n    type: etcd\n"
	      "    endpoints: [e]\n",
		"f.yaml:6: auth_service.storage.endpoints[0]: must be host "
		"and port, as 127.0.0.1:22"},
	{HEAD "auth_service:\n  storage:\n    type: etcd\n"
	      "    endpoints: [e:1]\n    prefix: x/\n",
		"f.yaml:7: auth_service.storage.prefix: must be at most 64 "
		"characters, with a slash at the beginning and none at the "
		"end, as /peerway"},
	{HEAD "auth_service:\n  storage:\n    type: etcd\n"
	      "    endpoints: [e:1]\n    tls: {cert: /c}\n",
		"f.yaml:7: auth_service.storage.tls: give both cert and key, "
		"or neither"},
	{HEAD "auth_service:\n  storage:\n    type: etcd\n"
	      "    endpoints: [e:1]\n    user: {name: u}\n",
		"f.yaml:7: auth_service.storage.user: give both name and "
		"password_file, or neither"},
	{HEAD "auth_service:\n  ca_key_file: ca.key\n",
		"f.yaml:4: auth_service.ca_key_file: must be an absolute path"},
	/* the tunnel strategy, as the reference has it */
	{HEAD "auth_service:\n  tunnel_strategy: {type: star}\n",
		"f.yaml:4: auth_service.tunnel_strategy.type: unknown tunnel "
		"strategy: \"star\""},
	{HEAD "auth_service:\n  tunnel_strategy: {type: [a]}\n",
		"f.yaml:4: auth_service.tunnel_strategy.type: invalid type "
		"parameter"},
	{HEAD "auth_service:\n  tunnel_strategy: {}\n",
		"f.yaml:4: auth_service.tunnel_strategy: missing type "
		"parameter"},
	{HEAD "proxy_service:\n  peer_listen_addr: \"\"\n"
	      "  peer_public_addr: a:1\n",
		"f.yaml:5: proxy_service.peer_public_addr: peer_listen_addr "
		"must be set when peer_public_addr is set"},
	/* names, addresses, keys that need each other */
	{"peerway: {}\n", "f.yaml:1: peerway.cluster_name: must be set: the "
			  "name of the cluster, as example"},
	{"peerway:\n  cluster_name: Big\n",
		"f.yaml:2: peerway.cluster_name: must be labels of a-z, 0-9 "
		"and - with dots between them"},
	{"peerway:\n  cluster_name: a.\n",
		"f.yaml:2: peerway.cluster_name: must not end with a dot"},
	{"peerway:\n  cluster_name: abcdefghijklmnopqrstuvwxyz01\n",
		"f.yaml:2: peerway.cluster_name: longer than 27 characters, "
		"the room that a host certificate has for it"},
	{HEAD "  host_uuid: abc\n",
		"f.yaml:3: peerway.host_uuid: must be a uuid in lower case, as "
		"123e4567-e89b-42d3-a456-426614174000"},
	{HEAD "  data_dir: var\n",
		"f.yaml:3: peerway.data_dir: must be an absolute path"},
	{HEAD "  join: {token_file: /t}\n",
		"f.yaml:3: peerway.join.ca_pin: must be set when token_file is "
		"set"},
	{HEAD "  join: {token_file: /t, ca_pin: abc}\n",
		"f.yaml:3: peerway.join.ca_pin: must be sha256: and 64 hex "
		"digits"},
	{HEAD "  identity:\n    cert: /c\n    ca: /a\n",
		"f.yaml:3: peerway.identity.key: must be set"},
	{HEAD "  diag: {proxy: localhost:3001}\n",
		"f.yaml:3: peerway.diag.proxy: must be an IP address and a "
		"port, as 0.0.0.0:3080"},
	{HEAD "auth_service:\n  listen_addr: 0.0.0.0\n",
		"f.yaml:4: auth_service.listen_addr: must be an IP address and "
		"a port, as 0.0.0.0:3080"},
	{HEAD "proxy_service:\n  workers: 1\n",
		"f.yaml:1: peerway.auth_servers: must be set when "
		"proxy_service is enabled"},
	{HEAD "agent_service:\n  name: a.b\n",
		"f.yaml:4: agent_service.name: must be one label of a-z, 0-9 "
		"and -, at most 63 long"},
	{HEAD "agent_service:\n  name: a\n",
		"f.yaml:3: agent_service.proxy_server: must be set when "
		"agent_service is enabled"},
	{HEAD "agent_service:\n  proxy_server: p:1\n  services:\n"
	      "    - {name: a, type: node, addr: h:1}\n"
	      "    - {name: a, type: node, addr: h:2}\n",
		"f.yaml:7: agent_service.services[1].name: a service of this "
		"name was given before"},
	{HEAD "agent_service:\n  services:\n    - name: a\n      type: db\n"
	      "      addr: nowhere\n",
		"f.yaml:7: agent_service.services[0].addr: must be host and "
		"port, as 127.0.0.1:22"},
	{HEAD "proxy_service:\n  enabled: no\n  tcp_listeners:\n"
	      "    - {listen: 127.0.0.1:1, target: a, allow_from: [10.0.0.0/"
	      "33]}\n",
		"f.yaml:6: proxy_service.tcp_listeners[0].allow_from: prefix "
		"length out of range"},
};

static void each_error_names_its_place(void **state)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		must_fail(bad[i].text, bad[i].error);
}

static void a_nul_byte_is_found_on_its_line(void **state)
{
	static const char text[] = HEAD "  run_dir: /a\n\0hidden: yes\n";
	char *error = NULL;

	assert_null(conf_parse(
		"f.yaml", (const uint8_t *)text, sizeof(text) - 1, &error));
	assert_string_equal(error, "f.yaml:4: yaml: a NUL byte");
	free(error);
}

static void an_error_is_one_line_whatever_the_file_says(void **state)
{
	char *error;

	assert_null(parse(HEAD "  log: {level: \"a\\nb\\e[1m\"}\n", &error));
	assert_null(strchr(error, '\n'));
	assert_null(strchr(error, '\033'));
	free(error);
}

static void a_missing_file_is_an_error(void **state)
{
	char *error = NULL;

	assert_null(conf_load("/nonexistent/peerway.yaml", &error));
	assert_string_equal(error, "/nonexistent/peerway.yaml:0: file: cannot "
				   "be read: No such file or directory");
	free(error);
	assert_null(conf_load("/", &error));
	assert_string_equal(error, "/:0: file: cannot be read: Is a directory");
	free(error);
}

static void nesting_is_bounded(void **state)
{
	char text[400] = HEAD "  log: ";
	char *error;

	memset(text + strlen(text), '[', 300);
	assert_null(parse(text, &error));
	assert_non_null(strstr(error, "f.yaml:3: "));
	assert_non_null(strstr(error, "more than 8 levels deep"));
	free(error);
}

static void numbers_have_units(void **state)
{
	uint64_t v;

	assert_true(conf_number_parse("15s", CONF_UNIT_TIME, &v));
	assert_int_equal(v, 15000);
	assert_true(conf_number_parse("0", CONF_UNIT_TIME, &v));
	assert_int_equal(v, 0);
	assert_false(conf_number_parse("1d", CONF_UNIT_TIME, &v));
	assert_false(conf_number_parse("", CONF_UNIT_TIME, &v));
	assert_false(conf_number_parse("s", CONF_UNIT_TIME, &v));
	assert_true(conf_number_parse("4MiB", CONF_UNIT_SIZE, &v));
	assert_int_equal(v, 4194304);
	assert_false(conf_number_parse(
		"18446744073709551615GiB", CONF_UNIT_SIZE, &v));
	assert_false(
		conf_number_parse("18446744073709551616", CONF_UNIT_NONE, &v));
}

static void remember_key(void *arg, const char *path)
{
	const char **wanted = arg;

	if (*wanted && !strcmp(*wanted, path))
		*wanted = NULL;
}

/* A row without its key, or a default out of its range, is our own mistake. */
static void the_table_fits_the_schema(void **state)
{
	for (size_t i = 0; i < conf_number_count; i++) {
		const struct conf_number *n = &conf_numbers[i];
		const char *wanted = n->path;

		conf_schema_keys(remember_key, &wanted);
		assert_null(wanted);
		assert_in_range(n->standard, n->min, n->max);
		if (n->size == sizeof(uint32_t))
			assert_true(n->max <= UINT32_MAX);
		else
			assert_int_equal(n->size, sizeof(uint64_t));
	}
}

static void the_host_uuid_is_made_once(void **state)
{
	char dir[] = "/tmp/test_conf.XXXXXX";
	char none[] = "";
	char given[] = "123e4567-e89b-42d3-a456-426614174000";
	struct conf conf = {.host_uuid = none, .data_dir = dir};
	char first[CONF_UUID_SIZE];
	char second[CONF_UUID_SIZE];
	char path[64];
	int fd;

	assert_non_null(mkdtemp(dir));
	/* In a pod another daemon has the same pid, and may be writing its own
	 * at this moment. */
	snprintf(path, sizeof(path), "%s/host_uuid.%d", dir, (int)getpid());
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(conf_host_uuid(&conf, first), 0);
	assert_int_equal(conf_host_uuid(&conf, second), 0);
	assert_string_equal(first, second);
	assert_int_equal(unlink(path), 0);

	snprintf(path, sizeof(path), "%s/host_uuid", dir);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "broken\n", 7), 7);
	close(fd);
	assert_int_equal(conf_host_uuid(&conf, second), -EBADMSG);
	unlink(path);
	/* Nothing is left beside it. */
	assert_int_equal(rmdir(dir), 0);

	conf.host_uuid = given;
	assert_int_equal(conf_host_uuid(&conf, second), 0);
	assert_string_equal(second, conf.host_uuid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_documented_ones),
		cmocka_unit_test(addresses_have_their_usual_ports),
		cmocka_unit_test(every_key_arrives),
		cmocka_unit_test(proxy_server_may_be_a_list),
		cmocka_unit_test(no_connections_means_one),
		cmocka_unit_test(each_error_names_its_place),
		cmocka_unit_test(a_nul_byte_is_found_on_its_line),
		cmocka_unit_test(an_error_is_one_line_whatever_the_file_says),
		cmocka_unit_test(a_missing_file_is_an_error),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(numbers_have_units),
		cmocka_unit_test(the_table_fits_the_schema),
		cmocka_unit_test(the_host_uuid_is_made_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
