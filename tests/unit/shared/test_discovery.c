/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/discovery.h"

#define UUID "0a1b2c3d-0000-4000-8000-00000000000a"
#define CLUSTER "\"cluster_name\":\"example\""
#define PROXY(more) "{" CLUSTER ",\"proxies\":[{\"id\":\"" UUID "\"," more "}]}"

static void refused(const char *text, const char *want)
{
	char *error = NULL;
	struct discovery *got = discovery_from_json(text, strlen(text), &error);

	if (got)
		fail_msg("not refused: %s", text);
	assert_string_equal(error, want);
	free(error);
}

static struct discovery *sample(void)
{
	struct discovery *discovery = calloc(1, sizeof(*discovery));
	struct discovery_proxy *proxy;

	strcpy(discovery->cluster_name, "example");
	discovery->keep_alive_interval_ms = 15000;
	discovery->keep_alive_count_max = 2;
	discovery->proxies = calloc(2, sizeof(discovery->proxies[0]));
	discovery->proxy_count = 2;
	proxy = &discovery->proxies[0];
	strcpy(proxy->id, UUID);
	strcpy(proxy->public_addr[0], "proxy.example.com:3080");
	strcpy(proxy->public_addr[1], "[::1]:3080");
	proxy->public_addr_count = 2;
	strcpy(proxy->tunnel_addr[0], "10.0.0.1:3024");
	proxy->tunnel_addr_count = 1;
	proxy->draining = true;
	proxy->strategy = DISCOVERY_PROXY_PEERING;
	proxy->agent_connection_count = 3;
	strcpy(proxy->group, "blue");
	proxy->generation = 1ull << 40;
	strcpy(proxy->region, "eu");
	strcpy(proxy->zone, "eu-1");
	strcpy(discovery->proxies[1].id,
		"0a1b2c3d-0000-4000-8000-00000000000b");
	strcpy(discovery->self_id, UUID);
	return discovery;
}

static void test_a_push_comes_back_as_it_was(void **state)
{
	struct discovery *out = sample();
	char *text = discovery_to_json(out, false);
	char *error = NULL;
	struct discovery *in = discovery_from_json(text, strlen(text), &error);

	assert_non_null(in);
	assert_string_equal(in->cluster_name, "example");
	assert_int_equal(in->keep_alive_interval_ms, 15000);
	assert_int_equal(in->keep_alive_count_max, 2);
	assert_string_equal(in->self_id, ""); /* of /webapi/find only */
	assert_int_equal(in->proxy_count, 2);
	assert_memory_equal(
		&in->proxies[0], &out->proxies[0], sizeof(out->proxies[0]));
	assert_int_equal(in->proxies[1].strategy, DISCOVERY_AGENT_MESH);
	discovery_free(in);
	discovery_free(out);
	free(text);
}

static void test_find_has_the_keys_of_the_reference(void **state)
{
	struct discovery *out = sample();
	char *text = discovery_to_json(out, true);
	char *error = NULL;
	struct discovery *in = discovery_from_json(text, strlen(text), &error);
	json_t *document = json_loads(text, 0, NULL);
	json_t *proxy = json_object_get(document, "proxy");
	json_t *ssh = json_object_get(proxy, "ssh");

	assert_non_null(in);
	assert_string_equal(in->self_id, UUID);
	assert_true(
		json_is_true(json_object_get(proxy, "tls_routing_enabled")));
	assert_string_equal("proxy.example.com:3080",
		json_string_value(json_object_get(ssh, "public_addr")));
	assert_string_equal("10.0.0.1:3024",
		json_string_value(
			json_object_get(ssh, "ssh_tunnel_public_addr")));
	assert_true(
		json_is_string(json_object_get(document, "server_version")));
	json_decref(document);
	discovery_free(in);
	discovery_free(out);
	free(text);
}

static void test_what_is_absent_has_its_default(void **state)
{
	const char text[] = "{" CLUSTER ",\"proxies\":[{\"id\":\"" UUID
			    "\",\"zone\":null}]}";
	char *error = NULL;
	struct discovery *in = discovery_from_json(text, strlen(text), &error);

	assert_non_null(in);
	assert_int_equal(in->proxies[0].strategy, DISCOVERY_AGENT_MESH);
	assert_int_equal(in->proxies[0].agent_connection_count, 1);
	assert_false(in->proxies[0].draining);
	assert_int_equal(in->keep_alive_interval_ms, 0);
	discovery_free(in);
}

static void test_refused_with_the_place(void **state)
{
	refused("7", "line 1: '[' or '{' expected near '7'");
	refused("{}", "cluster_name: is missing");
	refused("{\"cluster_name\":\"\"}", "cluster_name: is empty");
	refused("{" CLUSTER ",\"keep_alive_interval_ms\":-1}",
		"keep_alive_interval_ms: is not within 0 and 4294967295");
	refused("{" CLUSTER ",\"self_id\":\"me\"}", "self_id: is not a uuid");
	refused("{" CLUSTER ",\"proxies\":{}}", "proxies: is not a list");
	refused("{" CLUSTER ",\"proxies\":[\"a\"]}",
		"proxies[0]: is not an object");
	refused("{" CLUSTER ",\"proxies\":[{}]}", "proxies[0].id: is missing");
	refused("{" CLUSTER ",\"proxies\":[{\"id\":\"a\"}]}",
		"proxies[0].id: is not a uuid");
	refused(PROXY("\"public_addr\":\"a:1\""),
		"proxies[0].public_addr: is not a list");
	refused(PROXY("\"public_addr\":[\"a:1\",2]"),
		"proxies[0].public_addr[1]: is not a string");
	refused(PROXY("\"public_addr\":[\"a:99999\"]"),
		"proxies[0].public_addr[0]: is not host:port");
	refused(PROXY("\"tunnel_addr\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\","
		      "\"7\",\"8\",\"9\"]"),
		"proxies[0].tunnel_addr: has more than 8 entries");
	refused(PROXY("\"state\":\"asleep\""),
		"proxies[0].state: is neither serving nor draining");
	refused(PROXY("\"strategy\":\"mesh\""),
		"proxies[0].strategy: is neither agent_mesh nor "
		"proxy_peering");
	refused(PROXY("\"agent_connection_count\":\"1\""),
		"proxies[0].agent_connection_count: is not a whole number");
	refused(PROXY("\"generation\":1.0"),
		"proxies[0].generation: is not a whole number");
	refused(PROXY("\"group\":7"), "proxies[0].group: is not a string");
	refused(PROXY("\"zone\":\"a\\tb\""),
		"proxies[0].zone: has a control character");
}

static void test_proxies_are_counted(void **state)
{
	char *text = malloc(100000);
	size_t len = sprintf(text, "{" CLUSTER ",\"proxies\":[");

	for (int i = 0; i <= DISCOVERY_PROXIES_MAX; i++)
		len += sprintf(
			text + len, "%s{\"id\":\"" UUID "\"}", i ? "," : "");
	strcpy(text + len, "]}");
	refused(text, "proxies: has more than 1000 entries");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_push_comes_back_as_it_was),
		cmocka_unit_test(test_find_has_the_keys_of_the_reference),
		cmocka_unit_test(test_what_is_absent_has_its_default),
		cmocka_unit_test(test_refused_with_the_place),
		cmocka_unit_test(test_proxies_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
