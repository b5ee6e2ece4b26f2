/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reading side of the cache that routed writes (routed/store.c): one
 * connection, statements prepared at open, each lookup one search of an index.
 *
 * What is easily got wrong: a statement that is not reset keeps a read
 * transaction open, which keeps the writer from ever checkpointing its WAL.
 * So every path below ends in done().
 */

#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/cache_boot.h"
#include "shared/log.h"

#define BUSY_MS 1000 /* only while the file is recovered after a crash */

/* The columns beside record are what lookups search and hand out. Who holds an
 * agent is in tunnel_by_agent alone: of it few pages are read, and after each
 * commit of routed's a reader has to read them anew. */
const char cache_schema_sql[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE config(id INTEGER PRIMARY KEY CHECK(id = 1),"
	" record BLOB NOT NULL);"
	"CREATE TABLE proxy(id TEXT PRIMARY KEY, peer_addr TEXT NOT NULL,"
	" state INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE tunnel(number INTEGER PRIMARY KEY,"
	" agent_id TEXT NOT NULL, proxy_id TEXT NOT NULL, name TEXT NOT NULL,"
	" since_ms INTEGER NOT NULL, record BLOB NOT NULL);"
	"CREATE UNIQUE INDEX tunnel_by_agent ON tunnel(agent_id, proxy_id);"
	"CREATE INDEX tunnel_by_name ON tunnel(name, agent_id, proxy_id);";

enum query {
	QUERY_META,
	QUERY_CONFIG,
	QUERY_PROXIES,
	QUERY_PROXY,
	QUERY_TUNNELS,
	QUERY_TUNNELS_ALL,
	QUERY_HOLDERS,
	QUERY_MATCH_ID,
	QUERY_MATCH_NAME,
	QUERY_COUNT,
};

/* MAX() chooses the row the other columns are of: the newest registration. */
#define NEWEST "SELECT record, MAX(since_ms) FROM tunnel WHERE "

static const char *const queries[QUERY_COUNT] = {
	[QUERY_META] = "SELECT (SELECT value FROM meta WHERE key = 'store_id'),"
		       " (SELECT value FROM meta WHERE key = 'revision')",
	[QUERY_CONFIG] = "SELECT record FROM config",
	[QUERY_PROXIES] = "SELECT record FROM proxy ORDER BY id LIMIT ?1",
	[QUERY_PROXY] = "SELECT record FROM proxy WHERE id = ?1",
	[QUERY_TUNNELS] = "SELECT record FROM tunnel WHERE agent_id = ?1"
			  " ORDER BY proxy_id LIMIT ?2",
	[QUERY_TUNNELS_ALL] = "SELECT record FROM tunnel"
			      " ORDER BY name, agent_id, proxy_id",
	[QUERY_HOLDERS] = "SELECT p.id, p.peer_addr, p.state FROM tunnel t"
			  " JOIN proxy p ON p.id = t.proxy_id"
			  " WHERE t.agent_id = ?1 LIMIT ?2",
	[QUERY_MATCH_ID] = NEWEST "agent_id = ?1 GROUP BY agent_id LIMIT ?2",
	[QUERY_MATCH_NAME] = NEWEST "name = ?1 GROUP BY agent_id LIMIT ?2",
};

struct cache {
	sqlite3 *db;
	sqlite3_stmt *statements[QUERY_COUNT];
};

/* ---- opening ---- */

static int schema_of(sqlite3 *db)
{
	sqlite3_stmt *statement = NULL;
	int version = -1;

	if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &statement,
		    NULL) == SQLITE_OK &&
		sqlite3_step(statement) == SQLITE_ROW)
		version = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return version;
}

char *cache_newest(const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	unsigned newest = 0;

	while (dir && (entry = readdir(dir))) {
		unsigned n;
		int used = 0;

		/* files that were set aside have more behind .db */
		if (sscanf(entry->d_name, "cache-%u.db%n", &n, &used) == 1 &&
			used && !entry->d_name[used] && n > newest)
			newest = n;
	}
	if (dir)
		closedir(dir);
	return newest ? xasprintf("%s/cache-%u.db", directory, newest) : NULL;
}

