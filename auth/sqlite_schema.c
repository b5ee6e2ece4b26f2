/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's schema and its migration, see sqlite_schema.h. What a newcomer
 * gets wrong: the version stands in table meta and not in PRAGMA user_version,
 * because that is where the first authd looks for it; and it is written by the
 * transaction that makes the steps, so a file never has one without the other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/sqlite_schema.h"
#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/log.h"

static const char base[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE kv(key TEXT PRIMARY KEY, value BLOB NOT NULL,"
	" mod INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX kv_lease ON kv(lease) WHERE lease != 0;"
	"CREATE TABLE change(revision INTEGER NOT NULL, key TEXT NOT NULL,"
	" value BLOB, old_value BLOB, old_mod INTEGER, old_lease INTEGER,"
	" at INTEGER NOT NULL, size INTEGER NOT NULL,"
	" PRIMARY KEY(revision, key)) WITHOUT ROWID;"
	"CREATE INDEX change_key ON change(key, revision);"
	"CREATE TABLE lease(id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL);"
	"INSERT INTO meta VALUES('schema', 1), ('revision', 1),"
	" ('compacted', 0), ('inode', '0')";

/* From each version to the next. */
static const char *const steps[] = {
	NULL,
};

const struct sqlite_schema sqlite_schema = {base, steps};

unsigned sqlite_schema_version(const struct sqlite_schema *schema)
{
	unsigned version = 1;

	while (schema->steps[version - 1])
		version++;
	return version;
}

static bool execute(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* First column of the first row; -1: there is none. */
static long long number_of(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt = NULL;
	long long number = -1;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
		sqlite3_step(stmt) == SQLITE_ROW)
		number = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return number;
}

/* ---- which version a file has ---- */

/* Negative: cannot be read, errmsg says why. */
static long long table_count(sqlite3 *db)
{
	return number_of(db, "SELECT count(*) FROM sqlite_schema");
}

static char *read_version(
	sqlite3 *db, const struct sqlite_schema *schema, unsigned *version_out)
{
	unsigned newest = sqlite_schema_version(schema);
	long long id = number_of(db, "PRAGMA application_id");
	long long version =
		number_of(db, "SELECT value FROM meta WHERE key = 'schema'");

	if (table_count(db) < 0)
		return xstrdup(sqlite3_errmsg(db));
	/* 0: of an authd that did not mark its files yet */
	if ((id != 0 && id != SQLITE_STORE_ID) || version < 1)
		return xstrdup("it is a database, but not a store of authd");
	if (version > newest)
		return xasprintf("its schema is version %lld, this program's "
				 "is %u: run the authd that wrote it or a "
				 "newer one, or restore a backup made before "
				 "(peerctl restore)",
			version, newest);
	*version_out = (unsigned)version;
	return NULL;
}

/* ---- bringing it on ---- */

static bool create(sqlite3 *db, const struct sqlite_schema *schema)
{
	char uuid[37];
	char *text;
	bool ok;

	identity_uuid_make(uuid);
	text = xasprintf("INSERT INTO meta VALUES('store_id', '%s')", uuid);
	ok = execute(db, schema->base) && execute(db, text);
	free(text);
	return ok;
}

/* From version from to version to; gives why not. */
static char *climb(sqlite3 *db, const struct sqlite_schema *schema,
	unsigned from, unsigned to)
{
	char *text;
	bool ok;

	for (unsigned at = from; at < to; at++)
		if (!execute(db, schema->steps[at - 1]))
			return xasprintf("schema not brought from version %u "
					 "to %u: %s",
				at, at + 1, sqlite3_errmsg(db));
	text = xasprintf("UPDATE meta SET value = %u WHERE key = 'schema'"
			 " AND value != %u; PRAGMA application_id = %d",
		to, to, SQLITE_STORE_ID);
	ok = execute(db, text);
	free(text);
	return ok ? NULL : xstrdup(sqlite3_errmsg(db));
}

static char *bring(sqlite3 *db, const struct sqlite_schema *schema)
{
	unsigned newest = sqlite_schema_version(schema);
	unsigned version = 1;
	bool empty = table_count(db) == 0;
	char *fault;

	if (empty && !create(db, schema))
		return xstrdup(sqlite3_errmsg(db));
	fault = read_version(db, schema, &version);
	if (!fault &&
		(version != newest || number_of(db, "PRAGMA application_id") !=
					      SQLITE_STORE_ID))
		fault = climb(db, schema, version, newest);
	if (!fault && !empty && version != newest)
		log_info("store brought to a newer schema: from=%u to=%u",
			version, newest);
	return fault;
}

bool sqlite_schema_bring(
	sqlite3 *db, const struct sqlite_schema *schema, char **error_out)
{
	char *fault = NULL;

	if (!execute(db, "BEGIN EXCLUSIVE"))
		fault = xstrdup(sqlite3_errmsg(db));
	else
		fault = bring(db, schema);
	if (!fault && !execute(db, "COMMIT"))
		fault = xstrdup(sqlite3_errmsg(db));
	if (fault && !sqlite3_get_autocommit(db))
		execute(db, "ROLLBACK");
	*error_out = fault;
	return !fault;
}

/* ---- whether it is what it says ---- */

/* All tables and indexes with their SQL, as one text; gives. */
static char *describe(sqlite3 *db)
{
	static const char sql[] =
		"SELECT group_concat(type || ' ' || name || ' ' || sql, ';')"
		" FROM (SELECT type, name, sql FROM sqlite_schema"
		" WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
		" ORDER BY type, name)";
	sqlite3_stmt *stmt = NULL;
	char *text = NULL;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
		sqlite3_step(stmt) == SQLITE_ROW &&
		sqlite3_column_type(stmt, 0) == SQLITE_TEXT)
		text = xstrdup((const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return text;
}

/* What describe() gives for that version. */
static char *describe_version(
	const struct sqlite_schema *schema, unsigned version)
{
	sqlite3 *db = NULL;
	char *fault = NULL;
	char *text = NULL;

	if (sqlite3_open(":memory:", &db) == SQLITE_OK && create(db, schema))
		fault = climb(db, schema, 1, version);
	if (!fault)
		text = describe(db);
	free(fault);
	sqlite3_close(db);
	return text;
}

char *sqlite_schema_fault(
	sqlite3 *db, const struct sqlite_schema *schema, unsigned *version_out)
{
	char *fault;
	char *is, *should;

	if (table_count(db) == 0)
		return xstrdup("it is empty");
	fault = read_version(db, schema, version_out);
	if (fault)
		return fault;
	is = describe(db);
	should = describe_version(schema, *version_out);
	if (!is || !should || strcmp(is, should))
		fault = xasprintf("its tables are not those of schema "
				  "version %u",
			*version_out);
	free(is);
	free(should);
	return fault;
}
