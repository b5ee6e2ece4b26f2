/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting a copy in place of the store: what is checked, what is kept, that
 * whatever fails leaves the store as it was.
 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "auth/backend_sqlite.h"
#include "auth/sqlite_file.h"
#include "record.pb-c.h"
#include "shared/alloc.h"

struct fixture {
	struct loop *loop;
	struct backend *backend;
	char dir[64];
	char path[80];
	char copy[80];

	char text[64]; /* of the last range */
	int done;
	struct sqlite_file file;
	char *kept;
	char *error;
};

/* ---- a store ---- */

static void on_range(void *arg, const struct backend_range_result *result)
{
	struct fixture *f = arg;

	f->done = 1;
	assert_int_equal(BACKEND_OK, result->status);
	f->text[0] = '\0';
	if (result->count)
		memcpy(f->text, result->kvs[0].value, result->kvs[0].len + 1);
}

static void on_txn(void *arg, enum backend_status status, uint64_t revision)
{
	struct fixture *f = arg;

	f->done = 1;
	assert_int_equal(BACKEND_OK, status);
}

static void on_backup(void *arg, const char *error)
{
	struct fixture *f = arg;

	f->done = 1;
	assert_null(error);
}

static void await(struct fixture *f)
{
	while (!f->done)
		loop_turn(f->loop, true);
	f->done = 0;
}

static void put(struct fixture *f, const char *key, const void *value, size_t n)
{
	struct backend_op op = {
		.kind = BACKEND_PUT, .key = key, .value = value, .len = n};
	struct backend_txn txn = {.ops = &op, .op_count = 1};

	backend_txn(f->backend, &txn, on_txn, f);
	await(f);
}

static void put_text(struct fixture *f, const char *text)
{
	put(f, "k", text, strlen(text));
}

static void put_cluster(struct fixture *f, const char *name)
{
	Peerway__Record__ClusterConfig config =
		PEERWAY__RECORD__CLUSTER_CONFIG__INIT;
	uint8_t packed[256];

	config.cluster_name = (char *)name;
	put(f, "pub/config", packed,
		peerway__record__cluster_config__pack(&config, packed));
}

static void assert_text(struct fixture *f, const char *expected)
{
	struct backend_range range = {.prefix = "k", .exact = true, .limit = 1};

	backend_range(f->backend, &range, on_range, f);
	await(f);
	assert_string_equal(expected, f->text);
}

static void open_store(struct fixture *f)
{
	struct backend_sqlite_options options = {.path = f->path};
	char *error = NULL;

	f->backend = backend_sqlite_new(f->loop, &options, &error);
	if (!f->backend)
		fail_msg("%s", error);
}

static void close_store(struct fixture *f)
{
	backend_free(f->backend);
	f->backend = NULL;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->loop = loop_new();
	strcpy(f->dir, "/tmp/peerway-restore-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/backend.db", f->dir);
	snprintf(f->copy, sizeof(f->copy), "%s/copy.db", f->dir);
	open_store(f);
	put_cluster(f, "example");
	put_text(f, "early");
	assert_int_equal(BACKEND_BACKUP_BEGUN,
		backend_backup(f->backend, f->copy, on_backup, f));
	await(f);
	put_text(f, "late");
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
	free(f->kept);
	free(f->error);
	free(f);
	return 0;
}

/* ---- restoring ---- */

static bool restore(struct fixture *f)
{
	int fd = open(f->copy, O_RDONLY);
	bool ok;

	free(f->kept);
	free(f->error);
	ok = sqlite_file_restore(
		f->path, fd, "example", &f->file, &f->kept, &f->error);
	close(fd);
	return ok;
}

static size_t count(struct fixture *f, const char *pattern)
{
	char *path = xasprintf("%s/%s", f->dir, pattern);
	glob_t found = {0};
	size_t n;

	glob(path, 0, NULL, &found);
	n = found.gl_pathc;
	globfree(&found);
	free(path);
	return n;
}

/* With the store closed; it is as it was afterwards. */
static void assert_refused(struct fixture *f, const char *words)
{
	assert_false(restore(f));
	if (!strstr(f->error, words))
		fail_msg("\"%s\" does not say: %s", f->error, words);
	assert_null(strchr(f->error, '\n'));
	assert_null(f->kept);
	assert_int_equal(0, count(f, "*restore*"));
	open_store(f);
	assert_text(f, "late");
	close_store(f);
}

static void the_copy_takes_the_stores_place(void **state)
{
	struct fixture *f = *state;
	struct backend_info before, after;
	struct stat st;

	backend_info(f->backend, &before);
	close_store(f);
	if (!restore(f))
		fail_msg("%s", f->error);
	assert_string_equal("example", f->file.cluster);
	assert_string_equal(before.store_id, f->file.store_id);
	assert_int_equal(before.revision - 1, f->file.revision);
	assert_int_equal(0, stat(f->path, &st));
	assert_int_equal(0600, st.st_mode & 07777);
	/* what was made on the way is gone */
	assert_int_equal(1, count(f, "*restore*"));
	open_store(f);
	assert_text(f, "early");
	backend_info(f->backend, &after);
	assert_string_not_equal(before.store_id, after.store_id);
	assert_true(after.put_back);
	/* once: it is as good as any from then on */
	close_store(f);
	open_store(f);
	backend_info(f->backend, &before);
	assert_string_equal(before.store_id, after.store_id);
	assert_false(before.put_back);
	close_store(f);

	assert_int_equal(0, rename(f->kept, f->path));
	open_store(f);
	assert_text(f, "late");
}

