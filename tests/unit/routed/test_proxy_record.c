/* SPDX-License-Identifier: Apache-2.0 */
/* The host's own record from its configuration: which addresses others get. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "routed/proxy_record.h"

#define PROXY "bbbbbbbb-0000-4000-8000-000000000001"

static char *public_addrs[] = {
	(char *)"proxy.example.com:3080", (char *)"10.0.0.1:443"};

static struct conf make_conf(void)
{
	struct conf conf = {0};

	conf.proxy.listen_addr = (char *)"0.0.0.0:3080";
	conf.proxy.tunnel_listen_addr = (char *)"[::]:3024";
	conf.proxy.peer_listen_addr = (char *)"0.0.0.0:3021";
	conf.proxy.peer_public_addr = (char *)"";
	conf.proxy.region = (char *)"eu";
	conf.proxy.zone = (char *)"";
	conf.proxy.group = (char *)"";
	conf.proxy.workers = 2;
	return conf;
}

static Peerway__Record__ProxyRecord *make(const struct conf *conf,
	Peerway__Record__StrategyType type, const char *host_addr)
{
	Peerway__Record__TunnelStrategy strategy =
		PEERWAY__RECORD__TUNNEL_STRATEGY__INIT;

	strategy.type = type;
	strategy.agent_connection_count = 3;
	return proxy_record_make(conf, PROXY, "host", host_addr, &strategy);
}

static void unspecified_hosts_are_replaced(void **state)
{
	struct conf conf = make_conf();
	Peerway__Record__ProxyRecord *r = make(&conf,
		PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING, "192.0.2.7");

	assert_string_equal(r->id, PROXY);
	assert_string_equal(r->peer_addr, "192.0.2.7:3021");
	assert_int_equal(r->n_public_addr, 1);
	assert_string_equal(r->public_addr[0], "192.0.2.7:3080");
	assert_int_equal(r->n_tunnel_addr, 0);
	assert_int_equal(r->strategy->agent_connection_count, 3);
	assert_int_equal(r->workers, 2);
	assert_string_equal(r->region, "eu");
	peerway__record__proxy_record__free_unpacked(r, NULL);
}

static void configured_addresses_are_published_as_they_are(void **state)
{
	struct conf conf = make_conf();
	Peerway__Record__ProxyRecord *r;

	conf.proxy.peer_public_addr = (char *)"peer.example.com:7";
	conf.proxy.public_addr = public_addrs;
	conf.proxy.public_addr_count = 2;
	conf.proxy.tunnel_public_addr = public_addrs;
	conf.proxy.tunnel_public_addr_count = 1;
	r = make(&conf, PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING,
		"192.0.2.7");
	assert_string_equal(r->peer_addr, "peer.example.com:7");
	assert_int_equal(r->n_public_addr, 2);
	assert_string_equal(r->public_addr[1], "10.0.0.1:443");
	assert_int_equal(r->n_tunnel_addr, 1);
	peerway__record__proxy_record__free_unpacked(r, NULL);
}

static void an_agent_mesh_host_has_no_peer_address(void **state)
{
	struct conf conf = make_conf();
	Peerway__Record__ProxyRecord *r =
		make(&conf, PEERWAY__RECORD__STRATEGY_TYPE__AGENT_MESH, "::1");

	assert_string_equal(r->peer_addr, "");
	assert_string_equal(r->public_addr[0], "[::1]:3080");
	peerway__record__proxy_record__free_unpacked(r, NULL);
}

static void names_are_asked_for_once_and_never_any(void **state)
{
	struct conf conf = make_conf();
	char **names;
	size_t count = 0;

	conf.proxy.public_addr = public_addrs;
	conf.proxy.public_addr_count = 2;
	conf.proxy.peer_public_addr = (char *)"10.0.0.1:3021";
	names = proxy_record_names(&conf);
	assert_string_equal(names[0], "proxy.example.com");
	assert_string_equal(names[1], "10.0.0.1");
	assert_null(names[2]);
	for (; names[count]; count++)
		free(names[count]);
	free(names);
}

static void the_host_always_has_some_address(void **state)
{
	char text[64] = "";

	proxy_record_host_addr(text, sizeof(text));
	assert_true(strlen(text) > 0);
	assert_string_not_equal(text, "0.0.0.0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unspecified_hosts_are_replaced),
		cmocka_unit_test(
			configured_addresses_are_published_as_they_are),
		cmocka_unit_test(an_agent_mesh_host_has_no_peer_address),
		cmocka_unit_test(names_are_asked_for_once_and_never_any),
		cmocka_unit_test(the_host_always_has_some_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
