/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQL of the embedded store, see sqlite_db.h. Owns the connection and its
 * prepared statements. What a newcomer gets wrong: the revision lives in memory
 * while a transaction is open and reaches the file with commit; so a rollback
 * must take it back, or numbers would be given that no watcher ever sees.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "auth/sqlite_db.h"
#include "shared/alloc.h"
#include "shared/identity.h"

#define SCHEMA 1
/* 4 GiB: what a proxy gone mad may fill before it is told that the store is
 * full, instead of the disk. */
#define PAGES_MAX (1024 * 1024)

static const char schema_sql[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE kv(key TEXT PRIMARY KEY, value BLOB NOT NULL,"
	" mod INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX kv_lease ON kv(lease) WHERE lease != 0;"
	"CREATE TABLE change(revision INTEGER NOT NULL, key TEXT NOT NULL,"
	" value BLOB, old_value BLOB, old_mod INTEGER, old_lease INTEGER,"
	" at INTEGER NOT NULL, size INTEGER NOT NULL,"
	" PRIMARY KEY(revision, key)) WITHOUT ROWID;"
	"CREATE INDEX change_key ON change(key, revision);"
	"CREATE TABLE lease(id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL);";

enum statement {
	BEGIN,
	COMMIT,
	ROLLBACK,
	SET_META,
	GET,
	RANGE,
	RANGE_AT,
	PUT,
	DELETE,
	LOG,
	CHANGES,
	LEASE_ADD,
	LEASE_REMOVE,
	LEASES,
	LEASE_KEYS,
	STEP,
	FORGET_SIZE,
	FORGET,
	OLDER,
	STATEMENTS,
};

static const char *const sql[STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[SET_META] = "UPDATE meta SET value = ?2 WHERE key = ?1",
	[GET] = "SELECT value, mod, lease FROM kv WHERE key = ?1",
	[RANGE] = "SELECT key, value, mod, lease FROM kv"
		  " WHERE key >= ?1 AND key < ?2 AND key > ?3"
		  " ORDER BY key LIMIT ?4",
	/* The state at ?5: rows not touched since, and for keys touched since
	 * what the first such change found. */
	[RANGE_AT] = "SELECT key, value, mod, lease FROM kv"
		     " WHERE key >= ?1 AND key < ?2 AND key > ?3 AND mod <= ?5"
		     " UNION ALL SELECT key, old_value, old_mod, old_lease"
		     " FROM change AS c"
		     " WHERE key >= ?1 AND key < ?2 AND key > ?3"
		     " AND revision = (SELECT min(revision) FROM change AS n"
		     "  WHERE n.key = c.key AND n.revision > ?5)"
		     " AND old_value IS NOT NULL ORDER BY 1 LIMIT ?4",
	[PUT] = "INSERT INTO kv VALUES(?1, ?2, ?3, ?4)"
		" ON CONFLICT(key) DO UPDATE SET"
		" value = ?2, mod = ?3, lease = ?4",
	[DELETE] = "DELETE FROM kv WHERE key = ?1",
	[LOG] = "INSERT INTO change VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[CHANGES] = "SELECT revision, key, value FROM change"
		    " WHERE revision BETWEEN ?1 AND ?4"
		    " AND key >= ?2 AND key < ?3"
		    " ORDER BY revision, key",
	[LEASE_ADD] = "INSERT INTO lease VALUES(?1, ?2)",
	[LEASE_REMOVE] = "DELETE FROM lease WHERE id = ?1",
	[LEASES] = "SELECT id, ttl FROM lease",
	[LEASE_KEYS] = "SELECT key FROM kv WHERE lease = ?1 AND lease != 0",
	/* where the ?2-th oldest row stands, if it is not beyond ?1 */
	[STEP] = "SELECT revision FROM change WHERE revision <= ?1"
		 " ORDER BY revision LIMIT 1 OFFSET ?2",
	[FORGET_SIZE] = "SELECT total(size) FROM change WHERE revision <= ?1",
	[FORGET] = "DELETE FROM change WHERE revision <= ?1",
	/* oldest first, until there is neither age nor excess */
	[OLDER] = "SELECT revision, size, at FROM change"
		  " ORDER BY revision LIMIT 20000",
};

struct sqlite_db {
	sqlite3 *handle;
	sqlite3_stmt *statements[STATEMENTS];
	char store_id[64];
	uint64_t revision;
	uint64_t compacted;
	uint64_t log_bytes;
	/* as of the last commit */
	uint64_t safe_revision;
	uint64_t safe_compacted;
	uint64_t safe_log_bytes;
	char error[256];
};

const char *sqlite_db_error(const struct sqlite_db *db)
{
	return db->error;
}

const char *sqlite_db_store_id(const struct sqlite_db *db)
{
	return db->store_id;
}

uint64_t sqlite_db_revision(const struct sqlite_db *db)
{
	return db->revision;
}

uint64_t sqlite_db_committed(const struct sqlite_db *db)
{
	return db->safe_revision;
}

uint64_t sqlite_db_compacted(const struct sqlite_db *db)
{
	return db->compacted;
}

uint64_t sqlite_db_log_bytes(const struct sqlite_db *db)
{
	return db->log_bytes;
}

/* ---- statements ---- */

static int failed(struct sqlite_db *db)
{
	snprintf(
		db->error, sizeof(db->error), "%s", sqlite3_errmsg(db->handle));
	return -EIO;
}

static sqlite3_stmt *use(struct sqlite_db *db, enum statement which)
{
	sqlite3_stmt *stmt = db->statements[which];

	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	return stmt;
}

/* Runs a statement that gives no rows. */
static int run(struct sqlite_db *db, sqlite3_stmt *stmt)
{
	int ret = sqlite3_step(stmt) == SQLITE_DONE ? 0 : failed(db);

	sqlite3_reset(stmt);
	return ret;
}

static void bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
	sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC);
}

