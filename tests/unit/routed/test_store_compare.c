/* SPDX-License-Identifier: Apache-2.0 */
/* routed/store_compare: what of a cache is not what authd's records say. */
#include "tests/unit/test.h"

#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "routed/store.h"
#include "routed/store_compare.h"
#include "shared/alloc.h"

#define AGENT "aaaaaaaa-0000-4000-8000-000000000001"
#define P1 "bbbbbbbb-0000-4000-8000-000000000001"
#define P2 "bbbbbbbb-0000-4000-8000-000000000002"

struct fixture {
	char root[64];
	struct store *truth;
	struct store *live;
	char text[4096]; /* of the differences, "kind table agent proxy;" */
};

static void put_proxy(struct store *store, char *id)
{
	Peerway__Record__ProxyRecord proxy =
		PEERWAY__RECORD__PROXY_RECORD__INIT;
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	proxy.id = id;
	change.what_case = PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT;
	change.proxy_put = &proxy;
	assert_int_equal(store_change(store, &change), 0);
}

static void put_tunnel(struct store *store, char *proxy_id)
{
	Peerway__Record__TunnelRecord tunnel =
		PEERWAY__RECORD__TUNNEL_RECORD__INIT;
	Peerway__Record__Service service = PEERWAY__RECORD__SERVICE__INIT;
	Peerway__Record__Service *services[] = {&service};
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	service.name = (char *)"ssh";
	service.type = (char *)"node";
	service.port = 22;
	tunnel.agent_id = (char *)AGENT;
	tunnel.proxy_id = proxy_id;
	tunnel.name = (char *)"db-1";
	tunnel.n_services = 1;
	tunnel.services = services;
	change.what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT;
	change.tunnel_put = &tunnel;
	assert_int_equal(store_change(store, &change), 0);
}

static struct store *make_store(const char *root, const char *name)
{
	char *dir = xasprintf("%s/%s", root, name);
	char *notice = NULL;
	char *error = NULL;
	struct store *store = store_open(dir, &notice, &error);
	bool changed;

	assert_non_null(store);
	assert_int_equal(store_begin(store, true), 0);
	put_proxy(store, (char *)P1);
	put_tunnel(store, (char *)P1);
	assert_int_equal(store_commit(store, "store", 7, &changed), 0);
	free(dir);
	return store;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	strcpy(f->root, "/tmp/peerway-compare-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	f->truth = make_store(f->root, "truth");
	f->live = make_store(f->root, "live");
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

	store_close(f->truth);
	store_close(f->live);
	nftw(f->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void write_difference(void *arg, const struct store_difference *d)
{
	static const char *const kinds[] = {"missing", "extra", "differs"};
	struct fixture *f = arg;
	size_t len = strlen(f->text);

	snprintf(f->text + len, sizeof(f->text) - len, "%s %s %.2s %s;",
		kinds[d->kind], d->table,
		d->proxy_id + 34 * (*d->proxy_id != 0), d->agent);
}

static void expect(struct fixture *f, const char *text)
{
	struct cache_meta meta;
	char *error = NULL;

	f->text[0] = '\0';
	assert_int_equal(
		store_compare(store_path(f->truth), store_path(f->live),
			write_difference, f, &meta, &error),
		0);
	assert_string_equal(f->text, text);
	assert_string_equal(meta.store_id, "store");
	assert_int_equal(meta.revision, 7);
}

/* Behind routed's back. */
static void edit(const struct fixture *f, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(store_path(f->live), &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void equal_caches_do_not_differ(void **state)
{
	expect(*state, "");
}

static void a_missing_record_is_told(void **state)
{
	edit(*state, "DELETE FROM tunnel");
	expect(*state, "missing tunnel 01 db-1;");
}

static void a_record_too_many_is_told(void **state)
{
	struct fixture *f = *state;
	bool changed;

	assert_int_equal(store_begin(f->live, false), 0);
	put_proxy(f->live, (char *)P2);
	put_tunnel(f->live, (char *)P2);
	assert_int_equal(store_commit(f->live, "store", 7, &changed), 0);
	expect(f, "extra proxy 02 ;extra tunnel 02 db-1;");
}

static void columns_beside_the_record_count_too(void **state)
{
	edit(*state, "UPDATE proxy SET peer_addr = 'elsewhere:1'");
	edit(*state, "UPDATE tunnel SET since_ms = 23");
	expect(*state, "differs proxy 01 ;differs tunnel 01 db-1;");
}

static void a_file_that_is_no_cache_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct cache_meta meta;
	char *error = NULL;

	assert_true(store_compare(store_path(f->truth), f->root,
			    write_difference, f, &meta, &error) < 0);
	assert_non_null(strstr(error, f->root));
	free(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			equal_caches_do_not_differ, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_missing_record_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_record_too_many_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(
			columns_beside_the_record_count_too, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_file_that_is_no_cache_is_an_error, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
