/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * routed does not sync the cache to the disk while it writes it (see
 * routed/store_file.c). What a killed routed wrote is in the kernel's hands and
 * safe; after a crash of the machine anything may be in the file, and SQLite
 * would not notice. So a file in use bears, in meta, the boot it is used in; a
 * clean end takes that off. For cache.c and routed/store_file.c.
 */

#include <sqlite3.h>
#include <stdbool.h>

#define CACHE_BOOT_SIZE 37

/* This boot of the machine; false when the kernel does not tell. */
bool cache_boot(char out[CACHE_BOOT_SIZE]);
/* Why the file must not be used: it was in use when the machine stopped. Gives;
 * NULL: it may. */
char *cache_find_crash(sqlite3 *db);
