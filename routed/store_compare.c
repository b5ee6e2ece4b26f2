/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds where the cache is not what authd's records say. All columns count:
 * readers search by those beside the record, too. Owns a connection of its own
 * while it compares.
 *
 * What is easily got wrong: routed goes on writing meanwhile, so all questions
 * are asked in one transaction.
 */
#include "routed/store_compare.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "shared/alloc.h"

#define BUSY_MS 2000
#define LIMIT " LIMIT 200" /* STORE_DIFFERENCES_MAX */

/* For each table its columns as agent id, agent, proxy id, content; what makes
 * a row the same one in both; and all that must be equal. */
#define CONFIG "'', '', '', t.record"
#define CONFIG_ALL "id, record"
#define PROXY "'', '', t.id, t.record"
#define PROXY_ALL "id, peer_addr, state, record"
#define TUNNEL "t.agent_id, t.name, t.proxy_id, t.record"
#define TUNNEL_ALL "agent_id, proxy_id, name, since_ms, record"
#define SAME_ROW "o.id = t.id"
#define SAME_TUNNEL "o.agent_id = t.agent_id AND o.proxy_id = t.proxy_id"

/* Rows of the truth that the cache lacks, or has otherwise (first column). */
#define UNEQUAL(table, columns, same, all)                         \
	"SELECT EXISTS(SELECT 1 FROM live." table " o WHERE " same \
	"), " columns " FROM (SELECT " all " FROM main." table     \
	" EXCEPT SELECT " all " FROM live." table ") t" LIMIT
#define EXTRA(table, columns, same)                                      \
	"SELECT 2, " columns " FROM live." table                         \
	" t WHERE NOT EXISTS(SELECT 1 FROM main." table " o WHERE " same \
	")" LIMIT

static const struct {
	const char *table;
	const char *sql;
} questions[] = {
	{"config", UNEQUAL("config", CONFIG, SAME_ROW, CONFIG_ALL)},
	{"config", EXTRA("config", CONFIG, SAME_ROW)},
	{"proxy", UNEQUAL("proxy", PROXY, SAME_ROW, PROXY_ALL)},
	{"proxy", EXTRA("proxy", PROXY, SAME_ROW)},
	{"tunnel", UNEQUAL("tunnel", TUNNEL, SAME_TUNNEL, TUNNEL_ALL)},
	{"tunnel", EXTRA("tunnel", TUNNEL, SAME_TUNNEL)},
};

struct comparison {
	sqlite3 *db;
	void (*fn)(void *arg, const struct store_difference *difference);
	void *arg;
};

static const char *text_at(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return text ? text : "";
}

/* FNV-1a */
static uint64_t fingerprint_at(sqlite3_stmt *statement, int column)
{
	const unsigned char *bytes = sqlite3_column_blob(statement, column);
	int len = sqlite3_column_bytes(statement, column);
	uint64_t hash = 14695981039346656037u;

	for (int i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * 1099511628211u;
	return hash;
}

static void report(
	struct comparison *c, const char *table, sqlite3_stmt *statement)
{
	static const enum store_difference_kind kinds[] = {
		STORE_MISSING, STORE_DIFFERS, STORE_EXTRA};
	struct store_difference difference = {
		.kind = kinds[sqlite3_column_int(statement, 0)],
		.table = table,
		.agent_id = text_at(statement, 1),
		.agent = text_at(statement, 2),
		.proxy_id = text_at(statement, 3),
		.fingerprint = fingerprint_at(statement, 4),
	};

	c->fn(c->arg, &difference);
}

static int ask(struct comparison *c, const char *table, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	int ret = sqlite3_prepare_v2(c->db, sql, -1, &statement, NULL);

	while (ret == SQLITE_OK &&
		(ret = sqlite3_step(statement)) == SQLITE_ROW) {
		report(c, table, statement);
		ret = SQLITE_OK;
	}
	sqlite3_finalize(statement);
	return ret == SQLITE_DONE ? SQLITE_OK : ret;
}

static int read_meta(struct comparison *c, struct cache_meta *out)
{
	sqlite3_stmt *statement = NULL;
	int ret = sqlite3_prepare_v2(c->db,
		"SELECT (SELECT value FROM live.meta WHERE key = 'store_id'),"
		" (SELECT value FROM live.meta WHERE key = 'revision')",
		-1, &statement, NULL);

	memset(out, 0, sizeof(*out));
	if (ret == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
		snprintf(out->store_id, sizeof(out->store_id), "%s",
			text_at(statement, 0));
		out->revision = (uint64_t)sqlite3_column_int64(statement, 1);
	}
	sqlite3_finalize(statement);
	return ret;
}

/* An SQLite code. */
static int compare(struct comparison *c, const char *truth, const char *path,
	struct cache_meta *meta_out)
{
	char *attach = sqlite3_mprintf("ATTACH %Q AS live; BEGIN", path);
	int ret = sqlite3_open_v2(truth, &c->db, SQLITE_OPEN_READWRITE, NULL);

	sqlite3_busy_timeout(c->db, BUSY_MS);
	if (ret == SQLITE_OK)
		ret = sqlite3_exec(c->db, attach, NULL, NULL, NULL);
	if (ret == SQLITE_OK)
		ret = read_meta(c, meta_out);
	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		if (ret == SQLITE_OK)
			ret = ask(c, questions[i].table, questions[i].sql);
	}
	sqlite3_free(attach);
	return ret;
}

int store_compare(const char *truth, const char *path,
	void (*fn)(void *arg, const struct store_difference *difference),
	void *arg, struct cache_meta *meta_out, char **error_out)
{
	struct comparison c = {.fn = fn, .arg = arg};
	int ret = compare(&c, truth, path, meta_out);

	if (ret != SQLITE_OK)
		*error_out = xasprintf("%s: %s", path, sqlite3_errmsg(c.db));
	sqlite3_close(c.db);
	return ret == SQLITE_OK ? 0 : -EIO;
}
