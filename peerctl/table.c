/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables on stdout. Much of what is shown was said by other hosts (names,
 * errors), so every cell loses its control characters before it can reach a
 * terminal.
 */
#include "peerctl/table.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shared/alloc.h"

struct table {
	const char *const *headings;
	unsigned columns;
	char **cells;
	unsigned count;
	/* table_fit(); 0: everything is shown */
	unsigned fit_columns;
	unsigned fit_first;
};

static const struct {
	const char *text;
	const char *colour;
} colours[] = {
	{"ready", "32"},
	{"connected", "32"},
	{"running", "32"},
	{"connecting", "33"},
	{"degraded", "33"},
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

/* Without control characters, those of UTF-8's upper range too. */
static void make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			p[0] = p[1] = '?';
	}
}

/* Characters of UTF-8; an upper bound where it is none. */
static unsigned width_of(const char *text)
{
	unsigned width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

/* Bytes of its first max characters. */
static size_t bytes_of(const char *text, unsigned max)
{
	const char *p = text;

	for (; *p; p++)
		if (((unsigned char)*p & 0xc0) != 0x80 && max-- == 0)
			break;
	return (size_t)(p - text);
}

static const char *ellipsis(void)
{
	static const char *text;

	if (!text) {
		setlocale(LC_CTYPE, "");
		text = strcmp(nl_langinfo(CODESET), "UTF-8") ? "~"
							     : "\xe2\x80\xa6";
	}
	return text;
}

static bool wide; /* nothing is cut */

void table_be_wide(void)
{
	wide = true;
}

static unsigned terminal_width(void)
{
	struct winsize size = {0};

	if (wide || !isatty(STDOUT_FILENO))
		return UINT32_MAX;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col)
		return 80;
	return size.ws_col;
}

static void add_cell(struct table *table, char *text) /* takes text */
{
	make_printable(text);
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

void table_fit(struct table *table, unsigned columns, unsigned first_max)
{
	if (wide || !isatty(STDOUT_FILENO))
		return;
	table->fit_columns = columns;
	table->fit_first = first_max;
}

/* Cut to max characters, padded to width. */
static void print_cell(
	const char *text, unsigned max, unsigned width, const char *colour)
{
	bool cut = width_of(text) > max;
	size_t bytes = cut ? bytes_of(text, max ? max - 1 : 0) : strlen(text);
	unsigned len = cut ? max : width_of(text);

	if (colour)
		printf("\033[%sm", colour);
	printf("%.*s%s", (int)bytes, text, cut ? ellipsis() : "");
	if (colour)
		fputs("\033[0m", stdout);
	for (; len < width; len++)
		putchar(' ');
}

static const char *colour_of(const char *text)
{
	for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++) {
		if (!strcmp(colours[i].text, text))
			return colours[i].colour;
	}
	return NULL;
}

/* How wide each column may be, into widths. */
static void measure(
	const struct table *table, unsigned columns, unsigned *widths)
{
	unsigned used = 0;
	unsigned last = columns - 1;

	for (unsigned i = 0; i < columns; i++)
		widths[i] = width_of(table->headings[i]);
	for (unsigned i = 0; i < table->count; i++) {
		unsigned column = i % table->columns;

		if (column < columns &&
			width_of(table->cells[i]) > widths[column])
			widths[column] = width_of(table->cells[i]);
	}
	if (!table->fit_columns)
		return;
	if (widths[0] > table->fit_first)
		widths[0] = table->fit_first;
	for (unsigned i = 0; i < last; i++)
		used += widths[i] + 2;
	if (used + widths[last] > terminal_width())
		widths[last] = used + 8 < terminal_width()
				       ? terminal_width() - used
				       : 8;
}

static void print_row(const struct table *table, const char *const *cells,
	const unsigned *widths, unsigned columns, bool heading)
{
	bool colour = use_colours();

	for (unsigned i = 0; i < columns; i++) {
		bool last = i + 1 == columns;
		const char *code = heading ? "1" : colour_of(cells[i]);

		/* The last column needs no padding. */
		print_cell(cells[i], widths[i], last ? 0 : widths[i],
			colour ? code : NULL);
		fputs(last ? "\n" : "  ", stdout);
	}
}

static void print_aligned(const struct table *table)
{
	unsigned widths[TABLE_COLUMNS_MAX];
	unsigned columns =
		table->fit_columns ? table->fit_columns : table->columns;

	measure(table, columns, widths);
	print_row(table, table->headings, widths, columns, true);
	for (unsigned i = 0; i < table->count; i += table->columns)
		print_row(table, (const char *const *)table->cells + i, widths,
			columns, false);
}

void table_print(const struct table *table)
{
	if (isatty(STDOUT_FILENO))
		print_aligned(table);
	else
		print_tabbed(table);
}

void table_line(const char *colour, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = xvasprintf(format, ap);
	va_end(ap);
	make_printable(text);
	print_cell(text, terminal_width(), 0, use_colours() ? colour : NULL);
	putchar('\n');
	free(text);
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

void table_print_json_line(json_t *value)
{
	json_dumpf(value, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(value);
}
