/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of the embedded store made while it is written to: consistent, whole,
 * in steps between which the loop serves others.
 */
#include "tests/unit/test.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/backend_ops.h"
#include "auth/backend_sqlite.h"
#include "shared/alloc.h"

/* More than one step copies; see backend_sqlite_copy.c. */
#define KEYS 400
#define VALUE_SIZE 2000

struct fixture {
	struct loop *loop;
	struct backend *backend;
	char dir[64];
	char path[80];
	char copy[80];

	unsigned writes; /* answered */
	bool writing;	 /* one after another */
	int done;
	char *error;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct backend_sqlite_options options = {.path = f->path};
	char *error = NULL;

	f->loop = loop_new();
	strcpy(f->dir, "/tmp/peerway-copy-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/backend.db", f->dir);
	snprintf(f->copy, sizeof(f->copy), "%s/copy.db", f->dir);
	f->backend = backend_sqlite_new(f->loop, &options, &error);
	if (!f->backend)
		fail_msg("%s", error);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char *command = xasprintf("rm -r %s", f->dir);

	backend_free(f->backend);
	loop_free(f->loop);
	assert_int_equal(0, system(command));
	free(command);
	free(f->error);
	free(f);
	return 0;
}

static void write_next(struct fixture *f);

static void on_written(void *arg, enum backend_status status, uint64_t revision)
{
	struct fixture *f = arg;

	assert_int_equal(BACKEND_OK, status);
	f->writes++;
	if (f->writing)
		write_next(f);
}

/* The same number into two keys, one at each end of the file. */
static void write_next(struct fixture *f)
{
	static char value[VALUE_SIZE];
	char near[16], far[16];
	unsigned i = f->writes % (KEYS / 2);
	struct backend_op ops[] = {
		{.kind = BACKEND_PUT, .key = near, .value = value},
		{.kind = BACKEND_PUT, .key = far, .value = value},
	};
	struct backend_txn txn = {.ops = ops, .op_count = 2};

	snprintf(near, sizeof(near), "k/%06u", i);
	snprintf(far, sizeof(far), "k/%06u", KEYS - 1 - i);
	memset(value, 'x', sizeof(value));
	snprintf(value, sizeof(value), "%u", f->writes);
	ops[0].len = ops[1].len = sizeof(value);
	backend_txn(f->backend, &txn, on_written, f);
}

static void fill(struct fixture *f)
{
	unsigned until = f->writes + KEYS / 2;

	while (f->writes < until) {
		unsigned before = f->writes;

		write_next(f);
		while (f->writes == before)
			loop_turn(f->loop, false);
	}
}

static void on_done(void *arg, const char *error)
{
	struct fixture *f = arg;

	f->done++;
	f->error = xstrdup(error);
}

static void begin(struct fixture *f)
{
	assert_int_equal(BACKEND_BACKUP_BEGUN,
		backend_backup(f->backend, f->copy, on_done, f));
	assert_int_equal(0, f->done); /* never inside the call */
}

/* First column of the first row, as a number. */
static long long number(struct fixture *f, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *stmt;
	long long n;

	assert_int_equal(SQLITE_OK, sqlite3_open(f->copy, &db));
	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
		fail_msg("%s", sqlite3_errmsg(db));
	assert_int_equal(SQLITE_ROW, sqlite3_step(stmt));
	n = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	return n;
}

#define SOUND                                         \
	"SELECT count(*) FROM pragma_integrity_check" \
	" WHERE integrity_check = 'ok'"
/* Keys whose other half is of the same transaction. */
#define PAIRED                                                 \
	"SELECT count(*) FROM kv AS a JOIN kv AS b"            \
	" ON b.key = printf('k/%06d', 399 - substr(a.key, 3))" \
	" WHERE a.value = b.value AND a.mod = b.mod"

static void copy_under_writes_is_consistent(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	unsigned began;
	unsigned turns = 0;

	fill(f);
	f->writing = true;
	write_next(f);
	began = f->writes;
	begin(f);
	while (!f->done) {
		loop_turn(f->loop, true);
		turns++;
	}
	assert_null(f->error);
	f->writing = false;
	/* others were served meanwhile, and between steps */
	assert_true(f->writes > began + 10);
	assert_true(turns > 10);
	assert_int_equal(0, stat(f->copy, &st));
	assert_int_equal(0600, st.st_mode & 07777);
	assert_int_equal(1, number(f, SOUND));
	assert_int_equal(KEYS, number(f, "SELECT count(*) FROM kv"));
	assert_int_equal(KEYS, number(f, PAIRED));
	/* of the moment it ended, not of the one it began: what was written
	 * meanwhile is in it */
	assert_true(number(f, "SELECT max(CAST(value AS INTEGER)) FROM kv") >
		    (long long)began + 5);
	assert_int_equal(number(f, "SELECT max(mod) FROM kv"),
		number(f, "SELECT value FROM meta WHERE key = 'revision'"));
}

static void copy_of_a_quiet_store_comes_to_its_end(void **state)
{
	struct fixture *f = *state;
	uint64_t copied = 0;
	uint64_t of = 0;
	bool seen = false;

	fill(f);
	begin(f);
	while (!f->done) {
		loop_turn(f->loop, true);
		backend_backup_progress(f->backend, &copied, &of);
		assert_true(copied <= of);
		seen = seen || (copied > 0 && copied < of);
	}
	assert_null(f->error);
	assert_true(seen);
	assert_int_equal(1, number(f, SOUND));
}

static void one_copy_at_a_time(void **state)
{
	struct fixture *f = *state;

	fill(f);
	begin(f);
	assert_int_equal(BACKEND_BACKUP_BUSY,
		backend_backup(f->backend, "/nowhere", on_done, f));
	while (!f->done)
		loop_turn(f->loop, true);
	assert_int_equal(1, f->done);
	assert_null(f->error);
}

static void what_stands_in_the_way_is_said(void **state)
{
	struct fixture *f = *state;
	FILE *file = fopen(f->copy, "w");

	fputs("somebody's", file);
	fclose(file);
	begin(f);
	while (!f->done)
		loop_turn(f->loop, true);
	assert_non_null(strstr(f->error, "/copy.db: File exists"));
	/* and is left alone */
	assert_int_equal(0, access(f->copy, F_OK));
}

static void the_end_of_the_store_ends_it(void **state)
{
	struct fixture *f = *state;
	struct backend_sqlite_options options = {.path = f->path};
	char *error = NULL;

	fill(f);
	begin(f);
	loop_turn(f->loop, true);
	assert_int_equal(0, access(f->copy, F_OK));
	backend_free(f->backend);
	assert_int_equal(1, f->done);
	assert_string_equal("authd stops", f->error);
	/* half a copy is no copy */
	assert_int_equal(-1, access(f->copy, F_OK));
	f->backend = backend_sqlite_new(f->loop, &options, &error);
	assert_non_null(f->backend);
}

static void other_stores_say_so(void **state)
{
	struct fixture *f = *state;
	static const struct backend_ops none;
	struct backend other = {.ops = &none};

	assert_int_equal(BACKEND_BACKUP_OTHER,
		backend_backup(&other, f->copy, on_done, f));
	assert_int_equal(0, f->done);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(copy_under_writes_is_consistent),
		TEST(copy_of_a_quiet_store_comes_to_its_end),
		TEST(one_copy_at_a_time),
		TEST(what_stands_in_the_way_is_said),
		TEST(the_end_of_the_store_ends_it),
		TEST(other_stores_say_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
