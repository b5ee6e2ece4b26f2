/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which cache file is in use: the highest numbered one that is whole and of
 * our schema, or a new one. For store.c.
 */

#include <sqlite3.h>

/* Opens it for writing, schema in place. Gives the connection and *path_out;
 * *notice_out (gives) when a file was set aside, else NULL. NULL and *error_out
 * (gives) on failure. */
sqlite3 *store_file_open(const char *directory, char **path_out,
	char **notice_out, char **error_out);
/* Ends the use of it: syncs it, and takes off the mark of this boot. db may be
 * NULL. */
void store_file_close(sqlite3 *db);
/* What is wrong with the file in use, read anew; gives, NULL: nothing. */
char *store_file_check(const char *path);
/* Renames path (with its WAL files) to path.bad-<unix time>. Gives a line that
 * says so and why. */
char *store_file_set_aside(const char *path, const char *reason);
