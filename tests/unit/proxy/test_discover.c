/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "proxy/discover.h"
#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/discovery.h"

#define SELF "11111111-2222-4333-8444-555555555555"
#define OTHER "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

static char *self_addr[] = {(char *)"proxy1.example.com:3080"};
static const struct conf conf = {
	.cluster_name = (char *)"example",
	.auth = {.keep_alive_interval = 15000, .keep_alive_count_max = 2},
	.proxy = {.public_addr = self_addr,
		.public_addr_count = 1,
		.group = (char *)"",
		.region = (char *)"eu",
		.zone = (char *)""},
};

struct fixture {
	char directory[64];
	char *path;
	struct cache *cache;
	struct discover *discover;
};

static void insert(sqlite3 *db, const char *sql, const ProtobufCMessage *record)
{
	uint8_t packed[1000];
	size_t len = protobuf_c_message_pack(record, packed);
	sqlite3_stmt *statement;

	assert_int_equal(
		sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
	sqlite3_bind_blob(statement, 1, packed, (int)len, SQLITE_STATIC);
	assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
	sqlite3_finalize(statement);
}

static void put_proxy(sqlite3 *db, const char *id, const char *addr)
{
	Peerway__Record__ProxyRecord record =
		PEERWAY__RECORD__PROXY_RECORD__INIT;
	Peerway__Record__TunnelStrategy strategy =
		PEERWAY__RECORD__TUNNEL_STRATEGY__INIT;
	char *addrs[] = {(char *)addr};
	char sql[200];

	strategy.type = PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING;
	strategy.agent_connection_count = 2;
	record.id = (char *)id;
	record.public_addr = addrs;
	record.n_public_addr = 1;
	record.strategy = &strategy;
	snprintf(sql, sizeof(sql),
		"INSERT INTO proxy(id, peer_addr, state, record)"
		" VALUES ('%s', '', 0, ?1)",
		id);
	insert(db, sql, &record.base);
}

static sqlite3 *open_db(struct fixture *f)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	return db;
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char version[40];
	char *error = NULL;
	sqlite3 *db;

	strcpy(f->directory, "/tmp/test_discover.XXXXXX");
	if (!mkdtemp(f->directory))
		return -1;
	f->path = xasprintf("%s/cache-1.db", f->directory);
	snprintf(version, sizeof(version), "PRAGMA user_version = %d",
		CACHE_SCHEMA);
	db = open_db(f);
	sqlite3_exec(db, cache_schema_sql, NULL, NULL, NULL);
	sqlite3_exec(db, version, NULL, NULL, NULL);
	sqlite3_close(db);
	f->cache = cache_open(f->path, &error);
	f->discover = discover_new(&conf, SELF);
	*state = f;
	return f->cache ? 0 : -1;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	discover_free(f->discover);
	cache_close(f->cache);
	snprintf(command, sizeof(command), "rm -r %s", f->directory);
	free(f->path);
	free(f);
	return system(command);
}

static struct discovery *pushed(struct fixture *f)
{
	const char *text = discover_push(f->discover);
	char *error = NULL;
	struct discovery *discovery =
		discovery_from_json(text, strlen(text), &error);

	if (!discovery)
		fail_msg("%s: %s", text, error);
	return discovery;
}

static void test_a_proxy_tells_of_itself_before_its_record_has_come(
	void **state)
{
	struct fixture *f = *state;
	struct discovery *discovery;
	sqlite3 *db = open_db(f);

	put_proxy(db, OTHER, "proxy2.example.com:3080");
	sqlite3_close(db);
	assert_true(discover_refresh(f->discover, f->cache));
	discovery = pushed(f);
	assert_int_equal(discovery->proxy_count, 2);
	assert_string_equal(discovery->proxies[0].id, OTHER);
	assert_string_equal(discovery->proxies[1].id, SELF);
	assert_string_equal(discovery->proxies[1].public_addr[0],
		"proxy1.example.com:3080");
	assert_string_equal(discovery->proxies[1].region, "eu");
	discovery_free(discovery);
}

static void test_a_record_wins_over_the_configuration(void **state)
{
	struct fixture *f = *state;
	struct discovery *discovery;
	sqlite3 *db = open_db(f);

	put_proxy(db, SELF, "new.example.com:3080");
	sqlite3_close(db);
	assert_true(discover_refresh(f->discover, f->cache));
	discovery = pushed(f);
	assert_int_equal(discovery->proxy_count, 1);
	assert_string_equal(
		discovery->proxies[0].public_addr[0], "new.example.com:3080");
	assert_int_equal(
		discovery->proxies[0].strategy, DISCOVERY_PROXY_PEERING);
	assert_int_equal(discovery->proxies[0].agent_connection_count, 2);
	discovery_free(discovery);
	/* nothing new: agents need not hear it again */
	assert_false(discover_refresh(f->discover, f->cache));
}

static void test_keepalive_is_the_cluster_s(void **state)
{
	struct fixture *f = *state;
	struct tunnel_settings settings = {0};
	Peerway__Record__ClusterConfig config =
		PEERWAY__RECORD__CLUSTER_CONFIG__INIT;
	sqlite3 *db = open_db(f);

	discover_keepalive(f->discover, &settings);
	assert_int_equal(settings.ping_interval_ms, 15000);
	assert_int_equal(settings.ping_count_max, 2);
	config.keep_alive_interval_ms = 1000;
	config.keep_alive_count_max = 7;
	insert(db, "INSERT INTO config(id, record) VALUES (1, ?1)",
		&config.base);
	sqlite3_close(db);
	discover_refresh(f->discover, f->cache);
	discover_keepalive(f->discover, &settings);
	assert_int_equal(settings.ping_interval_ms, 1000);
	assert_int_equal(settings.ping_count_max, 7);
	assert_non_null(strstr(discover_find(f->discover), "\"" SELF "\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_a_proxy_tells_of_itself_before_its_record_has_come,
			set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_record_wins_over_the_configuration, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			test_keepalive_is_the_cluster_s, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