/* Why the file is of no use, though SQLite can read it; gives, or NULL. */
static char *find_fault(sqlite3 *db)
{
	int schema = schema_of(db);

	if (schema >= 0 && schema != CACHE_SCHEMA)
		return xasprintf(
			"schema %d instead of %d", schema, CACHE_SCHEMA);
	return cache_find_crash(db);
}

struct cache *cache_open(const char *path, char **error_out)
{
	struct cache *cache = xcalloc(1, sizeof(*cache));
	char *fault;

	if (sqlite3_open_v2(path, &cache->db, SQLITE_OPEN_READWRITE, NULL) !=
		SQLITE_OK)
		goto fail;
	sqlite3_busy_timeout(cache->db, BUSY_MS);
	if (sqlite3_exec(cache->db, "PRAGMA query_only = 1", NULL, NULL,
		    NULL) != SQLITE_OK)
		goto fail;
	fault = find_fault(cache->db);
	if (fault) {
		*error_out = xasprintf("%s: %s", path, fault);
		free(fault);
		cache_close(cache);
		return NULL;
	}
	for (int q = 0; q < QUERY_COUNT; q++) {
		if (sqlite3_prepare_v3(cache->db, queries[q], -1,
			    SQLITE_PREPARE_PERSISTENT, &cache->statements[q],
			    NULL) != SQLITE_OK)
			goto fail;
	}
	return cache;

fail:
	*error_out = xasprintf("%s: %s", path, sqlite3_errmsg(cache->db));
	cache_close(cache);
	return NULL;
}

void cache_close(struct cache *cache)
{
	if (!cache)
		return;
	for (int q = 0; q < QUERY_COUNT; q++)
		sqlite3_finalize(cache->statements[q]);
	sqlite3_close(cache->db);
	free(cache);
}

/* ---- rows ---- */

static sqlite3_stmt *ask(
	struct cache *cache, enum query query, const char *text, size_t max)
{
	sqlite3_stmt *statement = cache->statements[query];
	int at = 1;

	if (text)
		sqlite3_bind_text(statement, at++, text, -1, SQLITE_TRANSIENT);
	if (max)
		sqlite3_bind_int64(statement, at, (sqlite3_int64)max);
	return statement;
}

/* Ends a statement whose last step gave step: count, or -EIO. */
static int done(
	struct cache *cache, sqlite3_stmt *statement, int step, int count)
{
	if (step != SQLITE_ROW && step != SQLITE_DONE) {
		log_debug(
			"cache cannot be read: %s", sqlite3_errmsg(cache->db));
		count = -EIO;
	}
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return count;
}

static ProtobufCMessage *record_of(
	sqlite3_stmt *statement, const ProtobufCMessageDescriptor *type)
{
	const void *bytes = sqlite3_column_blob(statement, 0);
	int size = sqlite3_column_bytes(statement, 0);

	return protobuf_c_message_unpack(type, NULL, (size_t)size, bytes);
}

/* Up to max records of column 0; all or none are given. */
static int records(struct cache *cache, sqlite3_stmt *statement,
	const ProtobufCMessageDescriptor *type, ProtobufCMessage **out,
	size_t max)
{
	size_t count = 0;
	int step = SQLITE_DONE;
	int ret;

	while (count < max && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		out[count] = record_of(statement, type);
		if (!out[count]) {
			step = SQLITE_CORRUPT;
			break;
		}
		count++;
	}
	ret = done(cache, statement, step, (int)count);
	if (ret < 0) {
		while (count > 0)
			protobuf_c_message_free_unpacked(out[--count], NULL);
	}
	return ret;
}

/* ---- lookups ---- */

int cache_config(struct cache *cache, Peerway__Record__ClusterConfig **out)
{
	return records(cache, ask(cache, QUERY_CONFIG, NULL, 0),
		&peerway__record__cluster_config__descriptor,
		(ProtobufCMessage **)out, 1);
}

int cache_proxies(
	struct cache *cache, Peerway__Record__ProxyRecord **out, size_t max)
{
	return records(cache, ask(cache, QUERY_PROXIES, NULL, max),
		&peerway__record__proxy_record__descriptor,
		(ProtobufCMessage **)out, max);
}

