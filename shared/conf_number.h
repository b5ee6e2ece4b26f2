/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Numbers of peerway.yaml(5): units, defaults, ranges. Part of conf.c. Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/conf.h"
#include "shared/conf_tree.h"

enum conf_unit { CONF_UNIT_NONE, CONF_UNIT_TIME, CONF_UNIT_SIZE };

struct conf_number {
	const char *path;
	enum conf_unit unit;
	size_t offset; /* in struct conf */
	size_t size;   /* 4 or 8 bytes, unsigned */
	uint64_t standard;
	uint64_t min;
	uint64_t max;
};

extern const struct conf_number conf_numbers[];
extern const size_t conf_number_count;

/* "15s", "500ms", "2m", "1h" in ms; "4MiB", "64KiB", "1GiB", "100" in bytes.
 * Whole numbers without leading zeros; 0 needs no unit. False: not one. */
bool conf_number_parse(
	const char *text, enum conf_unit unit, uint64_t *value_out);
/* The same backwards, with the greatest unit that fits. */
void conf_number_format(
	uint64_t value, enum conf_unit unit, char *text, size_t size);
/* Reads node's value; an error names what was wanted. */
bool conf_number_check(const struct conf_node *node, enum conf_unit unit,
	uint64_t *value_out, struct conf_error *error);
/* Sets every number of the table: its value or its default, in its range. */
bool conf_numbers_load(struct conf *conf, const struct conf_node *root,
	struct conf_error *error);
