/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes what mirror.c hears from authd; store_file.c chooses the file. Owns
 * the one writing connection to the cache and its statements.
 *
 * What is easily got wrong: a record that is put again unchanged must not
 * count as a change (a snapshot is mostly that), so every put has a WHERE that
 * compares. Most changes of a tunnel leave its name: SQLite rewrites the index
 * of a column that is set at all, so a row of another name is deleted first.
 */

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routed/store.h"
#include "routed/store_file.h"
#include "shared/alloc.h"

enum statement {
	STATEMENT_BEGIN,
	STATEMENT_COMMIT,
	STATEMENT_ROLLBACK,
	STATEMENT_META_GET,
	STATEMENT_META_PUT,
	STATEMENT_CONFIG_PUT,
	STATEMENT_PROXY_PUT,
	STATEMENT_PROXY_DELETE,
	STATEMENT_TUNNEL_PUT,
	STATEMENT_TUNNEL_RENAMED,
	STATEMENT_TUNNEL_DELETE,
	STATEMENT_SEEN_CLEAR,
	STATEMENT_SEEN_PUT,
	STATEMENT_UNSEEN_PROXIES,
	STATEMENT_UNSEEN_TUNNELS,
	STATEMENT_TUNNEL_COUNTS,
	STATEMENT_COUNT,
};

/* This connection's own, in memory, rolled back with the rest. A proxy is seen
 * as (id, ""), a tunnel as (agent id, proxy id). How many tunnels each proxy
 * has is asked every few seconds, and a scan of 100,000 takes long. */
static const char temp_sql[] =
	"CREATE TEMP TABLE seen(a TEXT, b TEXT, PRIMARY KEY(a, b))"
	" WITHOUT ROWID;"
	"CREATE TEMP TABLE tunnels_of(proxy_id TEXT PRIMARY KEY, n INTEGER)"
	" WITHOUT ROWID;"
	"INSERT INTO tunnels_of SELECT proxy_id, COUNT(*) FROM tunnel"
	" GROUP BY proxy_id;"
	"CREATE TEMP TRIGGER more AFTER INSERT ON main.tunnel BEGIN"
	" INSERT INTO tunnels_of VALUES (new.proxy_id, 1)"
	" ON CONFLICT(proxy_id) DO UPDATE SET n = n + 1; END;"
	"CREATE TEMP TRIGGER less AFTER DELETE ON main.tunnel BEGIN"
	" UPDATE tunnels_of SET n = n - 1 WHERE proxy_id = old.proxy_id; END;";