int cache_proxy(struct cache *cache, const char *proxy_id,
	Peerway__Record__ProxyRecord **out)
{
	return records(cache, ask(cache, QUERY_PROXY, proxy_id, 0),
		&peerway__record__proxy_record__descriptor,
		(ProtobufCMessage **)out, 1);
}

int cache_tunnels(struct cache *cache, const char *agent_id,
	Peerway__Record__TunnelRecord **out, size_t max)
{
	return records(cache, ask(cache, QUERY_TUNNELS, agent_id, max),
		&peerway__record__tunnel_record__descriptor,
		(ProtobufCMessage **)out, max);
}

int cache_tunnels_all(struct cache *cache,
	int (*fn)(void *arg, const Peerway__Record__TunnelRecord *record),
	void *arg)
{
	sqlite3_stmt *statement = ask(cache, QUERY_TUNNELS_ALL, NULL, 0);
	bool more = true;
	int count = 0;
	int step = SQLITE_DONE;

	while (more && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		ProtobufCMessage *record = record_of(
			statement, &peerway__record__tunnel_record__descriptor);

		if (!record) {
			step = SQLITE_CORRUPT;
			break;
		}
		count++;
		more = fn(arg, (void *)record) == 0;
		protobuf_c_message_free_unpacked(record, NULL);
	}
	return done(cache, statement, step, count);
}

static void copy_text(
	sqlite3_stmt *statement, int column, char *out, size_t size)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	snprintf(out, size, "%s", text ? text : "");
}

int cache_holders(struct cache *cache, const char *agent_id,
	struct cache_holder *out, size_t max)
{
	sqlite3_stmt *statement = ask(cache, QUERY_HOLDERS, agent_id, max);
	size_t count = 0;
	int step = SQLITE_DONE;

	while (count < max && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct cache_holder *holder = &out[count++];

		copy_text(statement, 0, holder->proxy_id,
			sizeof(holder->proxy_id));
		copy_text(statement, 1, holder->peer_addr,
			sizeof(holder->peer_addr));
		holder->state = sqlite3_column_int(statement, 2);
	}
	return done(cache, statement, step, (int)count);
}

/* How many of the agent's services are now in out. */
static size_t add_services(const Peerway__Record__TunnelRecord *record,
	struct target_match *out, size_t max)
{
	size_t count = 0;

	while (count < record->n_services && count < max) {
		const Peerway__Record__Service *service =
			record->services[count];
		struct target_match *match = &out[count++];

		snprintf(match->agent_id, sizeof(match->agent_id), "%s",
			record->agent_id);
		snprintf(
			match->agent, sizeof(match->agent), "%s", record->name);
		snprintf(match->service, sizeof(match->service), "%s",
			service->name);
		snprintf(match->type, sizeof(match->type), "%s", service->type);
		match->port = (uint16_t)service->port;
	}
	return count;
}

int cache_match(struct cache *cache, const struct target *target,
	struct target_match *out, size_t max)
{
	sqlite3_stmt *statement =
		target->agent_id[0]
			? ask(cache, QUERY_MATCH_ID, target->agent_id, max)
			: ask(cache, QUERY_MATCH_NAME, target->agent, max);
	size_t count = 0;
	int step = SQLITE_DONE;

	while (count < max && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		ProtobufCMessage *record = record_of(
			statement, &peerway__record__tunnel_record__descriptor);

		if (!record) {
			step = SQLITE_CORRUPT;
			break;
		}
		count += add_services(
			(const void *)record, out + count, max - count);
		protobuf_c_message_free_unpacked(record, NULL);
	}
	return done(cache, statement, step, (int)count);
}

int cache_meta(struct cache *cache, struct cache_meta *out)
{
	sqlite3_stmt *statement = ask(cache, QUERY_META, NULL, 0);
	int step = sqlite3_step(statement);
	int count = 0;

	if (step == SQLITE_ROW &&
		sqlite3_column_type(statement, 0) != SQLITE_NULL) {
		copy_text(statement, 0, out->store_id, sizeof(out->store_id));
		out->revision = (uint64_t)sqlite3_column_int64(statement, 1);
		count = 1;
	}
	return done(cache, statement, step, count);
}