/* A present value of no bytes is not NULL, which would mean absent. */
static void bind_value(
	sqlite3_stmt *stmt, int at, const void *value, size_t len)
{
	if (len)
		sqlite3_bind_blob64(stmt, at, value, len, SQLITE_STATIC);
	else
		sqlite3_bind_zeroblob(stmt, at, 0);
}

/* Binds [prefix, end of prefix) to at and at + 1; end needs room for the
 * prefix. Keys are ASCII below DEL, so the last byte can be counted up. */
static void bind_prefix(
	sqlite3_stmt *stmt, int at, const char *prefix, char *end)
{
	size_t len = strlen(prefix);

	strcpy(end, len ? prefix : "\x7f");
	if (len)
		end[len - 1]++;
	bind_text(stmt, at, prefix);
	bind_text(stmt, at + 1, end);
}

/* Columns value, mod, lease of stmt from first on. */
static struct backend_kv row_kv(sqlite3_stmt *stmt, const char *key, int first)
{
	struct backend_kv kv = {.key = key};

	if (sqlite3_column_type(stmt, first) != SQLITE_NULL) {
		kv.value = sqlite3_column_blob(stmt, first);
		kv.len = sqlite3_column_bytes(stmt, first);
		if (!kv.value)
			kv.value = (const uint8_t *)"";
	}
	return kv;
}

/* ---- transactions ---- */

int sqlite_db_begin(struct sqlite_db *db)
{
	return run(db, use(db, BEGIN));
}

static int set_meta(struct sqlite_db *db, const char *key, uint64_t value)
{
	sqlite3_stmt *stmt = use(db, SET_META);

	bind_text(stmt, 1, key);
	sqlite3_bind_int64(stmt, 2, (sqlite3_int64)value);
	return run(db, stmt);
}

int sqlite_db_commit(struct sqlite_db *db)
{
	if (db->revision != db->safe_revision &&
		set_meta(db, "revision", db->revision) < 0)
		return -EIO;
	if (db->compacted != db->safe_compacted &&
		set_meta(db, "compacted", db->compacted) < 0)
		return -EIO;
	if (run(db, use(db, COMMIT)) < 0)
		return -EIO;
	db->safe_revision = db->revision;
	db->safe_compacted = db->compacted;
	db->safe_log_bytes = db->log_bytes;
	return 0;
}

void sqlite_db_rollback(struct sqlite_db *db)
{
	/* fails harmlessly when SQLite has already rolled back by itself */
	sqlite3_step(use(db, ROLLBACK));
	sqlite3_reset(db->statements[ROLLBACK]);
	db->revision = db->safe_revision;
	db->compacted = db->safe_compacted;
	db->log_bytes = db->safe_log_bytes;
}

/* ---- reading ---- */

