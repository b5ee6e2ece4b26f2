/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/duplicates: which proxies advertise one peer address. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "peerd/duplicates.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* "addr=id,id;" for each group */
static void write_group(void *arg, const struct advert *group, size_t count)
{
	char *text = arg;

	sprintf(text + strlen(text), "%s=", group[0].addr);
	for (size_t i = 0; i < count; i++)
		sprintf(text + strlen(text), "%s%s", i ? "," : "", group[i].id);
	strcat(text, ";");
}

static void expect(struct advert *adverts, size_t count, const char *groups)
{
	char text[256] = "";

	duplicates_find(adverts, count, write_group, text);
	assert_string_equal(text, groups);
}

static void nobody_and_one_alone_are_no_duplicates(void **state)
{
	struct advert one[] = {{"a", "host", "proxy-1:3021"}};

	expect(one, 0, "");
	expect(one, 1, "");
}

static void different_addresses_are_no_duplicates(void **state)
{
	struct advert adverts[] = {{"a", "", "proxy-1:3021"},
		{"b", "", "proxy-2:3021"}, {"c", "", "proxy-1:3022"}};

	expect(adverts, COUNT(adverts), "");
}

static void each_group_is_told_once_with_all_of_it(void **state)
{
	struct advert adverts[] = {{"e", "", "z:1"}, {"c", "", "y:1"},
		{"b", "", "x:1"}, {"a", "", "z:1"}, {"d", "", "x:1"},
		{"f", "", "z:1"}};

	expect(adverts, COUNT(adverts), "x:1=b,d;z:1=a,e,f;");
}

static void names_differ_in_case_and_are_one(void **state)
{
	struct advert adverts[] = {
		{"b", "", "Proxy.Example:1"}, {"a", "", "proxy.example:1"}};

	expect(adverts, COUNT(adverts), "proxy.example:1=a,b;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_and_one_alone_are_no_duplicates),
		cmocka_unit_test(different_addresses_are_no_duplicates),
		cmocka_unit_test(each_group_is_told_once_with_all_of_it),
		cmocka_unit_test(names_differ_in_case_and_are_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
