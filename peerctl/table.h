/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Tables for people and for scripts: aligned, with colours, on a terminal;
 * else tab-separated with a line of headings. Cells are made printable.
 */

#include <jansson.h>
#include <stdint.h>

#define TABLE_COLUMNS_MAX 12

struct table;

/* headings: NULL-ended, at most TABLE_COLUMNS_MAX; borrowed. */
struct table *table_new(const char *const *headings);
void table_free(struct table *table);

/* Adds the next cell, row by row. */
void table_cell(struct table *table, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The member of object as text: "-" when absent, null or empty. */
void table_member(struct table *table, const json_t *object, const char *key);
/* Members of an array of texts, with commas. */
void table_list(struct table *table, const json_t *array);
/* On a terminal: only so many columns, the first cut to first_max characters,
 * the last to what the terminal leaves. Elsewhere nothing is cut. */
void table_fit(struct table *table, unsigned columns, unsigned first_max);
/* From here on nothing is cut, and every column shown. */
void table_be_wide(void);
void table_print(const struct table *table);
unsigned table_rows(const struct table *table);

/* One line that fits the terminal, made printable, in a colour ("31" is red) if
 * colours are wanted; NULL: none. */
void table_line(const char *colour, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* "1h2m", "3m4s", "5s": at most size bytes. */
void table_duration(int64_t seconds, char *text, size_t size);
/* Prints and releases value. */
void table_print_json(json_t *value);
/* The same on one line. */
void table_print_json_line(json_t *value);
