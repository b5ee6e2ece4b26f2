/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache written by routed/store.c and read by shared/cache.c: lookups,
 * snapshots as differences, transactions, files that are damaged.
 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "routed/store.h"
#include "shared/alloc.h"
#include "shared/cache_boot.h"

#define ONE "aaaaaaaa-0000-4000-8000-000000000001"
#define TWO "aaaaaaaa-0000-4000-8000-000000000002"
#define P1 "bbbbbbbb-0000-4000-8000-000000000001"
#define P2 "bbbbbbbb-0000-4000-8000-000000000002"

struct fixture {
	char root[64];
	char *dir;
	struct store *store;
	struct cache *cache;
};

static void open_both(struct fixture *f)
{
	char *notice = NULL;
	char *error = NULL;

	f->store = store_open(f->dir, &notice, &error);
	assert_non_null(f->store);
	assert_null(notice);
	f->cache = cache_open(store_path(f->store), &error);
	assert_non_null(f->cache);
}

static void close_both(struct fixture *f)
{
	cache_close(f->cache);
	store_close(f->store);
	f->cache = NULL;
	f->store = NULL;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	strcpy(f->root, "/tmp/peerway-store-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	f->dir = xasprintf("%s/cache", f->root);
	open_both(f);
	*state = f;
	return 0;
}

static int remove_one(
	const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_both(f);
	nftw(f->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f->dir);
	free(f);
	return 0;
}

/* ---- changes ---- */

static void put_proxy(struct fixture *f, const char *id, const char *addr)
{
	Peerway__Record__ProxyRecord record =
		PEERWAY__RECORD__PROXY_RECORD__INIT;
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	record.id = (char *)id;
	record.peer_addr = (char *)addr;
	record.state = PEERWAY__RECORD__PROXY_STATE__DRAINING;
	change.what_case = PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT;
	change.proxy_put = &record;
	assert_int_equal(store_change(f->store, &change), 0);
}

static void put_tunnel(struct fixture *f, const char *agent, const char *proxy,
	const char *name, uint32_t port, uint64_t since_ms)
{
	Peerway__Record__TunnelRecord record =
		PEERWAY__RECORD__TUNNEL_RECORD__INIT;
	Peerway__Record__Service service = PEERWAY__RECORD__SERVICE__INIT;
	Peerway__Record__Service *services[] = {&service};
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	service.name = (char *)"ssh";
	service.type = (char *)"node";
	service.port = port;
	record.agent_id = (char *)agent;
	record.proxy_id = (char *)proxy;
	record.name = (char *)name;
	record.since_ms = since_ms;
	record.services = services;
	record.n_services = 1;
	change.what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT;
	change.tunnel_put = &record;
	assert_int_equal(store_change(f->store, &change), 0);
}

static void remove_tunnel(
	struct fixture *f, const char *agent, const char *proxy)
{
	Peerway__Auth__TunnelKey key = PEERWAY__AUTH__TUNNEL_KEY__INIT;
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	key.agent_id = (char *)agent;
	key.proxy_id = (char *)proxy;
	change.what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_REMOVED;
	change.tunnel_removed = &key;
	assert_int_equal(store_change(f->store, &change), 0);
}

static void begin(struct fixture *f, bool snapshot)
{
	assert_int_equal(store_begin(f->store, snapshot), 0);
}

/* Commits; whether proxies have changed. */
static bool commit(struct fixture *f, uint64_t revision)
{
	bool changed;

	assert_int_equal(
		store_commit(f->store, "store-1", revision, &changed), 0);
	return changed;
}

static void fill(struct fixture *f)
{
	begin(f, true);
	put_proxy(f, P1, "host1:3021");
	put_proxy(f, P2, "host2:3021");
	put_tunnel(f, ONE, P1, "one", 22, 5);
	put_tunnel(f, ONE, P2, "one", 22, 6);
	put_tunnel(f, TWO, P2, "two", 22, 5);
}

static int tunnels_of(struct fixture *f, const char *agent)
{
	Peerway__Record__TunnelRecord *records[8];
	int count = cache_tunnels(f->cache, agent, records, 8);

	for (int i = 0; i < count; i++)
		peerway__record__tunnel_record__free_unpacked(records[i], NULL);
	return count;
}

static int matches_of(struct fixture *f, const char *name, const char *uuid,
	struct target_match *out, size_t max)
{
	struct target target = {0};

	strcpy(target.agent, name);
	strcpy(target.agent_id, uuid);
	return cache_match(f->cache, &target, out, max);
}

/* ---- tests ---- */

static void lookups_find_what_was_committed(void **state)
{
	struct fixture *f = *state;
	struct cache_holder holders[8];
	struct target_match matches[8];
	struct cache_meta meta;

	assert_int_equal(cache_meta(f->cache, &meta), 0);
	fill(f);
	assert_int_equal(tunnels_of(f, ONE), 0); /* not yet */
	assert_true(commit(f, 7));
	assert_int_equal(tunnels_of(f, ONE), 2);
	assert_int_equal(cache_holders(f->cache, ONE, holders, 8), 2);
	assert_int_equal(cache_holders(f->cache, TWO, holders, 8), 1);
	assert_string_equal(holders[0].proxy_id, P2);
	assert_string_equal(holders[0].peer_addr, "host2:3021");
	assert_int_equal(
		holders[0].state, PEERWAY__RECORD__PROXY_STATE__DRAINING);
	assert_int_equal(matches_of(f, "one", "", matches, 8), 1);
	assert_string_equal(matches[0].agent_id, ONE);
	assert_string_equal(matches[0].service, "ssh");
	assert_int_equal(matches[0].port, 22);
	assert_int_equal(matches_of(f, "", TWO, matches, 8), 1);
	assert_string_equal(matches[0].agent, "two");
	assert_int_equal(matches_of(f, "three", "", matches, 8), 0);
	assert_int_equal(cache_meta(f->cache, &meta), 1);
	assert_int_equal(meta.revision, 7);
	assert_string_equal(meta.store_id, "store-1");
}

static void the_newest_registration_of_a_service_counts(void **state)
{
	struct fixture *f = *state;
	struct target_match matches[8];

	fill(f);
	commit(f, 7);
	begin(f, false);
	put_tunnel(f, ONE, P1, "one", 2222, 9);
	assert_false(commit(f, 8));
	assert_int_equal(matches_of(f, "one", "", matches, 8), 1);
	assert_int_equal(matches[0].port, 2222);
}

static void an_agent_with_another_name_has_that_one_alone(void **state)
{
	struct fixture *f = *state;
	struct target_match matches[8];

	fill(f);
	commit(f, 7);
	begin(f, false);
	put_tunnel(f, TWO, P2, "three", 22, 9);
	commit(f, 8);
	assert_int_equal(matches_of(f, "two", "", matches, 8), 0);
	assert_int_equal(matches_of(f, "three", "", matches, 8), 1);
	assert_string_equal(matches[0].agent, "three");
	assert_int_equal(tunnels_of(f, TWO), 1);
}

static void matches_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct target_match matches[2];

	fill(f);
	put_tunnel(f, TWO, P1, "one", 23, 5); /* the same name */
	commit(f, 7);
	assert_int_equal(matches_of(f, "one", "", matches, 2), 2);
	assert_int_equal(matches_of(f, "one", "", matches, 1), 1);
}

