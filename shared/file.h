/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/* A regular file of at most 1 MiB as a text. Gives (wipe() what is secret), or
 * NULL with *error_out (gives): path and reason. */
char *file_text(const char *path, char **error_out);
/* What is left of one file behind what is in another (borrows both). 0 or
 * -errno, and then whether it was in reading. */
int file_copy(int from, int to, bool *reading_out);
