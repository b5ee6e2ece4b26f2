/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables on stdout. Much of what is shown was said by other hosts (names,
 * errors), so every cell loses its control characters before it can reach a
 * terminal.
 */
#include "peerctl/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/alloc.h"

struct table {
	const char *const *headings;
	unsigned columns;
	char **cells;
	unsigned count;
};

static const struct {
	const char *text;
	const char *colour;
} colours[] = {
	{"ready", "32"},
	{"connected", "32"},
	{"running", "32"},
	{"connecting", "33"},
	{"draining", "33"},
	{"unreachable", "31"},
	{"away", "31"},
};

struct table *table_new(const char *const *headings)
{
	struct table *table = xcalloc(1, sizeof(*table));

	table->headings = headings;
	while (headings[table->columns])
		table->columns++;
	return table;
}

void table_free(struct table *table)
{
	if (!table)
		return;
	for (unsigned i = 0; i < table->count; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table);
}

static void add_cell(struct table *table, char *text) /* takes text */
{
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	table->cells = xrealloc(
		table->cells, (table->count + 1) * sizeof(*table->cells));
	table->cells[table->count++] = text;
}

void table_cell(struct table *table, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	add_cell(table, xvasprintf(format, ap));
	va_end(ap);
}

void table_member(struct table *table, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_string(value) && *json_string_value(value))
		table_cell(table, "%s", json_string_value(value));
	else if (json_is_integer(value))
		table_cell(table, "%" JSON_INTEGER_FORMAT,
			json_integer_value(value));
	else if (json_is_boolean(value))
		table_cell(table, "%s", json_is_true(value) ? "yes" : "no");
	else
		table_cell(table, "-");
}

void table_list(struct table *table, const json_t *array)
{
	char *text = xstrdup("");
	size_t i;
	json_t *value;

	json_array_foreach(array, i, value)
	{
		char *longer = xasprintf("%s%s%s", text, i ? "," : "",
			json_is_string(value) ? json_string_value(value) : "?");

		free(text);
		text = longer;
	}
	table_cell(table, "%s", *text ? text : "-");
	free(text);
}

unsigned table_rows(const struct table *table)
{
	return table->count / table->columns;
}

static bool use_colours(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !getenv("NO_COLOR") && term &&
	       strcmp(term, "dumb");
}

static void print_tabbed(const struct table *table)
{
	for (unsigned i = 0; i < table->columns; i++)
		printf("%s%s", i ? "\t" : "", table->headings[i]);
	putchar('\n');
	for (unsigned i = 0; i < table->count; i++)
		printf("%s%c", table->cells[i],
			(i + 1) % table->columns ? '\t' : '\n');
}

static void print_padded(const char *text, unsigned width, const char *colour)
{
	if (colour)
		printf("\033[%sm%s\033[0m", colour, text);
	else
		fputs(text, stdout);
	for (unsigned len = strlen(text); len < width; len++)
		putchar(' ');
}

static void print_aligned(const struct table *table)
{
	unsigned width[TABLE_COLUMNS_MAX];
	bool colour = use_colours();

	for (unsigned i = 0; i < table->columns; i++)
		width[i] = strlen(table->headings[i]);
	for (unsigned i = 0; i < table->count; i++) {
		unsigned *w = &width[i % table->columns];
		unsigned len = strlen(table->cells[i]);

		if (len > *w)
			*w = len;
	}
	/* The last column needs no padding. */
	width[table->columns - 1] = 0;
	for (unsigned i = 0; i < table->columns; i++) {
		print_padded(table->headings[i], width[i], colour ? "1" : NULL);
		fputs(i + 1 < table->columns ? "  " : "\n", stdout);
	}
	for (unsigned i = 0; i < table->count; i++) {
		const char *code = NULL;

		for (size_t c = 0;
			colour && c < sizeof(colours) / sizeof(colours[0]); c++)
			if (!strcmp(colours[c].text, table->cells[i]))
				code = colours[c].colour;
		print_padded(table->cells[i], width[i % table->columns], code);
		fputs((i + 1) % table->columns ? "  " : "\n", stdout);
	}
}

void table_print(const struct table *table)
{
	if (isatty(STDOUT_FILENO))
		print_aligned(table);
	else
		print_tabbed(table);
}

void table_duration(int64_t seconds, char *text, size_t size)
{
	if (seconds >= 86400)
		snprintf(text, size, "%" PRId64 "d%" PRId64 "h",
			seconds / 86400, seconds % 86400 / 3600);
	else if (seconds >= 3600)
		snprintf(text, size, "%" PRId64 "h%" PRId64 "m", seconds / 3600,
			seconds % 3600 / 60);
	else if (seconds >= 60)
		snprintf(text, size, "%" PRId64 "m%" PRId64 "s", seconds / 60,
			seconds % 60);
	else
		snprintf(text, size, "%" PRId64 "s", seconds);
}

void table_print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
}