static void a_snapshot_is_applied_as_a_difference(void **state)
{
	struct fixture *f = *state;
	struct target_match matches[8];

	fill(f);
	commit(f, 7);
	begin(f, true);
	put_proxy(f, P1, "host1:3021");
	put_proxy(f, P2, "host2:3021");
	put_tunnel(f, ONE, P2, "one", 22, 6);
	assert_int_equal(tunnels_of(f, TWO), 1); /* the old state, still */
	assert_false(commit(f, 9));		 /* no proxy has changed */
	assert_int_equal(tunnels_of(f, ONE), 1);
	assert_int_equal(tunnels_of(f, TWO), 0);
	assert_int_equal(matches_of(f, "two", "", matches, 8), 0);
	begin(f, true);
	put_proxy(f, P2, "host2:3021");
	assert_true(commit(f, 10)); /* P1 is gone */
}

static void a_removed_tunnel_takes_its_services_along(void **state)
{
	struct fixture *f = *state;
	struct target_match matches[8];

	fill(f);
	commit(f, 7);
	begin(f, false);
	remove_tunnel(f, TWO, P2);
	remove_tunnel(f, TWO, P1); /* there is none */
	commit(f, 8);
	assert_int_equal(tunnels_of(f, TWO), 0);
	assert_int_equal(matches_of(f, "", TWO, matches, 8), 0);
	assert_int_equal(tunnels_of(f, ONE), 2);
}

