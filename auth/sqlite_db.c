/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes of the embedded store, see sqlite_db.h; the change log is in
 * sqlite_log.c, opening in sqlite_open.c. What a newcomer gets wrong: the
 * revision lives in memory while a transaction is open and reaches the file
 * with commit; so a rollback must take it back, or numbers would be given that
 * no watcher ever sees.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "auth/sqlite_impl.h"

const char *sqlite_db_error(const struct sqlite_db *db)
{
	return db->error;
}

bool sqlite_db_is_full(const struct sqlite_db *db)
{
	return db->full;
}

const char *sqlite_db_store_id(const struct sqlite_db *db)
{
	return db->store_id;
}

bool sqlite_db_put_back(const struct sqlite_db *db)
{
	return db->put_back;
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

int sqlite_failed(struct sqlite_db *db)
{
	snprintf(
		db->error, sizeof(db->error), "%s", sqlite3_errmsg(db->handle));
	db->full = (sqlite3_errcode(db->handle) & 0xff) == SQLITE_FULL;
	return -EIO;
}

sqlite3_stmt *sqlite_use(struct sqlite_db *db, enum sqlite_sql which)
{
	sqlite3_stmt *stmt = db->statements[which];

	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	return stmt;
}

int sqlite_run(struct sqlite_db *db, sqlite3_stmt *stmt)
{
	int ret = sqlite3_step(stmt) == SQLITE_DONE ? 0 : sqlite_failed(db);

	sqlite3_reset(stmt);
	return ret;
}

void sqlite_bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
	sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC);
}

void sqlite_bind_value(
	sqlite3_stmt *stmt, int at, const void *value, size_t len)
{
	if (len)
		sqlite3_bind_blob64(stmt, at, value, len, SQLITE_STATIC);
	else
		sqlite3_bind_zeroblob(stmt, at, 0);
}

/* Keys are ASCII below DEL, so the last byte can be counted up. */
void sqlite_bind_prefix(
	sqlite3_stmt *stmt, int at, const char *prefix, char *end)
{
	size_t len = strlen(prefix);

	strcpy(end, len ? prefix : "\x7f");
	if (len)
		end[len - 1]++;
	sqlite_bind_text(stmt, at, prefix);
	sqlite_bind_text(stmt, at + 1, end);
}

struct backend_kv sqlite_row_kv(sqlite3_stmt *stmt, const char *key, int first)
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
	return sqlite_run(db, sqlite_use(db, SQL_BEGIN));
}

static int set_meta(struct sqlite_db *db, const char *key, uint64_t value)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_SET_META);

	sqlite_bind_text(stmt, 1, key);
	sqlite3_bind_int64(stmt, 2, (sqlite3_int64)value);
	return sqlite_run(db, stmt);
}

int sqlite_db_commit(struct sqlite_db *db)
{
	if (db->revision != db->safe_revision &&
		set_meta(db, "revision", db->revision) < 0)
		return -EIO;
	if (db->compacted != db->safe_compacted &&
		set_meta(db, "compacted", db->compacted) < 0)
		return -EIO;
	if (sqlite_run(db, sqlite_use(db, SQL_COMMIT)) < 0)
		return -EIO;
	db->safe_revision = db->revision;
	db->safe_compacted = db->compacted;
	db->safe_log_bytes = db->log_bytes;
	return 0;
}

void sqlite_db_rollback(struct sqlite_db *db)
{
	/* fails harmlessly when SQLite has already rolled back by itself */
	sqlite3_step(sqlite_use(db, SQL_ROLLBACK));
	sqlite3_reset(db->statements[SQL_ROLLBACK]);
	db->revision = db->safe_revision;
	db->compacted = db->safe_compacted;
	db->log_bytes = db->safe_log_bytes;
}

/* ---- reading ---- */

/* The text right behind key: keys have no bytes below '!'. */
static void next_text(const char *key, char out[BACKEND_KEY_MAX + 2])
{
	snprintf(out, BACKEND_KEY_MAX + 2, "%s\x01", key);
}

