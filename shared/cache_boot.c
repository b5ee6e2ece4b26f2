/* SPDX-License-Identifier: Apache-2.0 */
#include "shared/cache_boot.h"

#include <stdio.h>
#include <string.h>

#include "shared/alloc.h"

bool cache_boot(char out[CACHE_BOOT_SIZE])
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
	bool ok = file && fscanf(file, "%36s", out) == 1;

	if (file)
		fclose(file);
	return ok;
}

static bool is_this_boot(const char *boot)
{
	char now[CACHE_BOOT_SIZE];

	return boot && cache_boot(now) && strcmp(boot, now) == 0;
}

char *cache_find_crash(sqlite3 *db)
{
	sqlite3_stmt *statement = NULL;
	char *crash = NULL;

	if (sqlite3_prepare_v2(db, "SELECT value FROM meta WHERE key = 'boot'",
		    -1, &statement, NULL) == SQLITE_OK &&
		sqlite3_step(statement) == SQLITE_ROW &&
		!is_this_boot((const char *)sqlite3_column_text(statement, 0)))
		crash = xstrdup("it was in use when the machine stopped");
	sqlite3_finalize(statement);
	return crash;
}
