/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "shared/conf_change.h"
#include "shared/conf_schema.h"

#define HEAD "peerway:\n  cluster_name: example\n"
#define PROXY HEAD "  auth_servers: [a]\nproxy_service:\n  enabled: yes\n"

static struct conf *parse(const char *text)
{
	char *error = NULL;
	struct conf *conf = conf_parse(
		"f.yaml", (const uint8_t *)text, strlen(text), &error);

	if (!conf)
		fail_msg("%s", error);
	return conf;
}

/* Reads text in the place of conf. */
static void take(struct conf *conf, const char *text, enum conf_daemon daemon,
	struct conf_changes *changes_out)
{
	struct conf *next = parse(text);

	conf_take(conf, next, daemon, changes_out);
	conf_free(next);
}

static void is_list(const char *const *list, unsigned count, const char *text)
{
	char joined[1024] = "";

	for (unsigned i = 0; i < count; i++) {
		strcat(joined, i ? " " : "");
		strcat(joined, list[i]);
	}
	assert_string_equal(joined, text);
}

static void are(
	const struct conf_changes *changes, const char *taken, const char *left)
{
	is_list(changes->taken, changes->taken_count, taken);
	is_list(changes->left, changes->left_count, left);
}

static void on_key(void *arg, const char *path)
{
	unsigned *count = arg;
	const struct conf_use *use = conf_use_find(path);

	(*count)++;
	if (!use)
		fail_msg("no row in conf_uses: %s", path);
	assert_true(use->readers);
}

static void every_key_has_its_row(void **state)
{
	unsigned count = 0;

	conf_schema_keys(on_key, &count);
	assert_int_equal(count, conf_use_count);
	assert_true(count < CONF_CHANGES_MAX);
}

static void the_same_file_changes_nothing(void **state)
{
	static const char text[] = PROXY
		"  tcp_listeners:\n"
		"    - {listen: '127.0.0.1:1', target: a.b}\n"
		"agent_service:\n  proxy_server: [a, b]\n  labels: {a: b}\n"
		"  services:\n    - {name: a, type: node, addr: 'h:1'}\n";
	struct conf *conf = parse(text);
	struct conf_changes changes;

	for (unsigned bit = CONF_AUTHD; bit <= CONF_AGENT; bit *= 2) {
		take(conf, text, bit, &changes);
		are(&changes, "", "");
	}
	conf_free(conf);
}

static void live_keys_are_taken_and_others_named(void **state)
{
	struct conf *conf = parse(PROXY);
	struct conf_changes changes;

	take(conf,
		HEAD "  auth_servers: [a]\n  log: {level: debug}\n"
		     "proxy_service:\n  max_clients: 5\n  workers: 3\n"
		     "  dial_timeout: 1s\n  region: r\n",
		CONF_PROXY, &changes);
	are(&changes,
		"peerway.log.level proxy_service.dial_timeout "
		"proxy_service.max_clients",
		"proxy_service.workers proxy_service.region");
	assert_string_equal(conf->log.level, "debug");
	assert_int_equal(conf->proxy.max_clients, 5);
	assert_int_equal(conf->proxy.dial_timeout, 1000);
	assert_int_equal(conf->proxy.workers, 1);
	assert_string_equal(conf->proxy.region, "");
	assert_true(conf_taken(&changes, "proxy_service.max_"));
	assert_false(conf_taken(&changes, "proxy_service.workers"));

	/* and back to the defaults */
	take(conf, PROXY, CONF_PROXY, &changes);
	are(&changes,
		"peerway.log.level proxy_service.dial_timeout "
		"proxy_service.max_clients",
		"");
	assert_int_equal(conf->proxy.max_clients, 10000);
	conf_free(conf);
}

static void what_others_read_is_their_business(void **state)
{
	struct conf *conf = parse(PROXY);
	struct conf_changes changes;

	take(conf, PROXY "  peer_connections: 2\n  max_clients: 5\n",
		CONF_AUTHD, &changes);
	are(&changes, "", "");
	assert_int_equal(conf->proxy.max_clients, 10000);
	take(conf, PROXY "  peer_connections: 2\n  max_clients: 5\n",
		CONF_PEERD, &changes);
	are(&changes, "", "proxy_service.peer_connections");
	conf_free(conf);
}

static void allow_from_is_taken_alone(void **state)
{
	struct conf *conf =
		parse(PROXY "  tcp_listeners:\n"
			    "    - {listen: '127.0.0.1:1', target: a.b}\n"
			    "    - {listen: '127.0.0.1:2', target: c.d}\n");
	struct conf_tcp_listener *listeners = conf->proxy.tcp_listeners;
	struct conf_changes changes;

	take(conf,
		PROXY "  tcp_listeners:\n"
		      "    - {listen: '127.0.0.1:1', target: a.b}\n"
		      "    - {listen: '127.0.0.1:2', target: c.d,"
		      " allow_from: [10.0.0.0/8]}\n",
		CONF_PROXY, &changes);
	are(&changes, "proxy_service.tcp_listeners[].allow_from", "");
	assert_ptr_equal(conf->proxy.tcp_listeners, listeners);
	assert_int_equal(listeners[0].allow_from_count, 0);
	assert_int_equal(listeners[1].allow_from_count, 1);
	assert_string_equal(listeners[1].allow_from[0], "10.0.0.0/8");
	conf_free(conf);
}

