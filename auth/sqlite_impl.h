/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the sqlite_*.c files share among themselves. */

#include <sqlite3.h>

#include "auth/sqlite_db.h"

enum sqlite_sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_SET_META,
	SQL_GET,
	SQL_RANGE,
	SQL_RANGE_AT,
	SQL_PUT,
	SQL_DELETE,
	SQL_LOG,
	SQL_CHANGES,
	SQL_LEASE_ADD,
	SQL_LEASE_REMOVE,
	SQL_LEASES,
	SQL_LEASE_KEYS,
	SQL_STEP,
	SQL_FORGET_SIZE,
	SQL_FORGET,
	SQL_OLDER,
	SQL_STATEMENTS,
};

extern const char *const sqlite_statements[SQL_STATEMENTS];

struct sqlite_db {
	char *path;
	sqlite3 *handle;
	sqlite3_stmt *statements[SQL_STATEMENTS];
	char store_id[64];
	uint64_t revision;
	uint64_t compacted;
	uint64_t log_bytes;
	/* as of the last commit */
	uint64_t safe_revision;
	uint64_t safe_compacted;
	uint64_t safe_log_bytes;
	char error[512];
	bool full;
	bool put_back;
	bool opened;
};

/* Keeps SQLite's error; -EIO. */
int sqlite_failed(struct sqlite_db *db);
/* The prepared statement, with nothing bound. */
sqlite3_stmt *sqlite_use(struct sqlite_db *db, enum sqlite_sql which);
/* Runs one that gives no rows. */
int sqlite_run(struct sqlite_db *db, sqlite3_stmt *stmt);
/* Texts and values are borrowed until the statement is used again. */
void sqlite_bind_text(sqlite3_stmt *stmt, int at, const char *text);
/* A present value of no bytes is not NULL, which would mean absent. */
void sqlite_bind_value(
	sqlite3_stmt *stmt, int at, const void *value, size_t len);
/* Binds [prefix, end of prefix) to at and at + 1; end has room for the prefix
 * and two bytes. */
void sqlite_bind_prefix(
	sqlite3_stmt *stmt, int at, const char *prefix, char *end);
/* The value in column first of stmt, NULL when it is absent; borrowed. */
struct backend_kv sqlite_row_kv(sqlite3_stmt *stmt, const char *key, int first);

/* Writes the change of key, whose state is still the old one; value NULL: it
 * is going to be deleted. 1: the key is there now, 0: it is not, -EIO. */
int sqlite_log_change(
	struct sqlite_db *db, const char *key, const void *value, size_t len);

/* Whether the file is the one that was left behind; when not, the store has a
 * new id afterwards. known_inode: what the file says of itself, 0: nothing
 * yet. */
int sqlite_origin_check(
	struct sqlite_db *db, uint64_t inode, uint64_t known_inode);
/* Notes, when the store is closed, how far it has come. */
void sqlite_origin_note(const struct sqlite_db *db);