static void a_rollback_leaves_everything_as_it_was(void **state)
{
	struct fixture *f = *state;
	struct cache_meta meta;

	fill(f);
	commit(f, 7);
	begin(f, true);
	put_proxy(f, P1, "elsewhere:3021");
	store_rollback(f->store);
	assert_false(store_is_open(f->store));
	assert_int_equal(tunnels_of(f, ONE), 2);
	assert_int_equal(store_meta(f->store, &meta), 0);
	assert_int_equal(meta.revision, 7);
	begin(f, false);
	commit(f, 8);
}

static void state_survives_a_restart(void **state)
{
	struct fixture *f = *state;
	struct cache_meta meta;

	fill(f);
	commit(f, 7);
	close_both(f);
	open_both(f);
	assert_int_equal(store_meta(f->store, &meta), 0);
	assert_int_equal(meta.revision, 7);
	assert_int_equal(tunnels_of(f, ONE), 2);
}

static void readers_of_the_group_may_write_wal_files(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(stat(store_path(f->store), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_int_equal(stat(f->dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 02770);
	close_both(f);
	/* and find them there after a clean stop */
	char *wal = xasprintf("%s/cache-1.db-wal", f->dir);
	assert_int_equal(stat(wal, &st), 0);
	free(wal);
	open_both(f);
}

static void one_proxy_is_found_by_its_id(void **state)
{
	struct fixture *f = *state;
	Peerway__Record__ProxyRecord *proxy;

	fill(f);
	commit(f, 7);
	assert_int_equal(cache_proxy(f->cache, P1, &proxy), 1);
	assert_string_equal(proxy->peer_addr, "host1:3021");
	peerway__record__proxy_record__free_unpacked(proxy, NULL);
	assert_int_equal(cache_proxy(f->cache, ONE, &proxy), 0);
}

/* Opens after path was damaged: expects a notice and cache-2.db. */
static void expect_rebuilt(struct fixture *f)
{
	char *notice = NULL;
	char *error = NULL;
	struct cache_meta meta;

	f->store = store_open(f->dir, &notice, &error);
	assert_non_null(f->store);
	assert_non_null(notice);
	assert_non_null(strstr(notice, "cache-1.db.bad-"));
	free(notice);
	assert_non_null(strstr(store_path(f->store), "cache-2.db"));
	assert_int_equal(store_meta(f->store, &meta), 0);
	assert_int_equal(meta.revision, 0);
	f->cache = cache_open(store_path(f->store), &error);
	assert_non_null(f->cache);
	fill(f);
	commit(f, 7);
	assert_int_equal(tunnels_of(f, ONE), 2);
}

static void a_file_that_is_no_database_is_set_aside(void **state)
{
	struct fixture *f = *state;
	char *path = xstrdup(store_path(f->store));
	char *wal = xasprintf("%s-wal", path);
	int fd;

	close_both(f);
	unlink(wal); /* or SQLite would restore every page from it */
	free(wal);
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, "this is not a database, is it?", 30), 30);
	close(fd);
	free(path);
	expect_rebuilt(f);
}

static void a_damaged_page_is_found_and_set_aside(void **state)
{
	struct fixture *f = *state;
	char *path = xstrdup(store_path(f->store));
	char junk[512];
	sqlite3 *db;
	int fd;

	fill(f);
	commit(f, 7);
	close_both(f);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
	sqlite3_close(db);
	memset(junk, 0xa5, sizeof(junk));
	fd = open(path, O_WRONLY);
	for (off_t at = 4096; at < 12 * 4096; at += 4096)
		assert_int_equal(
			pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
	close(fd);
	free(path);
	expect_rebuilt(f);
}

static void another_schema_is_set_aside(void **state)
{
	struct fixture *f = *state;
	char *error = NULL;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(store_path(f->store), &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	assert_null(cache_open(store_path(f->store), &error));
	assert_non_null(strstr(error, "schema 99"));
	free(error);
	close_both(f);
	expect_rebuilt(f);
}

/* The boot that the file bears; gives, NULL: none. */
static char *boot_of(const char *path)
{
	sqlite3_stmt *statement;
	char *boot = NULL;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db,
				 "SELECT value FROM meta WHERE key = 'boot'",
				 -1, &statement, NULL),
		SQLITE_OK);
	if (sqlite3_step(statement) == SQLITE_ROW)
		boot = xstrdup((const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return boot;
}

static void a_file_bears_its_boot_while_it_is_in_use(void **state)
{
	struct fixture *f = *state;
	char *path = xstrdup(store_path(f->store));
	char now[CACHE_BOOT_SIZE], *boot = boot_of(path);

	assert_true(cache_boot(now));
	assert_non_null(boot);
	assert_string_equal(boot, now);
	close_both(f);
	assert_null(boot_of(path));
	free(boot);
	free(path);
	open_both(f);
}

/* routed was killed: the kernel has all that it wrote. */
static void a_file_of_this_boot_is_used_again(void **state)
{
	struct fixture *f = *state;
	char *copy = xasprintf("%s/copy", f->root);
	char *command = xasprintf("cp -r --preserve=mode %s %s", f->dir, copy);

	fill(f);
	commit(f, 7);
	assert_int_equal(system(command), 0);
	close_both(f);
	free(f->dir);
	f->dir = copy;
	open_both(f);
	assert_int_equal(tunnels_of(f, ONE), 2);
	free(command);
}

static void a_file_in_use_when_the_machine_stopped_is_set_aside(void **state)
{
	struct fixture *f = *state;
	char *path = xstrdup(store_path(f->store));
	char *error = NULL;
	sqlite3 *db;

	fill(f);
	commit(f, 7);
	close_both(f);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db, "INSERT INTO meta VALUES ('boot', 'another')",
			NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	assert_null(cache_open(path, &error)); /* nor by its readers */
	assert_non_null(strstr(error, "in use when the machine stopped"));
	free(error);
	free(path);
	expect_rebuilt(f);
}

static void add_count(void *arg, const char *proxy_id, uint64_t tunnels)
{
	uint64_t *counts = arg;

	assert_true(tunnels > 0);
	counts[strcmp(proxy_id, P1) == 0 ? 0 : 1] += tunnels;
}

static void assert_counts(struct fixture *f, uint64_t one, uint64_t two)
{
	uint64_t counts[2] = {0};

	assert_int_equal(store_tunnel_counts(f->store, add_count, counts), 0);
	assert_int_equal(counts[0], one);
	assert_int_equal(counts[1], two);
}

static void tunnels_of_each_proxy_are_counted(void **state)
{
	struct fixture *f = *state;

	assert_counts(f, 0, 0);
	fill(f);
	commit(f, 7);
	assert_counts(f, 1, 2);
	begin(f, false);
	put_tunnel(f, TWO, P2, "two", 23, 6); /* was there */
	put_tunnel(f, TWO, P1, "two", 23, 6);
	remove_tunnel(f, ONE, P2);
	remove_tunnel(f, ONE, P2); /* was not */
	commit(f, 8);
	assert_counts(f, 2, 1);
	begin(f, false);
	remove_tunnel(f, ONE, P1);
	put_tunnel(f, ONE, P2, "one", 22, 7);
	store_rollback(f->store);
	assert_counts(f, 2, 1);
	close_both(f);
	open_both(f);
	assert_counts(f, 2, 1);
	begin(f, true);
	put_tunnel(f, ONE, P1, "one", 22, 7);
	commit(f, 9);
	assert_counts(f, 1, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(lookups_find_what_was_committed),
		TEST(tunnels_of_each_proxy_are_counted),
		TEST(the_newest_registration_of_a_service_counts),
		TEST(an_agent_with_another_name_has_that_one_alone),
		TEST(matches_are_bounded),
		TEST(a_snapshot_is_applied_as_a_difference),
		TEST(a_removed_tunnel_takes_its_services_along),
		TEST(a_rollback_leaves_everything_as_it_was),
		TEST(state_survives_a_restart),
		TEST(readers_of_the_group_may_write_wal_files),
		TEST(one_proxy_is_found_by_its_id),
		TEST(a_file_that_is_no_database_is_set_aside),
		TEST(a_damaged_page_is_found_and_set_aside),
		TEST(another_schema_is_set_aside),
		TEST(a_file_bears_its_boot_while_it_is_in_use),
		TEST(a_file_of_this_boot_is_used_again),
		TEST(a_file_in_use_when_the_machine_stopped_is_set_aside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
