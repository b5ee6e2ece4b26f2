/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's schema versions: order and atomicity of migration, refusal of
 * what is newer or foreign. Lists of steps are the tests' own; the store's own
 * list is run over a file of each of its versions.
 */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/backend_sqlite.h"
#include "auth/sqlite_schema.h"
#include "shared/alloc.h"

struct fixture {
	char dir[64];
	char path[80];
	sqlite3 *db;
};

static void open_file(struct fixture *f)
{
	assert_int_equal(SQLITE_OK, sqlite3_open(f->path, &f->db));
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/peerway-schema-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/backend.db", f->dir);
	open_file(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char *command = xasprintf("rm -r %s", f->dir);

	sqlite3_close(f->db);
	assert_int_equal(0, system(command));
	free(command);
	free(f);
	return 0;
}

static void execute(struct fixture *f, const char *sql)
{
	if (sqlite3_exec(f->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(f->db));
}

/* First column of the first row; gives. */
static char *ask(struct fixture *f, const char *sql)
{
	sqlite3_stmt *stmt;
	char *text = NULL;

	if (sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(f->db));
	if (sqlite3_step(stmt) == SQLITE_ROW)
		text = xstrdup((const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return text;
}

static void assert_answer(
	struct fixture *f, const char *expected, const char *sql)
{
	char *text = ask(f, sql);

	if (!text || strcmp(text, expected))
		fail_msg("%s: %s, not %s", sql, text ? text : "no row",
			expected);
	free(text);
}

#define VERSION "SELECT value FROM meta WHERE key = 'schema'"
#define NOTES "SELECT group_concat(text, ' ') FROM note"

static void bring(struct fixture *f, const char *const *steps)
{
	const struct sqlite_schema schema = {sqlite_schema.base, steps};
	char *error = NULL;

	if (!sqlite_schema_bring(f->db, &schema, &error))
		fail_msg("%s", error);
	assert_null(error);
}

static void assert_refused(
	struct fixture *f, const char *const *steps, const char *words)
{
	const struct sqlite_schema schema = {sqlite_schema.base, steps};
	char *error = NULL;

	assert_false(sqlite_schema_bring(f->db, &schema, &error));
	if (!strstr(error, words))
		fail_msg("\"%s\" does not say: %s", error, words);
	/* one line */
	assert_null(strchr(error, '\n'));
	free(error);
	assert_true(sqlite3_get_autocommit(f->db));
}

static const char *const first[] = {NULL};
static const char *const second[] = {
	"CREATE TABLE note(text TEXT); INSERT INTO note VALUES('second')",
	NULL,
};
/* Each step needs the one before it. */
static const char *const fourth[] = {
	"CREATE TABLE note(text TEXT); INSERT INTO note VALUES('second')",
	"INSERT INTO note SELECT text || '-third' FROM note",
	"ALTER TABLE note ADD COLUMN size INTEGER NOT NULL DEFAULT 0;"
	"UPDATE note SET size = length(text)",
	NULL,
};

static void an_empty_file_gets_the_whole_schema(void **state)
{
	struct fixture *f = *state;
	char *id;

	bring(f, fourth);
	assert_answer(f, "4", VERSION);
	assert_answer(f, "second second-third", NOTES);
	assert_answer(f, "1349992821", "PRAGMA application_id");
	id = ask(f, "SELECT value FROM meta WHERE key = 'store_id'");
	assert_int_equal(36, strlen(id));
	free(id);
}

static void steps_are_made_in_order_from_where_the_file_is(void **state)
{
	struct fixture *f = *state;

	bring(f, first);
	assert_answer(f, "1", VERSION);
	bring(f, second);
	assert_answer(f, "2", VERSION);
	execute(f, "INSERT INTO note VALUES('mine')");
	/* not the first step again */
	bring(f, fourth);
	assert_answer(f, "4", VERSION);
	assert_answer(f, "second mine second-third mine-third", NOTES);
	assert_answer(f, "32", "SELECT sum(size) FROM note");
	/* and none is made twice */
	bring(f, fourth);
	assert_answer(f, "second mine second-third mine-third", NOTES);
}

static void a_step_that_fails_leaves_the_file_as_it_was(void **state)
{
	static const char *const broken[] = {
		"CREATE TABLE note(text TEXT); INSERT INTO note VALUES('x')",
		"INSERT INTO note VALUES('y'); INSERT INTO nowhere VALUES(1)",
		NULL,
	};
	struct fixture *f = *state;

	bring(f, first);
	execute(f, "INSERT INTO kv VALUES('k', 'v', 1, 0)");
	assert_refused(f, broken,
		"schema not brought from version 2 to 3: no such table");
	/* as another connection sees it, too */
	sqlite3_close(f->db);
	open_file(f);
	assert_answer(f, "1", VERSION);
	assert_answer(f, "0",
		"SELECT count(*) FROM sqlite_schema WHERE name = 'note'");
	assert_answer(f, "v", "SELECT value FROM kv");
	bring(f, fourth);
	assert_answer(f, "4", VERSION);
}

static void a_newer_file_is_refused_and_untouched(void **state)
{
	struct fixture *f = *state;

	bring(f, fourth);
	assert_refused(f, second,
		"its schema is version 4, this program's is 2: run the authd "
		"that wrote it or a newer one, or restore a backup");
	assert_answer(f, "4", VERSION);
	assert_answer(f, "second second-third", NOTES);
}

static void foreign_files_are_refused(void **state)
{
	struct fixture *f = *state;

	execute(f, "CREATE TABLE places(url TEXT)");
	assert_refused(f, first, "not a store of authd");
	execute(f, "CREATE TABLE meta(key, value)");
	assert_refused(f, first, "not a store of authd");
	execute(f, "DROP TABLE meta; DROP TABLE places");
	bring(f, first);
	execute(f, "PRAGMA application_id = 7");
	assert_refused(f, first, "not a store of authd");
}

static void other_tables_are_found(void **state)
{
	struct fixture *f = *state;
	const struct sqlite_schema schema = {sqlite_schema.base, second};
	unsigned version = 0;
	char *fault = sqlite_schema_fault(f->db, &schema, &version);

	assert_string_equal("it is empty", fault);
	free(fault);
	/* of either version, unless it says another than it is */
	bring(f, first);
	assert_null(sqlite_schema_fault(f->db, &schema, &version));
	assert_int_equal(1, version);
	bring(f, second);
	assert_null(sqlite_schema_fault(f->db, &schema, &version));
	assert_int_equal(2, version);
	execute(f, "UPDATE meta SET value = 1 WHERE key = 'schema'");
	fault = sqlite_schema_fault(f->db, &schema, &version);
	assert_string_equal(
		"its tables are not those of schema version 1", fault);
	free(fault);
	execute(f, "UPDATE meta SET value = 2 WHERE key = 'schema';"
		   "DROP INDEX kv_lease");
	fault = sqlite_schema_fault(f->db, &schema, &version);
	assert_string_equal(
		"its tables are not those of schema version 2", fault);
	free(fault);
}

/* Version 1 as the first authd wrote it, with its texts: not made from today's
 * sources, which may no longer do so. */
static const char version_1[] =
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
	"INSERT INTO meta VALUES('schema', 1), ('revision', 9),"
	" ('compacted', 4), ('inode', '0'),"
	" ('store_id', 'aaaaaaaa-0000-4000-8000-000000000001');"
	"INSERT INTO kv VALUES('secret/x', 'kept', 9, 0);"
	"INSERT INTO change VALUES(9, 'secret/x', 'kept', NULL, NULL, NULL,"
	" 1, 80);"
	"PRAGMA journal_mode = WAL";

static void on_range(void *arg, const struct backend_range_result *result)
{
	char *text = arg;

	assert_int_equal(BACKEND_OK, result->status);
	assert_int_equal(1, result->count);
	memcpy(text, result->kvs[0].value, result->kvs[0].len);
}

static void the_first_authds_file_opens(void **state)
{
	struct fixture *f = *state;
	struct loop *loop = loop_new();
	struct backend_sqlite_options options = {.path = f->path};
	struct backend_range range = {
		.prefix = "secret/x", .exact = true, .limit = 1};
	struct backend_info info;
	struct backend *backend;
	unsigned version;
	char text[8] = "";
	char *error = NULL;

	execute(f, version_1);
	assert_null(sqlite_schema_fault(f->db, &sqlite_schema, &version));
	assert_int_equal(1, version);
	sqlite3_close(f->db);
	backend = backend_sqlite_new(loop, &options, &error);
	if (!backend)
		fail_msg("%s", error);
	backend_info(backend, &info);
	assert_string_equal(
		"aaaaaaaa-0000-4000-8000-000000000001", info.store_id);
	assert_int_equal(9, info.revision);
	backend_range(backend, &range, on_range, text);
	for (int i = 0; i < 10 && !text[0]; i++)
		loop_turn(loop, false);
	assert_string_equal("kept", text);
	backend_free(backend);
	loop_free(loop);
	open_file(f);
	assert_answer(f, "1349992821", "PRAGMA application_id");
	assert_null(sqlite_schema_fault(f->db, &sqlite_schema, &version));
	assert_int_equal(sqlite_schema_version(&sqlite_schema), version);
}

static void authd_does_not_open_a_newer_file(void **state)
{
	struct fixture *f = *state;
	struct loop *loop = loop_new();
	struct backend_sqlite_options options = {.path = f->path};
	char *error = NULL;

	execute(f, version_1);
	execute(f, "UPDATE meta SET value = 99 WHERE key = 'schema'");
	sqlite3_close(f->db);
	assert_null(backend_sqlite_new(loop, &options, &error));
	assert_non_null(strstr(error, "/backend.db: its schema is version 99, "
				      "this program's is 1: "));
	free(error);
	loop_free(loop);
	open_file(f);
	assert_answer(f, "99", VERSION);
	assert_answer(f, "0", "PRAGMA application_id");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_file_gets_the_whole_schema),
		TEST(steps_are_made_in_order_from_where_the_file_is),
		TEST(a_step_that_fails_leaves_the_file_as_it_was),
		TEST(a_newer_file_is_refused_and_untouched),
		TEST(foreign_files_are_refused),
		TEST(other_tables_are_found),
		TEST(the_first_authds_file_opens),
		TEST(authd_does_not_open_a_newer_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
