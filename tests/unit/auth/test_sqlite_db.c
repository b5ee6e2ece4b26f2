/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reading the embedded store costs, in steps of SQLite's machine: a part
 * of a snapshot must not cost more for what lies behind it.
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/sqlite_impl.h"
#include "shared/alloc.h"

#define KEYS 4000
#define PART 50
#define STEPS_MAX (PART * 100)

struct fixture {
	char dir[64];
	char path[80];
	struct sqlite_db *db;
};

static void put(struct fixture *f, int number, const char *value)
{
	char key[32];
	struct backend_op op = {.kind = BACKEND_PUT,
		.key = key,
		.value = value,
		.len = strlen(value)};

	snprintf(key, sizeof(key), "pub/%06d", number);
	sqlite_db_advance(f->db);
	assert_int_equal(sqlite_db_put(f->db, &op), 0);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char *error = NULL;

	strcpy(f->dir, "/tmp/peerway-sqlite-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/backend.db", f->dir);
	f->db = sqlite_db_open(f->path, 1 << 30, &error);
	assert_non_null(f->db);
	assert_int_equal(sqlite_db_begin(f->db), 0);
	for (int i = 0; i < KEYS; i++)
		put(f, i, "old");
	assert_int_equal(sqlite_db_commit(f->db), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sqlite_db_close(f->db);
	unlink(f->path);
	rmdir(f->dir);
	free(f);
	return 0;
}

static int count_old(void *arg, uint64_t revision, const struct backend_kv *kv)
{
	assert_int_equal(kv->len, 3);
	assert_memory_equal(kv->value, "old", 3);
	return ++*(int *)arg == PART;
}

/* The steps that one part of the past takes. */
static int steps_of_part(struct fixture *f, const char *after, uint64_t at)
{
	struct backend_range range = {.prefix = "pub/",
		.after = after,
		.limit = PART,
		.at_revision = at};
	sqlite3_stmt *stmt = f->db->statements[SQL_RANGE_AT];
	int count = 0;

	sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_VM_STEP, 1);
	assert_int_equal(sqlite_db_range(f->db, &range, count_old, &count), 0);
	assert_int_equal(count, PART);
	return sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_VM_STEP, 1);
}

static void part_of_the_past_costs_what_it_gives(void **state)
{
	struct fixture *f = *state;
	uint64_t then = sqlite_db_revision(f->db);

	assert_int_equal(sqlite_db_begin(f->db), 0);
	for (int i = 0; i < 20; i++)
		put(f, i * KEYS / 20, "new");
	assert_int_equal(sqlite_db_commit(f->db), 0);
	assert_true(steps_of_part(f, NULL, then) < STEPS_MAX);
	assert_true(steps_of_part(f, "pub/000999", then) < STEPS_MAX);
	assert_true(steps_of_part(f, "pub/003000", then) < STEPS_MAX);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			part_of_the_past_costs_what_it_gives, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
