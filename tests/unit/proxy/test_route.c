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

#include "proxy/registry.h"
#include "proxy/route.h"
#include "shared/alloc.h"

#define AGENT_A "11111111-2222-4333-8444-555555555555"
#define AGENT_B "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
#define PROXY "99999999-2222-4333-8444-555555555555"

struct fixture {
	char directory[64];
	char path[128];
	struct registry *registry;
	struct routes *routes;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	strcpy(f->directory, "/tmp/test_route.XXXXXX");
	if (!mkdtemp(f->directory))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/cache-3.db", f->directory);
	f->registry = registry_new();
	f->routes = routes_new("example", f->registry);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	routes_free(f->routes);
	registry_free(f->registry);
	snprintf(command, sizeof(command), "rm -r %s", f->directory);
	free(f);
	return system(command);
}

static void add_own(struct fixture *f, const char *agent_id, const char *name,
	const char *service)
{
	struct registration *r = xcalloc(1, sizeof(*r));

	strcpy(r->agent_id, agent_id);
	strcpy(r->name, name);
	r->services = xcalloc(1, sizeof(*r->services));
	r->service_count = 1;
	strcpy(r->services[0].name, service);
	strcpy(r->services[0].type, "db");
	registry_add(f->registry, r, NULL, 1, "x:1");
}

static void must(sqlite3 *db, const char *sql)
{
	char *error = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
}

/* What routed would write for an agent with one service. */
static void put_tunnel(sqlite3 *db, const char *agent_id, const char *name,
	const char *service_name, uint32_t port)
{
	Peerway__Record__TunnelRecord record =
		PEERWAY__RECORD__TUNNEL_RECORD__INIT;
	Peerway__Record__Service service = PEERWAY__RECORD__SERVICE__INIT;
	Peerway__Record__Service *services[] = {&service};
	sqlite3_stmt *statement;
	uint8_t bytes[512];
	size_t len;

	service.name = (char *)service_name;
	service.type = (char *)"db";
	service.port = port;
	record.agent_id = (char *)agent_id;
	record.proxy_id = (char *)PROXY;
	record.name = (char *)name;
	record.services = services;
	record.n_services = 1;
	len = peerway__record__tunnel_record__pack(&record, bytes);
	assert_int_equal(
		sqlite3_prepare_v2(db,
			"INSERT INTO tunnel(agent_id, proxy_id, name, since_ms,"
			" record) VALUES (?1, '" PROXY "', ?2, 5, ?3)",
			-1, &statement, NULL),
		SQLITE_OK);
	sqlite3_bind_text(statement, 1, agent_id, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, name, -1, SQLITE_STATIC);
	sqlite3_bind_blob(statement, 3, bytes, (int)len, SQLITE_STATIC);
	assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
	sqlite3_finalize(statement);
}

static void make_cache(struct fixture *f)
{
	char version[40];
	sqlite3 *db;

	snprintf(version, sizeof(version), "PRAGMA user_version = %d",
		CACHE_SCHEMA);
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	must(db, cache_schema_sql);
	must(db, version);
	put_tunnel(db, AGENT_A, "db", "old", 1);
	put_tunnel(db, AGENT_B, "web", "www", 80);
	sqlite3_close(db);
}

static enum route_result resolve(
	struct fixture *f, const char *text, struct target_match *out)
{
	char why[ROUTE_TEXT_MAX] = "";
	enum route_result result = route_resolve(f->routes, text, out, why);

	assert_int_equal(result == ROUTE_FOUND, why[0] == '\0');
	return result;
}

static void test_own_tunnels_are_found_without_a_cache(void **state)
{
	struct fixture *f = *state;
	struct target_match found;

	add_own(f, AGENT_A, "db", "pg");
	assert_int_equal(resolve(f, "pg.db", &found), ROUTE_FOUND);
	assert_string_equal(found.agent_id, AGENT_A);
	assert_int_equal(resolve(f, "web", &found), ROUTE_BLIND);
	assert_int_equal(resolve(f, "a..b", &found), ROUTE_INVALID);
}

static void test_own_registration_wins_over_its_record(void **state)
{
	struct fixture *f = *state;
	struct target_match found;
	char *error = NULL;

	make_cache(f);
	add_own(f, AGENT_A, "db", "pg");
	assert_int_equal(routes_open(f->routes, f->path, &error), 0);
	assert_int_equal(routes_open(f->routes, f->path, &error), 0);
	assert_int_equal(resolve(f, "db", &found), ROUTE_FOUND);
	assert_string_equal(found.service, "pg");
	assert_int_equal(resolve(f, "old.db", &found), ROUTE_UNKNOWN);
	assert_int_equal(resolve(f, "web", &found), ROUTE_FOUND);
	assert_string_equal(found.agent_id, AGENT_B);
	assert_int_equal(found.port, 80);
	assert_int_equal(resolve(f, "nobody", &found), ROUTE_UNKNOWN);
}

static void test_two_agents_of_one_name_are_ambiguous(void **state)
{
	struct fixture *f = *state;
	struct target_match found;
	char *error = NULL;

	make_cache(f);
	add_own(f, AGENT_A, "web", "www");
	assert_int_equal(routes_open(f->routes, f->path, &error), 0);
	assert_int_equal(resolve(f, "www.web", &found), ROUTE_AMBIGUOUS);
	assert_int_equal(resolve(f, "www." AGENT_B, &found), ROUTE_FOUND);
	assert_string_equal(found.agent_id, AGENT_B);
}

static void test_a_bad_file_leaves_the_old_one(void **state)
{
	struct fixture *f = *state;
	struct target_match found;
	char *error = NULL;

	make_cache(f);
	assert_int_equal(routes_open(f->routes, f->path, &error), 0);
	assert_true(routes_open(f->routes, "/nonexistent", &error) < 0);
	assert_non_null(error);
	free(error);
	assert_int_equal(resolve(f, "web", &found), ROUTE_FOUND);
}

static void test_each_outcome_has_its_status(void **state)
{
	(void)state;
	assert_int_equal(route_status(ROUTE_INVALID), 400);
	assert_int_equal(route_status(ROUTE_UNKNOWN), 404);
	assert_int_equal(route_status(ROUTE_AMBIGUOUS), 409);
	assert_int_equal(route_status(ROUTE_BLIND), 503);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_own_tunnels_are_found_without_a_cache, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			test_own_registration_wins_over_its_record, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			test_two_agents_of_one_name_are_ambiguous, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_bad_file_leaves_the_old_one, set_up, tear_down),
		cmocka_unit_test(test_each_outcome_has_its_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
