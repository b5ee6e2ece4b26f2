/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds, checks, sets aside and makes the cache's files.
 *
 * The mirror can be had again, so nothing is synced to the disk while it is in
 * use: an fsync holds up all changes behind it, and many hosts on one disk hold
 * up each other's. shared/cache_boot.h says what keeps that safe: the mark of
 * this boot is synced before anything else is written, and taken off after all
 * else is synced.
 *
 * What is easily got wrong: readers still have a damaged file open while it is
 * renamed, and go on with it until they are told of the new one; so a bad file
 * is never repaired or overwritten in place, and a new file always has a new
 * number.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "routed/store_file.h"
#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/cache_boot.h"

#define BUSY_MS 2000

static const char *const suffixes[] = {"", "-wal", "-shm"};

/* ---- names ---- */

/* The highest <n>: of the files in use, and of all that ever were. */
static void find_numbers(
	const char *directory, unsigned *live_out, unsigned *last_out)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	*live_out = 0;
	*last_out = 0;
	while (dir && (entry = readdir(dir))) {
		unsigned n;
		int used = 0;

		if (sscanf(entry->d_name, "cache-%u.db%n", &n, &used) != 1 ||
			used == 0)
			continue;
		if (n > *last_out)
			*last_out = n;
		if (entry->d_name[used] == '\0' && n > *live_out)
			*live_out = n;
	}
	if (dir)
		closedir(dir);
}

static char *file_path(const char *directory, unsigned n)
{
	return xasprintf("%s/cache-%u.db", directory, n);
}

/* Files that an earlier rebuild has left behind. */
static void remove_older(const char *directory, unsigned current)
{
	for (unsigned n = 1; n < current; n++) {
		char *base = file_path(directory, n);

		for (int i = 0; i < 3; i++) {
			char *path = xasprintf("%s%s", base, suffixes[i]);

			unlink(path);
			free(path);
		}
		free(base);
	}
}

char *store_file_set_aside(const char *path, const char *reason)
{
	long long now = (long long)time(NULL);
	char *notice;

	for (int i = 0; i < 3; i++) {
		char *from = xasprintf("%s%s", path, suffixes[i]);
		char *to = xasprintf("%s.bad-%lld%s", path, now, suffixes[i]);

		rename(from, to);
		free(from);
		free(to);
	}
	notice = xasprintf(
		"%s set aside as %s.bad-%lld: %s", path, path, now, reason);
	return notice;
}

/* ---- content ---- */

/* First column of the first row as a number; -1 on any error. */
static int number_of(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	int number = -1;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
		sqlite3_step(statement) == SQLITE_ROW)
		number = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return number;
}

/* NULL when every page is sound; gives the reason. */
static char *find_damage(sqlite3 *db)
{
	sqlite3_stmt *statement = NULL;
	char *damage = NULL;

	if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &statement,
		    NULL) != SQLITE_OK ||
		sqlite3_step(statement) != SQLITE_ROW)
		damage = xstrdup(sqlite3_errmsg(db));
	else if (strcmp((const char *)sqlite3_column_text(statement, 0),
			 "ok") != 0)
		damage = xstrdup(
			(const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	return damage;
}

/* NULL when db may be used as it is; gives the reason. */
static char *find_fault(sqlite3 *db)
{
	int schema = number_of(db, "PRAGMA user_version");
	char *damage;

	if (schema < 0)
		return xstrdup(sqlite3_errmsg(db));
	if (schema != CACHE_SCHEMA)
		return xasprintf(
			"schema %d instead of %d", schema, CACHE_SCHEMA);
	damage = find_damage(db);
	return damage ? damage : cache_find_crash(db);
}

/* The WAL outlives us, so that readers of another user can open the file after
 * we have stopped. Of many records each change touches other pages: what 16 MiB
 * hold is not read again. */
static int settle(sqlite3 *db)
{
	int persist = 1;

	sqlite3_busy_timeout(db, BUSY_MS);
	sqlite3_file_control(db, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
	return sqlite3_exec(db,
		"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
		"PRAGMA journal_size_limit = 4194304;"
		"PRAGMA cache_size = -16384;"
		"PRAGMA temp_store = MEMORY",
		NULL, NULL, NULL);
}

static int make_schema(sqlite3 *db)
{
	char *sql = xasprintf("BEGIN; %s PRAGMA user_version = %d; COMMIT",
		cache_schema_sql, CACHE_SCHEMA);
	int ret = sqlite3_exec(db, sql, NULL, NULL, NULL);

	free(sql);
	return ret;
}

/* ---- in use ---- */

/* From here on the kernel decides when the disk has it. Where the mark cannot
 * be made (the kernel does not tell one boot from another, the disk is full),
 * checkpoints go on being synced. */
static void begin_use(sqlite3 *db)
{
	char boot[CACHE_BOOT_SIZE], *sql;

	if (!cache_boot(boot))
		return;
	sql = sqlite3_mprintf("PRAGMA synchronous = FULL;"
			      "INSERT OR REPLACE INTO meta VALUES('boot', %Q)",
		boot);
	sqlite3_exec(db,
		sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK
			? "PRAGMA synchronous = OFF"
			: "PRAGMA synchronous = NORMAL",
		NULL, NULL, NULL);
	sqlite3_free(sql);
}

void store_file_close(sqlite3 *db)
{
	sqlite3_file *file = NULL;

	if (!db)
		return;
	/* By SQLite's own descriptor: to close another of this file would end
	 * all locks on it. */
	sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
	if (file && file->pMethods &&
		file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) == SQLITE_OK)
		sqlite3_exec(db,
			"PRAGMA synchronous = FULL;"
			"DELETE FROM meta WHERE key = 'boot'",
			NULL, NULL, NULL);
	sqlite3_close(db);
}

/* ---- files ---- */

static sqlite3 *open_existing(const char *path, char **fault_out)
{
	sqlite3 *db = NULL;

	*fault_out = NULL;
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) !=
			SQLITE_OK ||
		settle(db) != SQLITE_OK)
		*fault_out = xstrdup(sqlite3_errmsg(db));
	else
		*fault_out = find_fault(db);
	if (!*fault_out)
		return db;
	sqlite3_close(db);
	return NULL;
}

