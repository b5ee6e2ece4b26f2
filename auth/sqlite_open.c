/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the embedded store: all statements it uses, what has to be set on the
 * connection. What a newcomer gets wrong: the order of the
 * pragmas; the lock must be exclusive before the file is first read, so that no
 * second authd gets in and no shared memory is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/sqlite_impl.h"
#include "auth/sqlite_schema.h"
#include "shared/alloc.h"

#define PAGE_SIZE 4096
/* More than is usual, since records of many agents lie far apart; not so much
 * that a small cluster pays for it. */
#define CACHE_KIB (4 << 10)

const char *const sqlite_statements[SQL_STATEMENTS] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_SET_META] = "UPDATE meta SET value = ?2 WHERE key = ?1",
	[SQL_GET] = "SELECT value, mod, lease FROM kv WHERE key = ?1",
	[SQL_RANGE] = "SELECT key, value, mod, lease FROM kv"
		      " WHERE key >= ?1 AND key < ?2"
		      " ORDER BY key LIMIT ?3",
	/* The state at ?4: rows not touched since, and for keys touched since
	 * what the first such change found. Changes are sought by revision
	 * (+key keeps the index out): few are younger, but through the index by
	 * key every part of a range would walk over the whole log behind it. */
	[SQL_RANGE_AT] =
		"SELECT key, value, mod, lease FROM kv"
		" WHERE key >= ?1 AND key < ?2 AND mod <= ?4"
		" UNION ALL SELECT +key, old_value, old_mod, old_lease"
		" FROM change AS c WHERE revision > ?4"
		" AND +key >= ?1 AND +key < ?2"
		" AND revision = (SELECT min(revision) FROM change AS n"
		"  WHERE n.key = c.key AND n.revision > ?4)"
		" AND old_value IS NOT NULL ORDER BY 1 LIMIT ?3",
	[SQL_PUT] = "INSERT INTO kv VALUES(?1, ?2, ?3, ?4)"
		    " ON CONFLICT(key) DO UPDATE SET"
		    " value = ?2, mod = ?3, lease = ?4",
	[SQL_DELETE] = "DELETE FROM kv WHERE key = ?1",
	[SQL_LOG] = "INSERT INTO change VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[SQL_CHANGES] = "SELECT revision, key, value FROM change"
			" WHERE revision BETWEEN ?1 AND ?4"
			" AND key >= ?2 AND key < ?3"
			" ORDER BY revision, key",
	[SQL_LEASE_ADD] = "INSERT INTO lease VALUES(?1, ?2)",
	[SQL_LEASE_REMOVE] = "DELETE FROM lease WHERE id = ?1",
	[SQL_LEASES] = "SELECT id, ttl FROM lease",
	[SQL_LEASE_KEYS] = "SELECT key FROM kv WHERE lease = ?1 AND lease != 0",
	/* where the ?2-th oldest row stands, if it is not beyond ?1 */
	[SQL_STEP] = "SELECT revision FROM change WHERE revision <= ?1"
		     " ORDER BY revision LIMIT 1 OFFSET ?2",
	[SQL_FORGET_SIZE] =
		"SELECT total(size) FROM change WHERE revision <= ?1",
	[SQL_FORGET] = "DELETE FROM change WHERE revision <= ?1",
	/* oldest first, until there is neither age nor excess */
	[SQL_OLDER] = "SELECT revision, size, at FROM change"
		      " ORDER BY revision LIMIT 20000",
};

static int query_number(struct sqlite_db *db, const char *text, uint64_t *out)
{
	sqlite3_stmt *stmt;
	int ret = -ENOENT;

	if (sqlite3_prepare_v2(db->handle, text, -1, &stmt, NULL) != SQLITE_OK)
		return sqlite_failed(db);
	if (sqlite3_step(stmt) == SQLITE_ROW) {
		*out = sqlite3_column_int64(stmt, 0);
		ret = 0;
	}
	sqlite3_finalize(stmt);
	return ret;
}