static const char *const statements_sql[STATEMENT_COUNT] = {
	[STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
	[STATEMENT_COMMIT] = "COMMIT",
	[STATEMENT_ROLLBACK] = "ROLLBACK",
	[STATEMENT_META_GET] =
		"SELECT (SELECT value FROM meta WHERE key = 'store_id'),"
		" (SELECT value FROM meta WHERE key = 'revision')",
	[STATEMENT_META_PUT] = "INSERT OR REPLACE INTO meta VALUES"
			       " ('store_id', ?1), ('revision', ?2)",
	[STATEMENT_CONFIG_PUT] =
		"INSERT INTO config VALUES (1, ?1) ON CONFLICT(id)"
		" DO UPDATE SET record = excluded.record"
		" WHERE record IS NOT excluded.record",
	[STATEMENT_PROXY_PUT] =
		"INSERT INTO proxy VALUES (?1, ?2, ?3, ?4) ON CONFLICT(id)"
		" DO UPDATE SET peer_addr = excluded.peer_addr,"
		" state = excluded.state, record = excluded.record"
		" WHERE record IS NOT excluded.record",
	[STATEMENT_PROXY_DELETE] = "DELETE FROM proxy WHERE id = ?1",
	[STATEMENT_TUNNEL_PUT] =
		"INSERT INTO tunnel(agent_id, proxy_id, name, since_ms, record)"
		" VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT(agent_id, proxy_id)"
		" DO UPDATE SET since_ms = excluded.since_ms,"
		" record = excluded.record"
		" WHERE record IS NOT excluded.record",
	[STATEMENT_TUNNEL_RENAMED] =
		"DELETE FROM tunnel WHERE agent_id = ?1 AND proxy_id = ?2"
		" AND name <> ?3",
	[STATEMENT_TUNNEL_DELETE] =
		"DELETE FROM tunnel WHERE agent_id = ?1 AND proxy_id = ?2",
	[STATEMENT_SEEN_CLEAR] = "DELETE FROM seen",
	[STATEMENT_SEEN_PUT] = "INSERT OR IGNORE INTO seen VALUES (?1, ?2)",
	[STATEMENT_UNSEEN_PROXIES] =
		"DELETE FROM proxy WHERE (id, '') NOT IN seen",
	[STATEMENT_UNSEEN_TUNNELS] =
		"DELETE FROM tunnel WHERE (agent_id, proxy_id) NOT IN seen",
	[STATEMENT_TUNNEL_COUNTS] =
		"SELECT proxy_id, n FROM tunnels_of WHERE n > 0",
};

struct store {
	sqlite3 *db;
	char *path;
	sqlite3_stmt *statements[STATEMENT_COUNT];
	bool open;     /* a transaction */
	bool snapshot; /* what it does not put is to be deleted */
	bool proxies_changed;
};

/* ---- opening ---- */

static bool prepare(struct store *store)
{
	if (sqlite3_exec(store->db, temp_sql, NULL, NULL, NULL) != SQLITE_OK)
		return false;
	for (int s = 0; s < STATEMENT_COUNT; s++) {
		if (sqlite3_prepare_v3(store->db, statements_sql[s], -1,
			    SQLITE_PREPARE_PERSISTENT, &store->statements[s],
			    NULL) != SQLITE_OK)
			return false;
	}
	return true;
}

struct store *store_open(
	const char *directory, char **notice_out, char **error_out)
{
	struct store *store = xcalloc(1, sizeof(*store));

	store->db =
		store_file_open(directory, &store->path, notice_out, error_out);
	if (!store->db)
		goto fail;
	if (!prepare(store)) {
		*error_out = xasprintf(
			"%s: %s", store->path, sqlite3_errmsg(store->db));
		goto fail;
	}
	return store;

fail:
	store_close(store);
	return NULL;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	for (int s = 0; s < STATEMENT_COUNT; s++)
		sqlite3_finalize(store->statements[s]);
	store_file_close(store->db);
	free(store->path);
	free(store);
}

char *store_set_aside(struct store *store, const char *reason)
{
	char *path = xstrdup(store->path);
	char *notice;

	store_close(store);
	notice = store_file_set_aside(path, reason);
	free(path);
	return notice;
}

const char *store_path(const struct store *store)
{
	return store->path;
}

const char *store_error(const struct store *store)
{
	return sqlite3_errmsg(store->db);
}

char *store_check(const struct store *store)
{
	return store_file_check(store->path);
}

bool store_is_damaged(const struct store *store)
{
	int code = sqlite3_errcode(store->db) & 0xff;

	return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

/* ---- statements ---- */

static sqlite3_stmt *text_bound(
	struct store *store, enum statement which, const char *a, const char *b)
{
	sqlite3_stmt *statement = store->statements[which];

	if (a)
		sqlite3_bind_text(statement, 1, a, -1, SQLITE_TRANSIENT);
	if (b)
		sqlite3_bind_text(statement, 2, b, -1, SQLITE_TRANSIENT);
	return statement;
}

/* Number of rows changed, or -EIO. */
static int run(struct store *store, sqlite3_stmt *statement)
{
	int step = sqlite3_step(statement);
	int changes = sqlite3_changes(store->db);

	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return step == SQLITE_DONE ? changes : -EIO;
}

static int run_plain(struct store *store, enum statement which)
{
	return run(store, store->statements[which]);
}

static void bind_record(
	sqlite3_stmt *statement, int at, const ProtobufCMessage *record)
{
	size_t size = protobuf_c_message_get_packed_size(record);
	uint8_t *bytes = xcalloc(1, size + 1);

	protobuf_c_message_pack(record, bytes);
	sqlite3_bind_blob64(statement, at, bytes, size, free);
}

int store_meta(struct store *store, struct cache_meta *out)
{
	sqlite3_stmt *statement = store->statements[STATEMENT_META_GET];
	int ret = -EIO;

	memset(out, 0, sizeof(*out));
	if (sqlite3_step(statement) == SQLITE_ROW) {
		const char *id =
			(const char *)sqlite3_column_text(statement, 0);

		snprintf(out->store_id, sizeof(out->store_id), "%s",
			id ? id : "");
		out->revision = (uint64_t)sqlite3_column_int64(statement, 1);
		ret = 0;
	}
	sqlite3_reset(statement);
	return ret;
}

int store_tunnel_counts(struct store *store,
	void (*fn)(void *arg, const char *proxy_id, uint64_t tunnels),
	void *arg)
{
	sqlite3_stmt *statement = store->statements[STATEMENT_TUNNEL_COUNTS];
	int step;

	while ((step = sqlite3_step(statement)) == SQLITE_ROW)
		fn(arg, (const char *)sqlite3_column_text(statement, 0),
			(uint64_t)sqlite3_column_int64(statement, 1));
	sqlite3_reset(statement);
	return step == SQLITE_DONE ? 0 : -EIO;
}

/* ---- changes ---- */

static int mark_seen(struct store *store, const char *a, const char *b)
{
	if (!store->snapshot)
		return 0;
	return run(store, text_bound(store, STATEMENT_SEEN_PUT, a, b));
}

static int note_proxies(struct store *store, int ret)
{
	if (ret > 0)
		store->proxies_changed = true;
	return ret;
}

static int put_config(
	struct store *store, const Peerway__Record__ClusterConfig *record)
{
	sqlite3_stmt *statement = store->statements[STATEMENT_CONFIG_PUT];

	bind_record(statement, 1, &record->base);
	return note_proxies(store, run(store, statement));
}

static int put_proxy(
	struct store *store, const Peerway__Record__ProxyRecord *record)
{
	sqlite3_stmt *statement = text_bound(
		store, STATEMENT_PROXY_PUT, record->id, record->peer_addr);

	sqlite3_bind_int(statement, 3, (int)record->state);
	bind_record(statement, 4, &record->base);
	if (note_proxies(store, run(store, statement)) < 0)
		return -EIO;
	return mark_seen(store, record->id, "");
}

static int put_tunnel(
	struct store *store, const Peerway__Record__TunnelRecord *record)
{
	sqlite3_stmt *renamed = text_bound(store, STATEMENT_TUNNEL_RENAMED,
		record->agent_id, record->proxy_id);
	sqlite3_stmt *put = text_bound(store, STATEMENT_TUNNEL_PUT,
		record->agent_id, record->proxy_id);

	sqlite3_bind_text(renamed, 3, record->name, -1, SQLITE_TRANSIENT);
	sqlite3_bind_text(put, 3, record->name, -1, SQLITE_TRANSIENT);
	sqlite3_bind_int64(put, 4, (sqlite3_int64)record->since_ms);
	bind_record(put, 5, &record->base);
	if (run(store, renamed) < 0 || run(store, put) < 0)
		return -EIO;
	return mark_seen(store, record->agent_id, record->proxy_id);
}

static int remove_tunnel(
	struct store *store, const Peerway__Auth__TunnelKey *key)
{
	return run(store, text_bound(store, STATEMENT_TUNNEL_DELETE,
				  key->agent_id, key->proxy_id));
}

static int change_row(struct store *store, const Peerway__Auth__Change *change)
{
	switch (change->what_case) {
	case PEERWAY__AUTH__CHANGE__WHAT_CONFIG:
		return put_config(store, change->config);
	case PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT:
		return put_proxy(store, change->proxy_put);
	case PEERWAY__AUTH__CHANGE__WHAT_PROXY_REMOVED:
		return note_proxies(store,
			run(store, text_bound(store, STATEMENT_PROXY_DELETE,
					   change->proxy_removed, NULL)));
	case PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT:
		return put_tunnel(store, change->tunnel_put);
	case PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_REMOVED:
		return remove_tunnel(store, change->tunnel_removed);
	default:
		return 0; /* of a newer authd */
	}
}

int store_change(struct store *store, const Peerway__Auth__Change *change)
{
	return change_row(store, change) < 0 ? -EIO : 0;
}

/* ---- transactions ---- */

int store_begin(struct store *store, bool snapshot)
{
	struct cache_meta meta;

	if (run_plain(store, STATEMENT_BEGIN) < 0)
		return -EIO;
	store->open = true;
	store->proxies_changed = false;
	store->snapshot = false;
	if (!snapshot)
		return 0;
	if (store_meta(store, &meta) < 0)
		return -EIO;
	/* in an empty cache there is nothing to delete */
	store->snapshot = meta.store_id[0] != '\0';
	return store->snapshot && run_plain(store, STATEMENT_SEEN_CLEAR) < 0
		       ? -EIO
		       : 0;
}

bool store_is_open(const struct store *store)
{
	return store->open;
}

static int delete_unseen(struct store *store)
{
	if (note_proxies(store, run_plain(store, STATEMENT_UNSEEN_PROXIES)) <
			0 ||
		run_plain(store, STATEMENT_UNSEEN_TUNNELS) < 0)
		return -EIO;
	return 0;
}

int store_commit(struct store *store, const char *store_id, uint64_t revision,
	bool *proxies_changed_out)
{
	sqlite3_stmt *meta;

	if (store->snapshot && delete_unseen(store) < 0)
		return -EIO;
	meta = text_bound(store, STATEMENT_META_PUT, store_id, NULL);
	sqlite3_bind_int64(meta, 2, (sqlite3_int64)revision);
	if (run(store, meta) < 0 || run_plain(store, STATEMENT_COMMIT) < 0)
		return -EIO;
	store->open = false;
	*proxies_changed_out = store->proxies_changed;
	return 0;
}

void store_rollback(struct store *store)
{
	if (!store->open)
		return;
	/* Fails when the error itself has ended the transaction. */
	run_plain(store, STATEMENT_ROLLBACK);
	store->open = false;
}
