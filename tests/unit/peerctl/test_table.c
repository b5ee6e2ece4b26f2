/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "peerctl/table.h"

static const char *const headings[] = {"NAME", "COUNT", "LIST", NULL};

/* What table_print() writes where stdout is no terminal. */
static void print_to(const struct table *table, char *text, size_t size)
{
	FILE *file = tmpfile();
	int saved = dup(STDOUT_FILENO);
	size_t len;

	fflush(stdout);
	dup2(fileno(file), STDOUT_FILENO);
	table_print(table);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	rewind(file);
	len = fread(text, 1, size - 1, file);
	text[len] = '\0';
	fclose(file);
}

static void rows_have_tabs_and_no_control_characters(void **state)
{
	struct table *table = table_new(headings);
	json_t *object = json_pack("{s:s,s:i,s:s,s:b}", "n", "a\tb\033[1m", "c",
		5, "e", "", "t", 1);
	json_t *list = json_pack("[s,s]", "x", "y");
	char text[256];

	table_member(table, object, "n");
	table_member(table, object, "c");
	table_list(table, list);
	table_member(table, object, "e");
	table_member(table, object, "absent");
	table_list(table, NULL);
	table_member(table, object, "t");
	table_cell(table, "%d%%", 7);
	table_cell(table, "end");
	assert_int_equal(table_rows(table), 3);
	print_to(table, text, sizeof(text));
	assert_string_equal(text, "NAME\tCOUNT\tLIST\n"
				  "a?b?[1m\t5\tx,y\n"
				  "-\t-\t-\n"
				  "yes\t7%\tend\n");
	table_free(table);
	json_decref(object);
	json_decref(list);
}

static void durations_have_two_units(void **state)
{
	static const struct {
		int64_t seconds;
		const char *text;
	} cases[] = {{0, "0s"}, {59, "59s"}, {61, "1m1s"}, {3600, "1h0m"},
		{86399, "23h59m"}, {90000, "1d1h"}};
	char text[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		table_duration(cases[i].seconds, text, sizeof(text));
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_have_tabs_and_no_control_characters),
		cmocka_unit_test(durations_have_two_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
