/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/registry.h"
#include "shared/alloc.h"

#define AGENT_A "11111111-2222-4333-8444-555555555555"
#define AGENT_B "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

static struct registration *registration(
	const char *agent_id, const char *name, const char *service)
{
	struct registration *r = xcalloc(1, sizeof(*r));

	strcpy(r->agent_id, agent_id);
	strcpy(r->name, name);
	r->services = xcalloc(1, sizeof(*r->services));
	r->service_count = 1;
	strcpy(r->services[0].name, service);
	strcpy(r->services[0].type, "db");
	r->services[0].port = 5432;
	return r;
}

static size_t match(struct registry *registry, const char *agent,
	const char *agent_id, struct target_match *out, size_t max)
{
	struct target target = {0};

	strcpy(target.agent, agent);
	strcpy(target.agent_id, agent_id);
	return registry_match(registry, &target, out, max);
}

static void test_the_newest_tunnel_of_an_agent_comes_first(void **state)
{
	struct registry *registry = registry_new();
	struct registry_entry *a1, *a2, *b;

	(void)state;
	assert_null(registry_newest(registry, AGENT_A));
	a1 = registry_add(
		registry, registration(AGENT_A, "a", "pg"), NULL, 1, "x:1");
	b = registry_add(
		registry, registration(AGENT_B, "b", "pg"), NULL, 2, "x:2");
	a2 = registry_add(
		registry, registration(AGENT_A, "a", "pg"), NULL, 3, "x:3");
	assert_int_equal(registry_count(registry), 3);
	assert_ptr_equal(registry_newest(registry, AGENT_A), a2);
	assert_ptr_equal(registry_older(a2), a1);
	assert_null(registry_older(a1));
	assert_ptr_equal(registry_by_tunnel(registry, b->tunnel_id), b);
	assert_null(registry_by_tunnel(registry, 77));
	registry_remove(registry, a2);
	assert_ptr_equal(registry_newest(registry, AGENT_A), a1);
	assert_ptr_equal(registry_next(registry, NULL), a1);
	assert_ptr_equal(registry_next(registry, a1), b);
	assert_null(registry_next(registry, b));
	registry_free(registry);
}

static void test_ids_are_not_used_again(void **state)
{
	struct registry *registry = registry_new();
	uint64_t last = 0;

	(void)state;
	for (int i = 0; i < 10; i++) {
		struct registry_entry *entry = registry_add(registry,
			registration(AGENT_A, "a", "pg"), NULL, 1, "x:1");

		assert_true(entry->tunnel_id > last);
		last = entry->tunnel_id;
		registry_remove(registry, entry);
	}
	registry_free(registry);
}

static void test_names_match_each_agent_once(void **state)
{
	struct registry *registry = registry_new();
	struct registry_entry *a;
	struct target_match found[8];

	(void)state;
	a = registry_add(
		registry, registration(AGENT_A, "db", "old"), NULL, 1, "x:1");
	registry_add(
		registry, registration(AGENT_A, "db", "pg"), NULL, 2, "x:2");
	assert_int_equal(match(registry, "db", "", found, 8), 1);
	assert_string_equal(found[0].service, "pg");
	assert_int_equal(found[0].port, 5432);
	registry_remove(registry, a);

	registry_add(
		registry, registration(AGENT_B, "db", "web"), NULL, 3, "x:3");
	assert_int_equal(match(registry, "db", "", found, 8), 2);
	assert_int_equal(match(registry, "db", "", found, 1), 1);
	assert_int_equal(match(registry, "", AGENT_B, found, 8), 1);
	assert_string_equal(found[0].agent, "db");
	assert_int_equal(match(registry, "x", "", found, 8), 0);
	registry_free(registry);
}

static void test_a_changed_registration_replaces_the_old(void **state)
{
	struct registry *registry = registry_new();
	struct registry_entry *entry;
	struct target_match found[8];

	(void)state;
	entry = registry_add(
		registry, registration(AGENT_A, "db", "pg"), NULL, 1, "x:1");
	registry_update(entry, registration(AGENT_A, "db", "web"));
	assert_int_equal(match(registry, "db", "", found, 8), 1);
	assert_string_equal(found[0].service, "web");
	registry_free(registry);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_the_newest_tunnel_of_an_agent_comes_first),
		cmocka_unit_test(test_ids_are_not_used_again),
		cmocka_unit_test(test_names_match_each_agent_once),
		cmocka_unit_test(test_a_changed_registration_replaces_the_old),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