int sqlite_db_range(struct sqlite_db *db, const struct backend_range *range,
	sqlite_row_fn *fn, void *arg)
{
	bool past = range->at_revision && range->at_revision < db->revision;
	sqlite3_stmt *stmt = use(db, past ? RANGE_AT : RANGE);
	char end[BACKEND_KEY_MAX + 2];
	int ret = 0;
	int step;

	bind_prefix(stmt, 1, range->prefix, end);
	if (range->exact) {
		/* the next text after the key itself */
		snprintf(end, sizeof(end), "%s\x01", range->prefix);
		bind_text(stmt, 2, end);
	}
	bind_text(stmt, 3, range->after ? range->after : "");
	sqlite3_bind_int64(stmt, 4, (sqlite3_int64)range->limit + 1);
	if (past)
		sqlite3_bind_int64(stmt, 5, (sqlite3_int64)range->at_revision);
	while ((step = sqlite3_step(stmt)) == SQLITE_ROW && ret == 0) {
		const char *key = (const char *)sqlite3_column_text(stmt, 0);
		struct backend_kv kv = row_kv(stmt, key, 1);

		kv.mod_revision = sqlite3_column_int64(stmt, 2);
		kv.lease = sqlite3_column_int64(stmt, 3);
		ret = fn(arg, kv.mod_revision, &kv);
	}
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		ret = failed(db);
	sqlite3_reset(stmt);
	return ret < 0 ? ret : 0;
}

int sqlite_db_get(struct sqlite_db *db, const char *key,
	uint64_t *mod_revision_out, const void *value, size_t len,
	bool *equal_out)
{
	sqlite3_stmt *stmt = use(db, GET);
	struct backend_kv kv;
	int step;
	int ret = 0;

	bind_text(stmt, 1, key);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW) {
		kv = row_kv(stmt, key, 0);
		*mod_revision_out = sqlite3_column_int64(stmt, 1);
		if (equal_out)
			*equal_out = kv.len == len &&
				     (!len || !memcmp(kv.value, value, len));
		ret = 1;
	} else if (step != SQLITE_DONE) {
		ret = failed(db);
	}
	sqlite3_reset(stmt);
	return ret;
}

int sqlite_db_changes(struct sqlite_db *db, const char *prefix, uint64_t from,
	sqlite_row_fn *fn, void *arg)
{
	sqlite3_stmt *stmt = use(db, CHANGES);
	char end[BACKEND_KEY_MAX + 2];
	int ret = 0;
	int step;

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)from);
	bind_prefix(stmt, 2, prefix, end);
	sqlite3_bind_int64(stmt, 4, (sqlite3_int64)db->safe_revision);
	while ((step = sqlite3_step(stmt)) == SQLITE_ROW && ret == 0) {
		const char *key = (const char *)sqlite3_column_text(stmt, 1);
		struct backend_kv kv = row_kv(stmt, key, 2);

		ret = fn(arg, sqlite3_column_int64(stmt, 0), &kv);
	}
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		ret = failed(db);
	sqlite3_reset(stmt);
	return ret < 0 ? ret : 0;
}

/* ---- writing ---- */

void sqlite_db_advance(struct sqlite_db *db)
{
	db->revision++;
}

static int64_t unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Writes the change of key, whose state is still the old one; value NULL: it
 * is going to be deleted. 1: the key is there now, 0: it is not. */
static int log_change(
	struct sqlite_db *db, const char *key, const void *value, size_t len)
{
	sqlite3_stmt *old = use(db, GET);
	sqlite3_stmt *stmt = use(db, LOG);
	struct backend_kv kv = {0};
	int64_t size;
	int step;
	int ret;

	bind_text(old, 1, key);
	step = sqlite3_step(old);
	if (step != SQLITE_ROW && (step != SQLITE_DONE || !value)) {
		ret = step == SQLITE_DONE ? 0 : failed(db);
		sqlite3_reset(old);
		return ret;
	}
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)db->revision);
	bind_text(stmt, 2, key);
	if (value)
		bind_value(stmt, 3, value, len);
	if (step == SQLITE_ROW) {
		kv = row_kv(old, key, 0);
		bind_value(stmt, 4, kv.value, kv.len);
		sqlite3_bind_int64(stmt, 5, sqlite3_column_int64(old, 1));
		sqlite3_bind_int64(stmt, 6, sqlite3_column_int64(old, 2));
	}
	size = (int64_t)(2 * strlen(key) + len + kv.len + 64);
	sqlite3_bind_int64(stmt, 7, unix_ms());
	sqlite3_bind_int64(stmt, 8, size);
	ret = run(db, stmt);
	sqlite3_reset(old);
	if (ret < 0)
		return ret;
	db->log_bytes += size;
	return step == SQLITE_ROW;
}

