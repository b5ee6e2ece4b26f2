/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One .tar.gz, mode 0600, that is written as it is made, all below one
 * directory, and ends with a manifest of what is in it and what is not.
 */

struct bundle_file;
/* path: must not exist. directory: what all names begin with; copied. NULL and
 * *error_out (gives). */
struct bundle_file *bundle_file_new(
	const char *path, const char *directory, char **error_out);
/* Adds a text; borrows both. */
void bundle_file_add(
	struct bundle_file *bundle, const char *name, const char *text);
/* Says in the manifest that this is missing, and why. */
void bundle_file_miss(
	struct bundle_file *bundle, const char *name, const char *why);
/* How many texts so far. */
unsigned bundle_file_count(const struct bundle_file *bundle);
/* Writes the manifest and ends it. 0, or -1 and *error_out (gives): the file is
 * gone. In either case the bundle is. */
int bundle_file_close(struct bundle_file *bundle, char **error_out);
