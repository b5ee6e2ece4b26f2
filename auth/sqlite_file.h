/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A store's file that nobody uses: whether it is sound, and putting it where
 * authd will look for it. For peerctl, which is the one program beside authd
 * that touches such files; no loop, everything blocks.
 */

#include <stdbool.h>
#include <stdint.h>

struct sqlite_file {
	char cluster[256];
	char store_id[64];
	uint64_t revision;
	unsigned schema;
};

/* Reads all of the file, which must be the caller's own copy: its journal mode
 * becomes one that needs no file beside it. NULL when it is a whole, sound
 * store of a schema that this program knows; else what is wrong with it
 * (gives). */
char *sqlite_file_fault(const char *path, struct sqlite_file *out);

/*
 * Puts the bytes of fd in place of the store at path, once they are found to be
 * a sound store of the cluster. The old one, if any, is kept beside it as
 * *kept_out (gives; NULL: there was none). At each moment path is the old store
 * or the new one. authd gives it a new id when it starts.
 *
 * Runs as the owner of the directory, so that files get their owner and nothing
 * in it is followed with more rights than its owner has; the caller sees to
 * that. False and *error_out (gives): nothing has changed.
 */
bool sqlite_file_restore(const char *path, int fd, const char *cluster,
	struct sqlite_file *out, char **kept_out, char **error_out);