int sqlite_db_range(struct sqlite_db *db, const struct backend_range *range,
	sqlite_row_fn *fn, void *arg)
{
	bool past = range->at_revision && range->at_revision < db->revision;
	sqlite3_stmt *stmt = sqlite_use(db, past ? SQL_RANGE_AT : SQL_RANGE);
	char begin[BACKEND_KEY_MAX + 2];
	char end[BACKEND_KEY_MAX + 2];
	int ret = 0;
	int step;

	sqlite_bind_prefix(stmt, 1, range->prefix, end);
	if (range->exact) {
		next_text(range->prefix, end);
		sqlite_bind_text(stmt, 2, end);
	}
	/* one bound each way: of two SQLite would seek by the first and walk
	 * over what the other leaves out */
	if (range->after && strcmp(range->after, range->prefix) >= 0) {
		next_text(range->after, begin);
		sqlite_bind_text(stmt, 1, begin);
	}
	sqlite3_bind_int64(stmt, 3, (sqlite3_int64)range->limit + 1);
	if (past)
		sqlite3_bind_int64(stmt, 4, (sqlite3_int64)range->at_revision);
	while ((step = sqlite3_step(stmt)) == SQLITE_ROW && ret == 0) {
		const char *key = (const char *)sqlite3_column_text(stmt, 0);
		struct backend_kv kv = sqlite_row_kv(stmt, key, 1);

		kv.mod_revision = sqlite3_column_int64(stmt, 2);
		kv.lease = sqlite3_column_int64(stmt, 3);
		ret = fn(arg, kv.mod_revision, &kv);
	}
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		ret = sqlite_failed(db);
	sqlite3_reset(stmt);
	return ret < 0 ? ret : 0;
}

int sqlite_db_get(struct sqlite_db *db, const char *key,
	uint64_t *mod_revision_out, const void *value, size_t len,
	bool *equal_out)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_GET);
	struct backend_kv kv;
	int step;
	int ret = 0;

	sqlite_bind_text(stmt, 1, key);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW) {
		kv = sqlite_row_kv(stmt, key, 0);
		*mod_revision_out = sqlite3_column_int64(stmt, 1);
		if (equal_out)
			*equal_out = kv.len == len &&
				     (!len || !memcmp(kv.value, value, len));
		ret = 1;
	} else if (step != SQLITE_DONE) {
		ret = sqlite_failed(db);
	}
	sqlite3_reset(stmt);
	return ret;
}

/* ---- writing ---- */

void sqlite_db_advance(struct sqlite_db *db)
{
	db->revision++;
}

int sqlite_db_put(struct sqlite_db *db, const struct backend_op *op)
{
	sqlite3_stmt *stmt;

	if (sqlite_log_change(
		    db, op->key, op->value ? op->value : "", op->len) < 0)
		return -EIO;
	stmt = sqlite_use(db, SQL_PUT);
	sqlite_bind_text(stmt, 1, op->key);
	sqlite_bind_value(stmt, 2, op->value, op->len);
	sqlite3_bind_int64(stmt, 3, (sqlite3_int64)db->revision);
	sqlite3_bind_int64(stmt, 4, (sqlite3_int64)op->lease);
	return sqlite_run(db, stmt);
}

int sqlite_db_delete(struct sqlite_db *db, const char *key)
{
	int there = sqlite_log_change(db, key, NULL, 0);
	sqlite3_stmt *stmt;

	if (there <= 0)
		return there;
	stmt = sqlite_use(db, SQL_DELETE);
	sqlite_bind_text(stmt, 1, key);
	return sqlite_run(db, stmt) < 0 ? -EIO : 1;
}

/* ---- leases ---- */

int sqlite_db_lease_add(struct sqlite_db *db, uint64_t lease, uint32_t ttl_ms)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_LEASE_ADD);

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)lease);
	sqlite3_bind_int64(stmt, 2, ttl_ms);
	return sqlite_run(db, stmt);
}

int sqlite_db_lease_remove(struct sqlite_db *db, uint64_t lease)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_LEASE_REMOVE);

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)lease);
	return sqlite_run(db, stmt);
}

int sqlite_db_leases(struct sqlite_db *db,
	void (*fn)(void *arg, uint64_t lease, uint32_t ttl_ms), void *arg)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_LEASES);
	int step;

	while ((step = sqlite3_step(stmt)) == SQLITE_ROW)
		fn(arg, sqlite3_column_int64(stmt, 0),
			(uint32_t)sqlite3_column_int64(stmt, 1));
	sqlite3_reset(stmt);
	return step == SQLITE_DONE ? 0 : sqlite_failed(db);
}

/* One key that hangs on lease, "" when there is none. */
static int lease_key(
	struct sqlite_db *db, uint64_t lease, char key[BACKEND_KEY_MAX + 1])
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_LEASE_KEYS);
	int step;

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)lease);
	step = sqlite3_step(stmt);
	snprintf(key, BACKEND_KEY_MAX + 1, "%s",
		step == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0)
				   : "");
	sqlite3_reset(stmt);
	return step == SQLITE_ROW || step == SQLITE_DONE ? 0
							 : sqlite_failed(db);
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
