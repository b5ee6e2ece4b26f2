/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The embedded store's tables and how older files come to have them. Version 1
 * is what `base` makes in an empty file; steps[i] leads from version i + 1 to
 * i + 2. A new file takes the same way as an old one, so there is one way only.
 *
 * To change the tables, add a step; never edit one that has been released.
 */

#include <sqlite3.h>
#include <stdbool.h>

struct sqlite_schema {
	const char *base;
	const char *const *steps; /* ends with NULL */
};

/* The store's. */
extern const struct sqlite_schema sqlite_schema;

/* "PwAu", in the file's header: a store of authd. */
#define SQLITE_STORE_ID 0x50774175

unsigned sqlite_schema_version(const struct sqlite_schema *schema);

/* Brings the file to the schema's version, all in one transaction: an empty one
 * gets it whole. False and *error_out (gives): it is as it was, because a step
 * failed, or because it is newer or not a store at all. */
bool sqlite_schema_bring(
	sqlite3 *db, const struct sqlite_schema *schema, char **error_out);

/* What is wrong with the file's tables, without changing it: NULL when they are
 * exactly those of a version up to the schema's, *version_out; else gives. */
char *sqlite_schema_fault(
	sqlite3 *db, const struct sqlite_schema *schema, unsigned *version_out);
