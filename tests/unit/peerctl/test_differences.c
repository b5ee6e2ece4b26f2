/* SPDX-License-Identifier: Apache-2.0 */
/* peerctl/differences: authd, cache, routed and peerd held together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "peerctl/differences.h"

#define A "{\"agent_id\":\"a\",\"name\":\"one\"}"
#define B "{\"agent_id\":\"b\",\"name\":\"two\"}"
#define A_RENAMED "{\"agent_id\":\"a\",\"name\":\"other\"}"

static json_t *parse(const char *text)
{
	json_t *json = json_loads(text, 0, NULL);

	assert_non_null(json);
	return json;
}

static void expect(const char *routed_text, const char *tunnels_text,
	const char *status_text, const char *const *texts)
{
	json_t *routed = parse(routed_text);
	json_t *tunnels = parse(tunnels_text);
	json_t *status = parse(status_text);
	json_t *list = differences_of(routed, tunnels, status);
	size_t count = 0;

	for (; texts[count]; count++)
		assert_string_equal(
			json_string_value(json_object_get(
				json_array_get(list, count), "text")),
			texts[count]);
	assert_int_equal(json_array_size(list), count);
	json_decref(list);
	json_decref(status);
	json_decref(tunnels);
	json_decref(routed);
}

static void what_agrees_does_not_differ(void **state)
{
	const char *const none[] = {NULL};

	expect("{\"differences\":[],\"cache\":{\"path\":\"x\"},"
	       "\"tunnels\":{\"cache\":[" A "],\"routed\":[" A "]}}",
		"{\"tunnels\":[" A "]}", "{\"cache\":{\"path\":\"x\"}}", none);
}

static void the_caches_differences_are_worded(void **state)
{
	const char *const texts[] = {
		"the cache lacks the tunnel of db (a) at proxy p, which authd "
		"has",
		"the cache has the tunnel of web (b) at proxy p otherwise "
		"than authd",
		"the cache has proxy p, which authd has not", NULL};

	expect("{\"differences\":["
	       "{\"kind\":\"missing\",\"record\":\"tunnel\",\"agent\":\"db\","
	       "\"agent_id\":\"a\",\"proxy_id\":\"p\"},"
	       "{\"kind\":\"differs\",\"record\":\"tunnel\",\"agent\":\"web\","
	       "\"agent_id\":\"b\",\"proxy_id\":\"p\"},"
	       "{\"kind\":\"extra\",\"record\":\"proxy\",\"proxy_id\":\"p\"}]}",
		"{}", "{}", texts);
}

static void tunnels_are_held_against_the_cache_and_routed(void **state)
{
	const char *const texts[] = {
		"one (a) is in the cache as held by this host, and no worker "
		"has its tunnel",
		"two (b) has a tunnel to this host, and the cache does not "
		"know of it",
		"two (b) has a tunnel that peerd was told of and routed was "
		"not",
		NULL};

	expect("{\"tunnels\":{\"cache\":[" A "],\"routed\":[]}}",
		"{\"tunnels\":[" B "]}", "{}", texts);
}

static void a_name_that_differs_is_told(void **state)
{
	const char *const texts[] = {
		"other (a) has another name in the cache than its tunnel",
		NULL};

	expect("{\"tunnels\":{\"cache\":[" A_RENAMED "],\"routed\":[" A "]}}",
		"{\"tunnels\":[" A "]}", "{}", texts);
}

static void peerd_with_another_file_is_told(void **state)
{
	const char *const texts[] = {
		"peerd reads the cache (none) and routed writes x", NULL};

	expect("{\"cache\":{\"path\":\"x\"}}", "{}", "{\"cache\":null}", texts);
}

static void only_what_is_there_each_time_lasts(void **state)
{
	json_t *first = parse("[" A "," B "]");
	json_t *second = parse("[" A_RENAMED "," B "]");
	json_t *lasting = differences_lasting(first, second);

	assert_int_equal(json_array_size(lasting), 1);
	assert_true(json_equal(
		json_array_get(lasting, 0), json_array_get(first, 1)));
	json_decref(lasting);
	json_decref(second);
	json_decref(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_agrees_does_not_differ),
		cmocka_unit_test(the_caches_differences_are_worded),
		cmocka_unit_test(tunnels_are_held_against_the_cache_and_routed),
		cmocka_unit_test(a_name_that_differs_is_told),
		cmocka_unit_test(peerd_with_another_file_is_told),
		cmocka_unit_test(only_what_is_there_each_time_lasts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