static void another_set_of_listeners_needs_a_restart(void **state)
{
	struct conf *conf =
		parse(PROXY "  tcp_listeners:\n"
			    "    - {listen: '127.0.0.1:1', target: a.b}\n");
	struct conf_changes changes;

	take(conf,
		PROXY "  tcp_listeners:\n"
		      "    - {listen: '127.0.0.1:1', target: x.y,"
		      " allow_from: [10.0.0.0/8]}\n",
		CONF_PROXY, &changes);
	are(&changes, "",
		"proxy_service.tcp_listeners[].target "
		"proxy_service.tcp_listeners[].allow_from");
	assert_int_equal(conf->proxy.tcp_listeners[0].allow_from_count, 0);
	take(conf, PROXY, CONF_PROXY, &changes);
	are(&changes, "",
		"proxy_service.tcp_listeners[].listen "
		"proxy_service.tcp_listeners[].target "
		"proxy_service.tcp_listeners[].allow_from");
	assert_int_equal(conf->proxy.tcp_listeners_count, 1);
	conf_free(conf);
}

#define AGENT HEAD "agent_service:\n  name: n\n  proxy_server: p\n"

static void services_and_labels_are_taken_whole(void **state)
{
	struct conf *conf = parse(AGENT);
	struct conf_changes changes;

	take(conf,
		AGENT "  labels: {a: b, c: d}\n  services:\n"
		      "    - {name: s, type: node, addr: 'h:1'}\n",
		CONF_AGENT, &changes);
	are(&changes,
		"agent_service.labels agent_service.services[].name "
		"agent_service.services[].type agent_service.services[].addr",
		"");
	assert_int_equal(conf->agent.labels_count, 2);
	assert_int_equal(conf->agent.services_count, 1);
	take(conf,
		AGENT "  labels: {a: b, c: x}\n  services:\n"
		      "    - {name: s, type: node, addr: 'h:2'}\n",
		CONF_AGENT, &changes);
	are(&changes, "agent_service.labels agent_service.services[].addr", "");
	assert_string_equal(conf->agent.labels[1].value, "x");
	assert_string_equal(conf->agent.services[0].addr, "h:2");
	take(conf, AGENT, CONF_AGENT, &changes);
	assert_int_equal(conf->agent.services_count, 0);
	assert_int_equal(conf->agent.labels_count, 0);
	conf_free(conf);
}

static void proxy_server_needs_a_restart(void **state)
{
	struct conf *conf = parse(AGENT);
	struct conf_changes changes;

	take(conf, HEAD "agent_service:\n  name: n\n  proxy_server: [p, q]\n",
		CONF_AGENT, &changes);
	are(&changes, "", "agent_service.proxy_server");
	assert_int_equal(conf->agent.proxy_server_count, 1);
	conf_free(conf);
}

#define FILES(dir)                                                         \
	HEAD "  identity: {cert: " dir "c, key: " dir "k, ca: " dir "a}\n" \
	     "agent_service: {name: n, proxy_server: p}\n"

static void identity_moves_but_does_not_appear(void **state)
{
	struct conf *conf = parse(FILES("/"));
	struct conf_changes changes;

	take(conf, FILES("/new/"), CONF_AGENT, &changes);
	are(&changes,
		"peerway.identity.cert peerway.identity.key "
		"peerway.identity.ca",
		"");
	assert_string_equal(conf->identity.key, "/new/k");
	take(conf, AGENT, CONF_AGENT, &changes);
	are(&changes, "",
		"peerway.identity.cert peerway.identity.key "
		"peerway.identity.ca");
	assert_string_equal(conf->identity.key, "/new/k");
	conf_free(conf);
}

#define AUTH HEAD "auth_service:\n  enabled: yes\n"

static void what_the_file_says_counts_also_when_it_is_the_default(void **state)
{
	struct conf *conf = parse(AUTH);
	struct conf_changes changes;

	assert_false(conf->auth.keep_alive_set);
	take(conf, AUTH "  keep_alive_interval: 15s\n", CONF_AUTHD, &changes);
	are(&changes, "auth_service.keep_alive_interval", "");
	assert_true(conf->auth.keep_alive_set);
	take(conf, AUTH "  tunnel_strategy: {type: agent_mesh}\n", CONF_AUTHD,
		&changes);
	are(&changes, "auth_service.keep_alive_interval",
		"auth_service.tunnel_strategy.type");
	assert_false(conf->auth.keep_alive_set);
	assert_false(conf->auth.tunnel_strategy_set);
	conf_free(conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_key_has_its_row),
		cmocka_unit_test(the_same_file_changes_nothing),
		cmocka_unit_test(live_keys_are_taken_and_others_named),
		cmocka_unit_test(what_others_read_is_their_business),
		cmocka_unit_test(allow_from_is_taken_alone),
		cmocka_unit_test(another_set_of_listeners_needs_a_restart),
		cmocka_unit_test(services_and_labels_are_taken_whole),
		cmocka_unit_test(proxy_server_needs_a_restart),
		cmocka_unit_test(identity_moves_but_does_not_appear),
		cmocka_unit_test(
			what_the_file_says_counts_also_when_it_is_the_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
