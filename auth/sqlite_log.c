/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The change log of the embedded store: written with every change, read by
 * watches and by ranges of the past, forgotten from its old end. What a
 * newcomer gets wrong: a row holds the state *before* the change as well;
 * without it a past state could be read only as far back as every key's last
 * but one value.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "auth/sqlite_impl.h"

static int64_t unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

int sqlite_log_change(
	struct sqlite_db *db, const char *key, const void *value, size_t len)
{
	sqlite3_stmt *old = sqlite_use(db, SQL_GET);
	sqlite3_stmt *stmt = sqlite_use(db, SQL_LOG);
	struct backend_kv kv = {0};
	int64_t size;
	int step;
	int ret;

	sqlite_bind_text(old, 1, key);
	step = sqlite3_step(old);
	if (step != SQLITE_ROW && (step != SQLITE_DONE || !value)) {
		ret = step == SQLITE_DONE ? 0 : sqlite_failed(db);
		sqlite3_reset(old);
		return ret;
	}
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)db->revision);
	sqlite_bind_text(stmt, 2, key);
	if (value)
		sqlite_bind_value(stmt, 3, value, len);
	if (step == SQLITE_ROW) {
		kv = sqlite_row_kv(old, key, 0);
		sqlite_bind_value(stmt, 4, kv.value, kv.len);
		sqlite3_bind_int64(stmt, 5, sqlite3_column_int64(old, 1));
		sqlite3_bind_int64(stmt, 6, sqlite3_column_int64(old, 2));
	}
	size = (int64_t)(2 * strlen(key) + len + kv.len + 64);
	sqlite3_bind_int64(stmt, 7, unix_ms());
	sqlite3_bind_int64(stmt, 8, size);
	ret = sqlite_run(db, stmt);
	sqlite3_reset(old);
	if (ret < 0)
		return ret;
	db->log_bytes += size;
	return step == SQLITE_ROW;
}

int sqlite_db_changes(struct sqlite_db *db, const char *prefix, uint64_t from,
	sqlite_row_fn *fn, void *arg)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_CHANGES);
	char end[BACKEND_KEY_MAX + 2];
	int ret = 0;
	int step;

	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)from);
	sqlite_bind_prefix(stmt, 2, prefix, end);
	sqlite3_bind_int64(stmt, 4, (sqlite3_int64)db->safe_revision);
	while ((step = sqlite3_step(stmt)) == SQLITE_ROW && ret == 0) {
		const char *key = (const char *)sqlite3_column_text(stmt, 1);
		struct backend_kv kv = sqlite_row_kv(stmt, key, 2);

		ret = fn(arg, sqlite3_column_int64(stmt, 0), &kv);
	}
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		ret = sqlite_failed(db);
	sqlite3_reset(stmt);
	return ret < 0 ? ret : 0;
}

/* ---- compaction ---- */

int sqlite_db_compact(struct sqlite_db *db, uint64_t revision, unsigned max)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_STEP);
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
		return sqlite_failed(db);

	stmt = sqlite_use(db, SQL_FORGET_SIZE);
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)revision);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		bytes = sqlite3_column_double(stmt, 0);
	sqlite3_reset(stmt);
	stmt = sqlite_use(db, SQL_FORGET);
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)revision);
	if (sqlite_run(db, stmt) < 0)
		return -EIO;
	db->compacted = revision;
	db->log_bytes -= (uint64_t)bytes;
	return 0;
}

uint64_t sqlite_db_expendable(
	struct sqlite_db *db, int64_t older_than, uint64_t keep_bytes)
{
	sqlite3_stmt *stmt = sqlite_use(db, SQL_OLDER);
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
