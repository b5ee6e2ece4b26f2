/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a file is a sound store, see sqlite_file.h. */
#include "auth/sqlite_file.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "auth/sqlite_schema.h"
#include "record.pb-c.h"
#include "shared/alloc.h"

/* What PRAGMA integrity_check finds first; NULL: nothing. Gives. */
static char *find_damage(sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	char *damage = NULL;

	if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &stmt,
		    NULL) != SQLITE_OK ||
		sqlite3_step(stmt) != SQLITE_ROW)
		damage = xstrdup(sqlite3_errmsg(db));
	else if (strcmp((const char *)sqlite3_column_text(stmt, 0), "ok"))
		damage = xasprintf("it is damaged: %s",
			(const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	/* one line */
	for (char *p = damage; p && *p; p++)
		if (*p == '\n')
			*p = ' ';
	return damage;
}

static bool read_cluster(sqlite3_stmt *stmt, struct sqlite_file *out)
{
	Peerway__Record__ClusterConfig *config =
		peerway__record__cluster_config__unpack(NULL,
			sqlite3_column_bytes(stmt, 2),
			sqlite3_column_blob(stmt, 2));

	if (!config)
		return false;
	snprintf(
		out->cluster, sizeof(out->cluster), "%s", config->cluster_name);
	peerway__record__cluster_config__free_unpacked(config, NULL);
	return out->cluster[0] != '\0';
}

static char *read_file(sqlite3 *db, struct sqlite_file *out)
{
	static const char sql[] =
		"SELECT r.value, i.value, kv.value FROM meta AS r, meta AS i,"
		" kv WHERE r.key = 'revision' AND i.key = 'store_id'"
		" AND kv.key = 'pub/config'";
	sqlite3_stmt *stmt = NULL;
	bool ok = false;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
		sqlite3_step(stmt) == SQLITE_ROW) {
		out->revision = (uint64_t)sqlite3_column_int64(stmt, 0);
		snprintf(out->store_id, sizeof(out->store_id), "%s",
			(const char *)sqlite3_column_text(stmt, 1));
		ok = read_cluster(stmt, out);
	}
	sqlite3_finalize(stmt);
	return ok ? NULL : xstrdup("there is no cluster in it");
}

char *sqlite_file_fault(const char *path, struct sqlite_file *out)
{
	sqlite3 *db = NULL;
	char *fault = NULL;

	memset(out, 0, sizeof(*out));
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) !=
			SQLITE_OK ||
		sqlite3_exec(db, "PRAGMA journal_mode=DELETE", NULL, NULL,
			NULL) != SQLITE_OK)
		fault = xstrdup(sqlite3_errmsg(db));
	if (!fault)
		fault = find_damage(db);
	if (!fault)
		fault = sqlite_schema_fault(db, &sqlite_schema, &out->schema);
	if (!fault)
		fault = read_file(db, out);
	sqlite3_close(db);
	return fault;
}
