/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Writes a whole file with this mode, replacing one of that name; never seen
 * half written, nor readable by others meanwhile. 0 or -errno. */
int file_write(const char *path, mode_t mode, const void *data, size_t len);
/* A text file of at most 64 KiB (gives, to free()), or NULL and errno. */
char *file_read(const char *path);