/* Even when the inode is by chance the one that the copy remembers. */
static void a_restored_store_is_another_without_an_old_one(void **state)
{
	struct fixture *f = *state;
	struct backend_info before, after;
	char *command = xasprintf("rm %s/backend.db*", f->dir);

	backend_info(f->backend, &before);
	close_store(f);
	assert_int_equal(0, system(command));
	free(command);
	if (!restore(f))
		fail_msg("%s", f->error);
	assert_null(f->kept);
	open_store(f);
	assert_text(f, "early");
	backend_info(f->backend, &after);
	assert_string_not_equal(before.store_id, after.store_id);
}

static void a_running_authd_is_noticed(void **state)
{
	struct fixture *f = *state;

	assert_false(restore(f));
	assert_non_null(strstr(f->error, "authd is running: it has "));
	assert_int_equal(0, count(f, "*restore*"));
	put_text(f, "later");
	assert_text(f, "later");
}

/* An authd that writes "last" and is killed, so that the newest changes are in
 * the write-ahead log alone. */
static void run_and_kill(struct fixture *f)
{
	char *wal = xasprintf("%s-wal", f->path);
	struct stat st;
	pid_t pid;
	int status;

	close_store(f);
	pid = fork();
	if (pid == 0) {
		f->loop = loop_new(); /* its own epoll */
		open_store(f);
		put_text(f, "last");
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(0, stat(wal, &st));
	assert_true(st.st_size > 0);
	free(wal);
}

static void what_a_killed_authd_wrote_is_kept_whole(void **state)
{
	struct fixture *f = *state;

	run_and_kill(f);
	if (!restore(f))
		fail_msg("%s", f->error);
	open_store(f);
	assert_text(f, "early");
	close_store(f);
	assert_int_equal(0, rename(f->kept, f->path));
	open_store(f);
	assert_text(f, "last");
}

/* SQLite would, without a word: a log does not say whose it is. */
static void a_log_without_its_store_is_not_played_into_the_new_one(void **state)
{
	struct fixture *f = *state;

	run_and_kill(f);
	assert_int_equal(0, unlink(f->path));
	if (!restore(f))
		fail_msg("%s", f->error);
	assert_null(f->kept);
	open_store(f);
	assert_text(f, "early");
	assert_int_equal(1, count(f, "*before-restore*-wal"));
}

static void overwrite(const char *path, off_t at, size_t n)
{
	char *junk = xcalloc(1, n);
	int fd = open(path, O_WRONLY);

	memset(junk, 0xa5, n);
	assert_int_equal(n, pwrite(fd, junk, n, at));
	close(fd);
	free(junk);
}

static void a_damaged_store_is_replaced_and_kept(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	run_and_kill(f);
	overwrite(f->path, 0, 4096);
	if (!restore(f))
		fail_msg("%s", f->error);
	assert_int_equal(0, stat(f->kept, &st));
	assert_true(st.st_size >= 4096);
	assert_int_equal(1, count(f, "*before-restore*-wal"));
	open_store(f);
	assert_text(f, "early");
}

static void edit_copy(struct fixture *f, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(SQLITE_OK, sqlite3_open(f->copy, &db));
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

static void what_is_no_sound_store_is_refused(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	close_store(f);
	assert_int_equal(0, stat(f->copy, &st));
	overwrite(f->copy, 4096 + 8, 2000);
	assert_refused(f, "damaged");
	assert_int_equal(0, truncate(f->copy, st.st_size / 2));
	assert_refused(f, "malformed");
	overwrite(f->copy, 0, 4096);
	assert_refused(f, "file is not a database");
	assert_int_equal(0, truncate(f->copy, 0));
	assert_refused(f, "it is empty");
}

static void what_is_not_this_clusters_is_refused(void **state)
{
	struct fixture *f = *state;

	put_cluster(f, "elsewhere");
	unlink(f->copy);
	backend_backup(f->backend, f->copy, on_backup, f);
	await(f);
	close_store(f);
	assert_refused(
		f, "it is of cluster elsewhere, and this host's is example");
	edit_copy(f, "DELETE FROM kv WHERE key = 'pub/config'");
	assert_refused(f, "there is no cluster in it");
	edit_copy(f, "DROP INDEX change_key");
	assert_refused(f, "its tables are not those of schema version 1");
	edit_copy(f, "UPDATE meta SET value = 7 WHERE key = 'schema'");
	assert_refused(f, "its schema is version 7, this program's is 1");
	edit_copy(f, "DROP TABLE meta");
	assert_refused(f, "not a store of authd");
}

static void the_store_is_not_its_own_backup(void **state)
{
	struct fixture *f = *state;

	close_store(f);
	unlink(f->copy);
	assert_int_equal(0, link(f->path, f->copy));
	assert_refused(f, "it is the store itself");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_copy_takes_the_stores_place),
		TEST(a_restored_store_is_another_without_an_old_one),
		TEST(a_running_authd_is_noticed),
		TEST(what_a_killed_authd_wrote_is_kept_whole),
		TEST(a_log_without_its_store_is_not_played_into_the_new_one),
		TEST(a_damaged_store_is_replaced_and_kept),
		TEST(what_is_no_sound_store_is_refused),
		TEST(what_is_not_this_clusters_is_refused),
		TEST(the_store_is_not_its_own_backup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
