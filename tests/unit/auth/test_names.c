/* SPDX-License-Identifier: Apache-2.0 */
/* Which names a certificate may get from outside. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "auth/names.h"

static void test_names_and_addresses_are_taken(void **state)
{
	static const char *const good[] = {"proxy1.example.com", "localhost",
		"*.example.com", "a-b.c", "127.0.0.1", "::1", "2001:db8::7",
		"x1.2y", "1and1.com"};
	struct names names = {0};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(0, names_add(&names, good[i]));
	assert_int_equal(9, names.count);
	assert_true(names_is_address("::1"));
	assert_false(names_is_address("localhost"));
	names_deinit(&names);
	assert_int_equal(0, names.count);
}

static void test_everything_else_is_refused(void **state)
{
	static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "-a.b",
		"a-.b", "a b", "a/b", "a_b", "*", "*.", "a.*.b", "1.2.3",
		"256.1.1.1", "1.2.3.4.5", "127.0.0.1:80", "[::1]", "name\n.com",
		"n\xc3\xa4me.com", "teleport.cluster.local",
		"x.teleport.cluster.local", "X.Teleport.Cluster.Local"};
	struct names names = {0};
	char label[80];
	char longest[300] = "";

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (names_add(&names, bad[i]) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
	memset(label, 'a', sizeof(label));
	label[64] = '\0';
	assert_int_equal(-EINVAL, names_add(&names, label));
	label[63] = '\0';
	assert_int_equal(0, names_add(&names, label));
	for (int i = 0; i < 127; i++)
		strcat(longest, "a.");
	strcat(longest, "bc");
	assert_int_equal(-EINVAL, names_add(&names, longest));
	names_deinit(&names);
}

static void test_list_is_bounded_and_without_doubles(void **state)
{
	struct names names = {0};
	char name[32];

	for (int i = 0; i < NAMES_MAX; i++) {
		snprintf(name, sizeof(name), "H%d.example.com", i);
		assert_int_equal(0, names_add(&names, name));
	}
	assert_int_equal(0, names_add(&names, "h3.EXAMPLE.com"));
	assert_int_equal(NAMES_MAX, names.count);
	assert_int_equal(-ENOSPC, names_add(&names, "more.example.com"));
	assert_true(names_has(&names, "H31.Example.com"));
	assert_false(names_has(&names, "h32.example.com"));
	names_deinit(&names);
}

static void test_json_both_ways(void **state)
{
	struct names names = {0};
	struct names again;
	json_t *json;

	names_add(&names, "a.example.com");
	names_add(&names, "10.0.0.1");
	json = names_to_json(&names);
	assert_int_equal(0, names_from_json(json, &again));
	assert_int_equal(2, again.count);
	assert_string_equal("10.0.0.1", again.items[1]);
	names_deinit(&again);
	json_array_append_new(json, json_integer(3));
	assert_int_equal(-EINVAL, names_from_json(json, &again));
	names_deinit(&again);
	assert_int_equal(0, names_from_json(NULL, &again));
	assert_int_equal(0, again.count);
	json_decref(json);
	json = json_string("a.example.com");
	assert_int_equal(-EINVAL, names_from_json(json, &again));
	json_decref(json);
	names_deinit(&names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_addresses_are_taken),
		cmocka_unit_test(test_everything_else_is_refused),
		cmocka_unit_test(test_list_is_bounded_and_without_doubles),
		cmocka_unit_test(test_json_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