char *store_file_check(const char *path)
{
	char *fault;
	sqlite3 *db = open_existing(path, &fault);

	sqlite3_close(db);
	return fault;
}

static char *failed(const char *path)
{
	return xasprintf("%s: %s", path, strerror(errno));
}

/* An empty cache at path, to which nothing else is linked yet. */
static int make_file(const char *path, char **error_out)
{
	sqlite3 *db = NULL;
	/* Made here for its mode, which SQLite gives to the WAL files too. */
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0660);
	int ret = -1;

	if (fd < 0 || fchmod(fd, 0660) < 0)
		*error_out = failed(path);
	else if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) ==
			 SQLITE_OK &&
		 make_schema(db) == SQLITE_OK)
		ret = 0;
	else
		*error_out = xasprintf("%s: %s", path, sqlite3_errmsg(db));
	sqlite3_close(db);
	if (fd >= 0)
		close(fd);
	return ret;
}

/* Under another name first: readers look for cache-<n>.db as soon as it is
 * there. */
static sqlite3 *open_new(
	const char *directory, const char *path, char **error_out)
{
	char *new_path = xasprintf("%s/new.db", directory);
	sqlite3 *db = NULL;

	unlink(new_path); /* of a crash */
	if (make_file(new_path, error_out) == 0) {
		if (rename(new_path, path) == 0)
			db = open_existing(path, error_out);
		else
			*error_out = failed(path);
	}
	free(new_path);
	return db;
}

static int make_directory(const char *directory, char **error_out)
{
	if (mkdir(directory, 0770) == 0) {
		/* mkdir obeys the umask; setgid keeps the group of readers */
		if (chmod(directory, 02770) == 0)
			return 0;
	} else if (errno == EEXIST) {
		return 0;
	}
	*error_out = xasprintf("%s: %s", directory, strerror(errno));
	return -1;
}

sqlite3 *store_file_open(const char *directory, char **path_out,
	char **notice_out, char **error_out)
{
	unsigned live, last;
	sqlite3 *db = NULL;
	char *path, *fault;

	*notice_out = NULL;
	if (make_directory(directory, error_out) < 0)
		return NULL;
	find_numbers(directory, &live, &last);
	if (live > 0) {
		path = file_path(directory, live);
		db = open_existing(path, &fault);
		if (!db) {
			*notice_out = store_file_set_aside(path, fault);
			free(fault);
			free(path);
		}
	}
	if (!db) {
		live = last + 1;
		path = file_path(directory, live);
		db = open_new(directory, path, error_out);
	}
	if (!db) {
		free(path);
		return NULL;
	}
	begin_use(db);
	remove_older(directory, live);
	*path_out = path;
	return db;
}
