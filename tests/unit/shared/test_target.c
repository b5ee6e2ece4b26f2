/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/target.h"

#define UUID_A "11111111-2222-4333-8444-555555555555"
#define UUID_B "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

static struct target parsed(const char *text)
{
	struct target target;
	const char *reason = NULL;

	if (target_parse(text, "example", &target, &reason) != 0)
		fail_msg("%s: %s", text, reason);
	return target;
}

static void test_every_form_is_read(void **state)
{
	static const struct {
		const char *text, *service, *agent, *agent_id;
		uint16_t port;
	} rows[] = {
		{"db-1", "", "db-1", "", 0},
		{"DB-1:22", "", "db-1", "", 22},
		{"pg.db-1", "pg", "db-1", "", 0},
		{"pg.db-1.example:5432", "pg", "db-1", "", 5432},
		{"db-1.Example", "", "db-1", "", 0},
		{"example", "", "example", "", 0},
		{"example.example", "", "example", "", 0},
		{UUID_A, "", "", UUID_A, 0},
		{"pg." UUID_A ".example:1", "pg", "", UUID_A, 1},
		{"a:65535", "", "a", "", 65535},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct target target = parsed(rows[i].text);

		assert_string_equal(target.service, rows[i].service);
		assert_string_equal(target.agent, rows[i].agent);
		assert_string_equal(target.agent_id, rows[i].agent_id);
		assert_int_equal(target.port, rows[i].port);
	}
}

static void test_a_cluster_may_have_dots(void **state)
{
	struct target target;
	const char *reason;

	(void)state;
	assert_int_equal(target_parse("pg.db.a.example.org:1", "a.example.org",
				 &target, &reason),
		0);
	assert_string_equal(target.service, "pg");
	assert_string_equal(target.agent, "db");
}

static void test_what_is_no_target_is_refused(void **state)
{
	static const char *const rows[] = {"", ":", ":22", "a:", "a:0", "a:01",
		"a:65536", "a:99999999999", "a:1:2", "[::1]:22", ".", "a.",
		".a", "a..b", "a.b.c", "a.b.other", "a b", "a/b", "a_b", "\x80",
		"a:2x", ".example"};
	struct target target;
	char long_text[1000];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *reason = NULL;

		if (!target_parse(rows[i], "example", &target, &reason))
			fail_msg("accepted: %s", rows[i]);
		assert_non_null(reason);
	}
	memset(long_text, 'a', sizeof(long_text));
	long_text[999] = '\0';
	for (size_t len = 999; len > 63; len--) {
		const char *reason = NULL;

		long_text[len] = '\0';
		assert_int_equal(
			target_parse(long_text, "example", &target, &reason),
			-EINVAL);
	}
	long_text[63] = '\0';
	parsed(long_text);
}

static const struct target_match one_agent[] = {
	{UUID_A, "db", "ssh", "node", 22},
	{UUID_A, "db", "pg", "db", 5432},
	{UUID_A, "db", "web", "app", 8080},
};
static const struct target_match two_agents[] = {
	{UUID_A, "db", "pg", "db", 5432},
	{UUID_B, "db", "pg", "db", 5433},
	{UUID_B, "db", "ssh", "node", 22},
};

static void check_one(const char *text, const struct target_match *matches,
	size_t count, size_t expected)
{
	struct target target = parsed(text);
	size_t index = 99;
	char why[500] = "";

	if (target_choose(&target, matches, count, &index, why, sizeof(why)) !=
		TARGET_ONE)
		fail_msg("%s: %s", text, why);
	assert_int_equal(index, expected);
}

static void test_a_service_is_singled_out(void **state)
{
	(void)state;
	check_one("pg.db", one_agent, 3, 1);
	/* the name decides, whatever port an HTTP library puts behind it */
	check_one("pg.db:80", one_agent, 3, 1);
	check_one("db:22", one_agent, 3, 0);
	check_one("db:80", one_agent, 1, 0);
	check_one("db", one_agent, 1, 0);
	check_one("ssh.db", two_agents, 3, 2);
}

static void check_text(const char *text, const struct target_match *matches,
	size_t count, enum target_result expected, const char *expected_text)
{
	struct target target = parsed(text);
	size_t index = 99;
	char why[500] = "";

	assert_int_equal(target_choose(&target, matches, count, &index, why,
				 sizeof(why)),
		expected);
	assert_string_equal(why, expected_text);
	assert_int_equal(index, 99);
}

static void test_the_reason_names_the_candidates(void **state)
{
	(void)state;
	check_text("db", NULL, 0, TARGET_NONE, "no agent db is online");
	check_text("x.db", one_agent, 2, TARGET_NONE,
		"agent db has no service x; it has: ssh.db (node, port 22), "
		"pg.db (db, port 5432)");
	check_text("db", one_agent, 2, TARGET_AMBIGUOUS,
		"db is ambiguous, write one of: ssh.db (node, port 22), "
		"pg.db (db, port 5432)");
	check_text("db:80", one_agent, 2, TARGET_NONE,
		"agent db has no service at port 80; it has: ssh.db (node, "
		"port 22), pg.db (db, port 5432)");
	/* two agents of one name, even where the port tells them apart */
	check_text("pg.db:5433", two_agents, 2, TARGET_AMBIGUOUS,
		"db is ambiguous, write one of: pg." UUID_A
		" (db, port 5432), pg." UUID_B " (db, port 5433)");
}

static void test_a_long_list_is_cut(void **state)
{
	struct target_match many[40];
	struct target target = parsed("db");
	size_t index;
	char why[2000];
	char small[20];
	size_t commas = 0;

	(void)state;
	for (size_t i = 0; i < 40; i++)
		many[i] = one_agent[i % 3];
	assert_int_equal(
		target_choose(&target, many, 40, &index, why, sizeof(why)),
		TARGET_AMBIGUOUS);
	for (const char *c = why; *c; c++)
		commas += *c == ')';
	assert_int_equal(commas, 8);
	assert_non_null(strstr(why, ", ..."));
	target_choose(&target, many, 40, &index, small, sizeof(small));
	assert_int_equal(strlen(small), sizeof(small) - 1);
}

static void test_own_matches_come_before_the_caches(void **state)
{
	const struct target_match cached[] = {
		{.agent_id = UUID_A, .service = "stale"},
		{.agent_id = UUID_B, .service = "ssh"},
		{.agent_id = UUID_B, .service = "web"}};
	struct target_match list[3] = {
		{.agent_id = UUID_A, .service = "fresh"}};

	assert_int_equal(target_unite(list, 1, 3, cached, 3), 3);
	assert_string_equal(list[0].service, "fresh");
	assert_string_equal(list[1].service, "ssh");
	assert_string_equal(list[2].service, "web");
	assert_int_equal(target_unite(list, 1, 2, cached, 3), 2);
	assert_int_equal(target_unite(list, 0, 3, cached, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_matches_come_before_the_caches),
		cmocka_unit_test(test_every_form_is_read),
		cmocka_unit_test(test_a_cluster_may_have_dots),
		cmocka_unit_test(test_what_is_no_target_is_refused),
		cmocka_unit_test(test_a_service_is_singled_out),
		cmocka_unit_test(test_the_reason_names_the_candidates),
		cmocka_unit_test(test_a_long_list_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