int sqlite_db_put(struct sqlite_db *db, const struct backend_op *op)
{
	sqlite3_stmt *stmt;

	if (log_change(db, op->key, op->value ? op->value : "", op->len) < 0)
		return -EIO;
	stmt = use(db, PUT);
	bind_text(stmt, 1, op->key);
	bind_value(stmt, 2, op->value, op->len);
	sqlite3_bind_int64(stmt, 3, (sqlite3_int64)db->revision);
	sqlite3_bind_int64(stmt, 4, (sqlite3_int64)op->lease);
	return run(db, stmt);
}

int sqlite_db_delete(struct sqlite_db *db, const char *key)
{
	int there = log_change(db, key, NULL, 0);
	sqlite3_stmt *stmt;

	if (there <= 0)
		return there;
	stmt = use(db, DELETE);
	bind_text(stmt, 1, key);
	return run(db, stmt) < 0 ? -EIO : 1;
}

/* ---- leases ---- */

int sqlite_db_lease_add(struct sqlite_db *db, uint64_t lease, uint32_t ttl_ms)
{
	sqlite3_stmt *stmt = use(db, LEASE_ADD);

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)lease);
	sqlite3_bind_int64(stmt, 2, ttl_ms);
	return run(db, stmt);
}

int sqlite_db_lease_remove(struct sqlite_db *db, uint64_t lease)
{
	sqlite3_stmt *stmt = use(db, LEASE_REMOVE);

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)lease);
	return run(db, stmt);
}

int sqlite_db_leases(struct sqlite_db *db,
	void (*fn)(void *arg, uint64_t lease, uint32_t ttl_ms), void *arg)
{
	sqlite3_stmt *stmt = use(db, LEASES);
	int step;

	while ((step = sqlite3_step(stmt)) == SQLITE_ROW)
		fn(arg, sqlite3_column_int64(stmt, 0),
			(uint32_t)sqlite3_column_int64(stmt, 1));
	sqlite3_reset(stmt);
	return step == SQLITE_DONE ? 0 : failed(db);
}

/* One key that hangs on lease, "" when there is none. */
static int lease_key(
	struct sqlite_db *db, uint64_t lease, char key[BACKEND_KEY_MAX + 1])
{
	sqlite3_stmt *stmt = use(db, LEASE_KEYS);
	int step;

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)lease);
	step = sqlite3_step(stmt);
	snprintf(key, BACKEND_KEY_MAX + 1, "%s",
		step == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0)
				   : "");
	sqlite3_reset(stmt);
	return step == SQLITE_ROW || step == SQLITE_DONE ? 0 : failed(db);
}

int sqlite_db_lease_clear(struct sqlite_db *db, uint64_t lease)
{
	char key[BACKEND_KEY_MAX + 1];
	bool advanced = false;

	for (;;) {
		if (lease_key(db, lease, key) < 0)
			return -EIO;
		if (!key[0])
			return 0;
		if (!advanced)
			sqlite_db_advance(db);
		advanced = true;
		if (sqlite_db_delete(db, key) < 0)
			return -EIO;
	}
}

/* ---- compaction ---- */

int sqlite_db_compact(struct sqlite_db *db, uint64_t revision, unsigned max)
{
	sqlite3_stmt *stmt = use(db, STEP);
	double bytes = 0;
	int step;

	if (revision <= db->compacted)
		return 0;
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)revision);
	sqlite3_bind_int64(stmt, 2, max);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		revision = sqlite3_column_int64(stmt, 0);
	sqlite3_reset(stmt);
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return failed(db);

	stmt = use(db, FORGET_SIZE);
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)revision);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		bytes = sqlite3_column_double(stmt, 0);
	sqlite3_reset(stmt);
	stmt = use(db, FORGET);
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)revision);
	if (run(db, stmt) < 0)
		return -EIO;
	db->compacted = revision;
	db->log_bytes -= (uint64_t)bytes;
	return 0;
}

