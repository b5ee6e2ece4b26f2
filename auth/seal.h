/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Seals secrets that lie in a store which others may read: AES-256-GCM under a
 * key in a file that only auth hosts have. Each is bound to its name, so that
 * one cannot be put in another's place, and a random nonce makes each sealing
 * another text. A seal without a file leaves secrets as they are.
 */

#include <stdbool.h>
#include <stddef.h>

struct seal;

/* path: of the key's file, 64 hexadecimal digits; empty: none. A file that is
 * not there is no error yet. Gives, or NULL with *error_out (gives). */
struct seal *seal_new(const char *path, char **error_out);
void seal_free(struct seal *seal);

/* There is a key, or none is needed. */
bool seal_is_ready(const struct seal *seal);
/* Makes a key and its file, mode 0600, which must not be there. 0, or -errno
 * with *error_out (gives). */
int seal_make(struct seal *seal, char **error_out);
const char *seal_path(const struct seal *seal);

/* A text for the store. Gives (wipe() it); the seal must be ready. */
char *seal_close(const struct seal *seal, const char *name, const char *secret);
/* What it was. Gives (wipe() it), or NULL with a static text: the key is
 * missing or another, or the text was meddled with, or sealed and should not be
 * or the other way round. */
char *seal_open(const struct seal *seal, const char *name, const void *text,
	size_t len, const char **reason_out);