/* Creates the tables, or brings an older file to what they are now. */
static int bring_schema(struct sqlite_db *db)
{
	char *error = NULL;

	if (sqlite_schema_bring(db->handle, &sqlite_schema, &error))
		return 0;
	snprintf(db->error, sizeof(db->error), "%s", error);
	free(error);
	return -EIO;
}

static int read_meta(struct sqlite_db *db)
{
	sqlite3_stmt *stmt;
	int ret = 0;

	if (query_number(db, "SELECT value FROM meta WHERE key='revision'",
		    &db->revision) < 0 ||
		query_number(db, "SELECT value FROM meta WHERE key='compacted'",
			&db->compacted) < 0 ||
		query_number(db,
			"SELECT CAST(total(size) AS INTEGER) FROM change",
			&db->log_bytes) < 0)
		return sqlite_failed(db);
	if (sqlite3_prepare_v2(db->handle,
		    "SELECT value FROM meta WHERE key='store_id'", -1, &stmt,
		    NULL) != SQLITE_OK)
		return sqlite_failed(db);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		snprintf(db->store_id, sizeof(db->store_id), "%s",
			(const char *)sqlite3_column_text(stmt, 0));
	else
		ret = sqlite_failed(db);
	sqlite3_finalize(stmt);
	db->safe_revision = db->revision;
	db->safe_compacted = db->compacted;
	db->safe_log_bytes = db->log_bytes;
	return ret;
}

static int prepare(struct sqlite_db *db, uint64_t max_bytes)
{
	char pragmas[400];

	snprintf(pragmas, sizeof(pragmas),
		"PRAGMA busy_timeout=1000; PRAGMA locking_mode=EXCLUSIVE;"
		"PRAGMA page_size=%d; PRAGMA journal_mode=WAL;"
		"PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;"
		"PRAGMA cache_size=-%d;"
		"PRAGMA max_page_count=%llu",
		PAGE_SIZE, CACHE_KIB,
		(unsigned long long)(max_bytes / PAGE_SIZE));
	if (sqlite3_exec(db->handle, pragmas, 0, 0, 0) != SQLITE_OK)
		return sqlite_failed(db);
	if (bring_schema(db) < 0)
		return -EIO;
	for (int i = 0; i < SQL_STATEMENTS; i++)
		if (sqlite3_prepare_v3(db->handle, sqlite_statements[i], -1,
			    SQLITE_PREPARE_PERSISTENT, &db->statements[i],
			    NULL) != SQLITE_OK)
			return sqlite_failed(db);
	return read_meta(db);
}

/* The inode of the file, made if need be; 0: cannot be opened. */
static uint64_t touch(const char *path)
{
	/* SQLite gives its other files the mode of this one. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st = {0};

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0)
		st.st_ino = 0;
	close(fd);
	return st.st_ino;
}

static int check_origin(struct sqlite_db *db, uint64_t inode)
{
	uint64_t known = 0;

	if (query_number(db,
		    "SELECT CAST(value AS INTEGER) FROM meta"
		    " WHERE key='inode'",
		    &known) < 0)
		return sqlite_failed(db);
	return sqlite_origin_check(db, inode, known);
}

struct sqlite_db *sqlite_db_open(
	const char *path, uint64_t max_bytes, char **error_out)
{
	struct sqlite_db *db;
	uint64_t inode = touch(path);

	if (!inode) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
		return NULL;
	}
	db = xcalloc(1, sizeof(*db));
	db->path = xstrdup(path);
	if (sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE, NULL) ==
			SQLITE_OK &&
		prepare(db, max_bytes) == 0 && check_origin(db, inode) == 0) {
		db->opened = true;
		return db;
	}
	if (!db->error[0])
		sqlite_failed(db);
	*error_out = xasprintf("%s: %s", path, db->error);
	sqlite_db_close(db);
	return NULL;
}

void sqlite_db_close(struct sqlite_db *db)
{
	if (!db)
		return;
	if (db->opened)
		sqlite_origin_note(db);
	for (int i = 0; i < SQL_STATEMENTS; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->handle);
	free(db->path);
	free(db);
}