uint64_t sqlite_db_expendable(
	struct sqlite_db *db, int64_t older_than, uint64_t keep_bytes)
{
	sqlite3_stmt *stmt = use(db, OLDER);
	uint64_t left = db->log_bytes;
	uint64_t revision = 0;

	while (sqlite3_step(stmt) == SQLITE_ROW) {
		if (left <= keep_bytes &&
			sqlite3_column_int64(stmt, 2) >= older_than)
			break;
		revision = sqlite3_column_int64(stmt, 0);
		left -= sqlite3_column_int64(stmt, 1);
	}
	sqlite3_reset(stmt);
	return revision;
}

/* ---- opening ---- */

static int query_number(struct sqlite_db *db, const char *text, uint64_t *out)
{
	sqlite3_stmt *stmt;
	int ret = -ENOENT;

	if (sqlite3_prepare_v2(db->handle, text, -1, &stmt, NULL) != SQLITE_OK)
		return failed(db);
	if (sqlite3_step(stmt) == SQLITE_ROW) {
		*out = sqlite3_column_int64(stmt, 0);
		ret = 0;
	}
	sqlite3_finalize(stmt);
	return ret;
}

static int create_schema(struct sqlite_db *db)
{
	char uuid[37];
	char text[512];

	identity_uuid_make(uuid);
	snprintf(text, sizeof(text),
		"INSERT INTO meta VALUES('schema', %d), ('revision', 1),"
		" ('compacted', 0), ('store_id', '%s'); COMMIT",
		SCHEMA, uuid);
	if (sqlite3_exec(db->handle, "BEGIN EXCLUSIVE", 0, 0, 0) != SQLITE_OK ||
		sqlite3_exec(db->handle, schema_sql, 0, 0, 0) != SQLITE_OK ||
		sqlite3_exec(db->handle, text, 0, 0, 0) != SQLITE_OK)
		return failed(db);
	return 0;
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
		return failed(db);
	if (sqlite3_prepare_v2(db->handle,
		    "SELECT value FROM meta WHERE key='store_id'", -1, &stmt,
		    NULL) != SQLITE_OK)
		return failed(db);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		snprintf(db->store_id, sizeof(db->store_id), "%s",
			(const char *)sqlite3_column_text(stmt, 0));
	else
		ret = failed(db);
	sqlite3_finalize(stmt);
	db->safe_revision = db->revision;
	db->safe_compacted = db->compacted;
	db->safe_log_bytes = db->log_bytes;
	return ret;
}

static int prepare(struct sqlite_db *db)
{
	uint64_t tables = 0;
	uint64_t schema = 0;
	char pragmas[256];

	snprintf(pragmas, sizeof(pragmas),
		"PRAGMA busy_timeout=1000; PRAGMA locking_mode=EXCLUSIVE;"
		"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
		"PRAGMA secure_delete=ON; PRAGMA max_page_count=%d",
		PAGES_MAX);
	if (sqlite3_exec(db->handle, pragmas, 0, 0, 0) != SQLITE_OK ||
		query_number(
			db, "SELECT count(*) FROM sqlite_schema", &tables) < 0)
		return failed(db);
	if (tables == 0 && create_schema(db) < 0)
		return -EIO;
	if (query_number(db, "SELECT value FROM meta WHERE key='schema'",
		    &schema) < 0)
		return failed(db);
	if (schema != SCHEMA) {
		snprintf(db->error, sizeof(db->error),
			"its schema is %d, this program's is %d", (int)schema,
			SCHEMA);
		return -EIO;
	}
	for (int i = 0; i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(db->handle, sql[i], -1,
			    SQLITE_PREPARE_PERSISTENT, &db->statements[i],
			    NULL) != SQLITE_OK)
			return failed(db);
	return read_meta(db);
}

struct sqlite_db *sqlite_db_open(const char *path, char **error_out)
{
	struct sqlite_db *db;
	/* SQLite gives its other files the mode of this one. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
		return NULL;
	}
	close(fd);
	db = xcalloc(1, sizeof(*db));
	if (sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE, NULL) ==
			SQLITE_OK &&
		prepare(db) == 0)
		return db;
	if (!db->error[0])
		failed(db);
	*error_out = xasprintf("%s: %s", path, db->error);
	sqlite_db_close(db);
	return NULL;
}

void sqlite_db_close(struct sqlite_db *db)
{
	if (!db)
		return;
	for (int i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->handle);
	free(db);
}
