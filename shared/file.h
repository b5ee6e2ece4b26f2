/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A regular file of at most 1 MiB as a text. Gives (wipe() what is secret), or
 * NULL with *error_out (gives): path and reason. */
char *file_text(const char *path, char **error_out);
