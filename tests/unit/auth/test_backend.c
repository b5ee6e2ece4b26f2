/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What any implementation of auth/backend.h must do. The tests know a store
 * only by `struct store`: how to open it again on the same data and how to let
 * time pass for it. Each runs on a fresh one.
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/backend.h"
#include "auth/backend_sqlite.h"
#include "shared/alloc.h"

/* ---- the store under test ---- */

struct store {
	struct loop *loop;
	struct backend *backend;
	char dir[64];
	int64_t clock;
	uint64_t max_bytes;
};

static int64_t store_now(void *arg)
{
	return ((struct store *)arg)->clock;
}

static void store_open(struct store *s)
{
	char *path = xasprintf("%s/backend.db", s->dir);
	struct backend_sqlite_options options = {.path = path,
		.now = store_now,
		.now_arg = s,
		.max_bytes = s->max_bytes};
	char *error = NULL;

	s->backend = backend_sqlite_new(s->loop, &options, &error);
	if (!s->backend)
		fail_msg("%s", error);
	free(path);
}

static void store_reopen(struct store *s)
{
	backend_free(s->backend);
	store_open(s);
}

/* Time passes while the store runs. */
static void store_wait(struct store *s, int64_t ms)
{
	for (; ms > 0; ms -= 500) {
		s->clock += ms < 500 ? ms : 500;
		backend_sqlite_tick(s->backend);
		loop_turn(s->loop, false);
	}
}

static int setup(void **state)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->clock = 1000000;
	s->loop = loop_new();
	strcpy(s->dir, "/tmp/peerway-backend-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	store_open(s);
	*state = s;
	return 0;
}

static void store_copy(
	struct store *s, const char *from, const char *to, const char *how)
{
	char *command =
		xasprintf("%s %s/%s %s/%s", how, s->dir, from, s->dir, to);

	assert_int_equal(0, system(command));
	free(command);
}

static int teardown(void **state)
{
	static const char *const names[] = {"backend.db", "backend.db-wal",
		"backend.db-shm", "backend.db-last", "copy"};
	struct store *s = *state;
	char path[128];

	backend_free(s->backend);
	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "%s/%s", s->dir, names[i]);
		unlink(path);
	}
	rmdir(s->dir);
	loop_free(s->loop);
	free(s);
	return 0;
}

/* ---- calls that wait for their answer ---- */

struct answer {
	int count;
	enum backend_status status;
	uint64_t revision;
	uint64_t lease;
	uint32_t ttl_ms;
	char text[4096]; /* of a range: key=value@mod ... */
	bool more;
};

static void await(struct store *s, struct answer *answer)
{
	assert_int_equal(0, answer->count); /* never inside the call */
	for (int i = 0; i < 1000 && !answer->count; i++)
		loop_turn(s->loop, false);
	assert_int_equal(1, answer->count);
}

static void on_range(void *arg, const struct backend_range_result *result)
{
	struct answer *answer = arg;
	size_t len = 0;

	answer->count++;
	answer->status = result->status;
	answer->revision = result->revision;
	answer->more = result->more;
	for (size_t i = 0; i < result->count; i++) {
		len += snprintf(answer->text + len, sizeof(answer->text) - len,
			"%s%s=%.*s", i ? " " : "", result->kvs[i].key,
			(int)result->kvs[i].len, result->kvs[i].value);
		answer->lease = result->kvs[i].lease;
	}
}

static void on_txn(void *arg, enum backend_status status, uint64_t revision)
{
	struct answer *answer = arg;

	answer->count++;
	answer->status = status;
	answer->revision = revision;
}

static void on_lease(
	void *arg, enum backend_status status, uint64_t lease, uint32_t ttl_ms)
{
	struct answer *answer = arg;

	answer->count++;
	answer->status = status;
	answer->lease = lease;
	answer->ttl_ms = ttl_ms;
}

static struct answer range(struct store *s, const struct backend_range *range)
{
	struct answer answer = {0};

	backend_range(s->backend, range, on_range, &answer);
	await(s, &answer);
	return answer;
}

static struct answer list_at(struct store *s, const char *prefix, uint64_t at)
{
	struct backend_range all = {
		.prefix = prefix, .limit = 100, .at_revision = at};

	return range(s, &all);
}

#define assert_list(s, prefix, expected)                       \
	do {                                                   \
		struct answer answer_ = list_at(s, prefix, 0); \
		assert_int_equal(BACKEND_OK, answer_.status);  \
		assert_string_equal(expected, answer_.text);   \
	} while (0)

static struct answer txn(struct store *s,
	const struct backend_compare *compares, size_t compare_count,
	const struct backend_op *ops, size_t op_count)
{
	struct backend_txn txn = {compares, compare_count, ops, op_count};
	struct answer answer = {0};

	backend_txn(s->backend, &txn, on_txn, &answer);
	await(s, &answer);
	return answer;
}

static struct backend_op put_op(
	const char *key, const char *value, uint64_t lease)
{
	return (struct backend_op){.kind = BACKEND_PUT,
		.key = key,
		.value = value,
		.len = strlen(value),
		.lease = lease};
}

static uint64_t put(
	struct store *s, const char *key, const char *value, uint64_t lease)
{
	struct backend_op op = put_op(key, value, lease);
	struct answer answer = txn(s, NULL, 0, &op, 1);

	assert_int_equal(BACKEND_OK, answer.status);
	return answer.revision;
}

static uint64_t del(struct store *s, const char *key)
{
	struct backend_op op = {.kind = BACKEND_DELETE, .key = key};
	struct answer answer = txn(s, NULL, 0, &op, 1);

	assert_int_equal(BACKEND_OK, answer.status);
	return answer.revision;
}

static uint64_t grant(struct store *s, uint32_t ttl_ms)
{
	struct answer answer = {0};

	backend_lease_grant(s->backend, ttl_ms, on_lease, &answer);
	await(s, &answer);
	assert_int_equal(BACKEND_OK, answer.status);
	assert_int_equal(ttl_ms, answer.ttl_ms);
	assert_true(answer.lease > 0 && answer.lease <= INT64_MAX);
	return answer.lease;
}

static enum backend_status keepalive(struct store *s, uint64_t lease)
{
	struct answer answer = {0};

	backend_lease_keepalive(s->backend, lease, on_lease, &answer);
	await(s, &answer);
	return answer.status;
}

static enum backend_status end_lease(struct store *s, uint64_t lease)
{
	struct answer answer = {0};

	backend_lease_revoke(s->backend, lease, on_lease, &answer);
	await(s, &answer);
	return answer.status;
}

/* ---- a watch that writes down what it is told ---- */

struct watcher {
	struct backend_watch *watch;
	char text[4096]; /* revision:key=value,key- ... */
	size_t len;
	uint64_t revision;
	int ended;
	enum backend_status why;
	bool cancel_at_first;
	bool pause_at_first;
};

static void on_changes(void *arg, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	struct watcher *w = arg;

	assert_true(revision > w->revision);
	w->revision = revision;
	for (size_t i = 0; i < count; i++) {
		const char *lead = i ? "," : w->len ? " " : "";

		w->len += snprintf(w->text + w->len, sizeof(w->text) - w->len,
			"%s%s%s", lead, events[i].key,
			events[i].value ? "=" : "-");
		if (events[i].value)
			w->len += snprintf(w->text + w->len,
				sizeof(w->text) - w->len, "%.*s",
				(int)events[i].len, events[i].value);
	}
	if (w->cancel_at_first)
		backend_watch_cancel(w->watch);
	if (w->pause_at_first)
		backend_watch_pause(w->watch, true);
	w->pause_at_first = false;
}

static void on_end(void *arg, enum backend_status why)
{
	struct watcher *w = arg;

	w->ended++;
	w->why = why;
}

static const struct backend_watch_ops watch_ops = {on_changes, on_end};

static void watch(
	struct store *s, struct watcher *w, const char *prefix, uint64_t from)
{
	w->watch = backend_watch(s->backend, prefix, from, &watch_ops, w);
	assert_non_null(w->watch);
}

static void settle(struct store *s)
{
	for (int i = 0; i < 20; i++)
		loop_turn(s->loop, false);
}

/* ---- reading ---- */

static void test_empty_store_has_an_identity(void **state)
{
	struct store *s = *state;
	struct backend_info info, again;

	backend_info(s->backend, &info);
	assert_true(strlen(info.store_id) > 0);
	assert_list(s, "", "");
	store_reopen(s);
	backend_info(s->backend, &again);
	assert_string_equal(info.store_id, again.store_id);
	assert_int_equal(info.revision, again.revision);
}

static void test_range_is_ordered_and_bounded(void **state)
{
	struct store *s = *state;
	struct backend_range two = {.prefix = "a/", .limit = 2};
	struct backend_range rest = {
		.prefix = "a/", .limit = 2, .after = "a/2"};
	struct answer answer;

	put(s, "a/3", "three", 0);
	put(s, "a/1", "one", 0);
	put(s, "b/1", "other", 0);
	put(s, "a/2", "two", 0);
	put(s, "a", "short", 0);
	assert_list(s, "a/", "a/1=one a/2=two a/3=three");
	answer = range(s, &two);
	assert_string_equal("a/1=one a/2=two", answer.text);
	assert_true(answer.more);
	answer = range(s, &rest);
	assert_string_equal("a/3=three", answer.text);
	assert_false(answer.more);
}

static void test_exact_range_is_one_key(void **state)
{
	struct store *s = *state;
	struct backend_range exact = {
		.prefix = "k/1", .limit = 9, .exact = true};

	put(s, "k/1", "this", 0);
	put(s, "k/11", "not this", 0);
	assert_string_equal("k/1=this", range(s, &exact).text);
	exact.prefix = "k/2";
	assert_string_equal("", range(s, &exact).text);
}

static void test_past_states_can_be_read(void **state)
{
	struct store *s = *state;
	uint64_t first = put(s, "p/a", "1", 0);
	uint64_t second = put(s, "p/b", "1", 0);
	uint64_t third = put(s, "p/a", "2", 0);
	uint64_t fourth = del(s, "p/b");
	uint64_t fifth = put(s, "p/b", "3", 0);

	assert_string_equal("", list_at(s, "p/", first - 1).text);
	assert_string_equal("p/a=1", list_at(s, "p/", first).text);
	assert_string_equal("p/a=1 p/b=1", list_at(s, "p/", second).text);
	assert_string_equal("p/a=2 p/b=1", list_at(s, "p/", third).text);
	assert_string_equal("p/a=2", list_at(s, "p/", fourth).text);
	assert_string_equal("p/a=2 p/b=3", list_at(s, "p/", fifth).text);
	assert_int_equal(BACKEND_FUTURE, list_at(s, "p/", fifth + 1).status);
}

/* ---- writing ---- */

static void test_each_change_counts_one_revision(void **state)
{
	struct store *s = *state;
	struct backend_op ops[] = {put_op("a", "1", 0), put_op("b", "1", 0),
		{.kind = BACKEND_DELETE, .key = "absent"}};
	uint64_t first = put(s, "x", "", 0);
	struct answer answer = txn(s, NULL, 0, ops, 3);

	assert_int_equal(first + 1, answer.revision);
	/* what changes nothing counts nothing */
	assert_int_equal(first + 1, del(s, "absent"));
	assert_list(s, "", "a=1 b=1 x=");
	assert_int_equal(first + 2, del(s, "a"));
	assert_list(s, "", "b=1 x=");
}

static void test_compares_guard_a_transaction(void **state)
{
	struct store *s = *state;
	uint64_t mod = put(s, "k", "v", 0);
	struct backend_op op = put_op("out", "1", 0);
	struct backend_compare holds[] = {
		{.kind = BACKEND_ABSENT, .key = "other"},
		{.kind = BACKEND_MOD_REVISION, .key = "k", .mod_revision = mod},
		{.kind = BACKEND_VALUE, .key = "k", .value = "v", .len = 1}};
	struct backend_compare fails[] = {{.kind = BACKEND_ABSENT, .key = "k"},
		{.kind = BACKEND_MOD_REVISION,
			.key = "k",
			.mod_revision = mod - 1},
		{.kind = BACKEND_MOD_REVISION, .key = "other"},
		{.kind = BACKEND_VALUE, .key = "k", .value = "w", .len = 1},
		{.kind = BACKEND_VALUE, .key = "k", .value = "vv", .len = 2},
		{.kind = BACKEND_VALUE, .key = "other", .value = "", .len = 0}};

	for (size_t i = 0; i < sizeof(fails) / sizeof(fails[0]); i++) {
		struct backend_compare both[] = {holds[0], fails[i]};

		assert_int_equal(
			BACKEND_COMPARE_FAILED, txn(s, both, 2, &op, 1).status);
	}
	assert_list(s, "", "k=v");
	assert_int_equal(BACKEND_OK, txn(s, holds, 3, &op, 1).status);
	assert_list(s, "", "k=v out=1");
	/* nothing to do is allowed: it is a question */
	assert_int_equal(BACKEND_OK, txn(s, holds, 1, NULL, 0).status);
	assert_int_equal(
		BACKEND_COMPARE_FAILED, txn(s, fails, 1, NULL, 0).status);
}

static void test_bounds_are_kept(void **state)
{
	struct store *s = *state;
	struct backend_op ops[BACKEND_OPS_MAX + 1];
	char keys[BACKEND_OPS_MAX + 1][16];
	char *big = malloc(BACKEND_TXN_MAX);
	struct backend_range bad[] = {{.prefix = "a", .limit = 0},
		{.prefix = "a", .limit = BACKEND_RANGE_MAX + 1},
		{.prefix = "a b", .limit = 1},
		{.prefix = "", .exact = true, .limit = 1}};

	memset(big, 'x', BACKEND_TXN_MAX);
	for (int i = 0; i <= BACKEND_OPS_MAX; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k/%03d", i);
		ops[i] = put_op(keys[i], "v", 0);
	}
	assert_int_equal(BACKEND_INVALID,
		txn(s, NULL, 0, ops, BACKEND_OPS_MAX + 1).status);
	assert_int_equal(
		BACKEND_OK, txn(s, NULL, 0, ops, BACKEND_OPS_MAX).status);
	ops[1].key = ops[0].key;
	assert_int_equal(BACKEND_INVALID, txn(s, NULL, 0, ops, 2).status);
	ops[1].key = "bad key";
	assert_int_equal(BACKEND_INVALID, txn(s, NULL, 0, ops, 2).status);
	ops[0].value = big;
	ops[0].len = BACKEND_TXN_MAX - strlen(ops[0].key);
	assert_int_equal(BACKEND_OK, txn(s, NULL, 0, ops, 1).status);
	ops[0].len++;
	assert_int_equal(BACKEND_INVALID, txn(s, NULL, 0, ops, 1).status);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(BACKEND_INVALID, range(s, &bad[i]).status);
	free(big);
}

static void on_ordered(void *arg, enum backend_status status, uint64_t revision)
{
	char *order = arg;

	order[strlen(order)] = '0' + (char)(revision % 10);
}

static void test_calls_see_those_before_them(void **state)
{
	struct store *s = *state;
	struct backend_op a = put_op("k", "1", 0);
	struct backend_op b = put_op("k", "2", 0);
	struct backend_txn first = {.ops = &a, .op_count = 1};
	struct backend_txn second = {.ops = &b, .op_count = 1};
	struct backend_range all = {.prefix = "k", .limit = 1};
	struct answer middle = {0};
	struct answer last = {0};
	struct backend_info info;
	char order[8] = "";
	char expected[8];

	backend_info(s->backend, &info);
	backend_txn(s->backend, &first, on_ordered, order);
	backend_range(s->backend, &all, on_range, &middle);
	backend_txn(s->backend, &second, on_ordered, order);
	backend_range(s->backend, &all, on_range, &last);
	assert_string_equal("", order);
	settle(s);
	snprintf(expected, sizeof(expected), "%d%d",
		(int)((info.revision + 1) % 10),
		(int)((info.revision + 2) % 10));
	assert_string_equal(expected, order);
	assert_string_equal("k=1", middle.text);
	assert_string_equal("k=2", last.text);
}

static void test_what_was_answered_survives(void **state)
{
	struct store *s = *state;
	uint64_t revision;

	put(s, "a", "1", 0);
	revision = put(s, "b", "2", 0);
	store_reopen(s);
	assert_list(s, "", "a=1 b=2");
	assert_int_equal(revision + 1, put(s, "c", "3", 0));
}

static void assert_other_store_after(struct store *s, const char *how)
{
	struct backend_info before, after;

	put(s, "a", "old", 0);
	backend_info(s->backend, &before);
	backend_free(s->backend);
	store_copy(s, "backend.db", "copy", "cp");
	store_open(s);
	backend_info(s->backend, &after);
	assert_string_equal(before.store_id, after.store_id);
	put(s, "a", "new", 0);
	backend_free(s->backend);
	store_copy(s, "copy", "backend.db", how);
	store_open(s);
	backend_info(s->backend, &after);
	assert_string_not_equal(before.store_id, after.store_id);
	assert_list(s, "", "a=old");
	/* and keeps the new id */
	before = after;
	store_reopen(s);
	backend_info(s->backend, &after);
	assert_string_equal(before.store_id, after.store_id);
}

static void test_copy_put_back_is_another_store(void **state)
{
	assert_other_store_after(*state, "mv");
	/* over the same inode */
	assert_other_store_after(*state, "cp");
}

/* ---- leases ---- */

static void test_lease_ends_with_one_revision(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 5000);
	uint64_t other = grant(s, 60000);
	struct watcher w = {0};
	uint64_t before;

	put(s, "r/1", "a", lease);
	put(s, "r/2", "b", lease);
	put(s, "r/3", "c", other);
	before = put(s, "r/4", "d", 0);
	watch(s, &w, "r/", before + 1);
	store_wait(s, 4500);
	assert_list(s, "r/", "r/1=a r/2=b r/3=c r/4=d");
	store_wait(s, 1000);
	assert_list(s, "r/", "r/3=c r/4=d");
	settle(s);
	assert_string_equal("r/1-,r/2-", w.text);
	assert_int_equal(before + 1, w.revision);
	assert_int_equal(BACKEND_NO_LEASE, keepalive(s, lease));
	assert_int_equal(BACKEND_NO_LEASE, end_lease(s, lease));
	assert_int_equal(BACKEND_OK, keepalive(s, other));
}

static void test_keepalive_keeps_a_lease(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 2000);

	put(s, "k", "v", lease);
	for (int i = 0; i < 10; i++) {
		store_wait(s, 1500);
		assert_int_equal(BACKEND_OK, keepalive(s, lease));
	}
	assert_list(s, "", "k=v");
	store_wait(s, 2500);
	assert_list(s, "", "");
}

static void test_revoked_lease_takes_its_keys(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 5000);
	uint64_t later = grant(s, 5000);

	put(s, "a", "1", lease);
	put(s, "b", "1", lease);
	/* moved to another lease, or to none */
	put(s, "b", "2", later);
	put(s, "c", "1", lease);
	put(s, "c", "2", 0);
	assert_int_equal(BACKEND_OK, end_lease(s, lease));
	assert_list(s, "", "b=2 c=2");
	assert_int_equal(BACKEND_NO_LEASE, end_lease(s, lease));
}

static void test_ended_lease_takes_no_more_keys(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 5000);
	struct backend_op op = put_op("a", "1", lease);
	struct backend_op ops[] = {
		put_op("b", "1", 0), put_op("c", "1", 12345)};

	assert_int_equal(BACKEND_OK, end_lease(s, lease));
	assert_int_equal(BACKEND_NO_LEASE, txn(s, NULL, 0, &op, 1).status);
	assert_int_equal(BACKEND_NO_LEASE, txn(s, NULL, 0, ops, 2).status);
	assert_list(s, "", "");
}

static void test_restart_gives_leases_a_full_ttl(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 5000);

	put(s, "k", "v", lease);
	store_wait(s, 4500);
	backend_free(s->backend);
	s->clock += 3600000;
	store_open(s);
	store_wait(s, 4500);
	assert_list(s, "", "k=v");
	store_wait(s, 1000);
	assert_list(s, "", "");
}

static void test_standing_still_ends_no_lease(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 5000);

	put(s, "k", "v", lease);
	/* the process was stopped for a minute */
	s->clock += 60000;
	backend_sqlite_tick(s->backend);
	settle(s);
	assert_list(s, "", "k=v");
	assert_int_equal(BACKEND_OK, keepalive(s, lease));
}

static void test_ttl_has_bounds(void **state)
{
	struct store *s = *state;
	static const uint32_t bad[] = {
		0, BACKEND_TTL_MIN_MS - 1, BACKEND_TTL_MAX_MS + 1};

	for (int i = 0; i < 3; i++) {
		struct answer answer = {0};

		backend_lease_grant(s->backend, bad[i], on_lease, &answer);
		await(s, &answer);
		assert_int_equal(BACKEND_INVALID, answer.status);
	}
}

static void test_leases_are_bounded(void **state)
{
	struct store *s = *state;
	struct answer answer = {0};
	struct backend_info info;

	for (int i = 0; i < BACKEND_LEASES_MAX; i++)
		backend_lease_grant(s->backend, 5000, NULL, NULL);
	backend_lease_grant(s->backend, 5000, on_lease, &answer);
	await(s, &answer);
	assert_int_equal(BACKEND_FULL, answer.status);
	backend_info(s->backend, &info);
	assert_int_equal(BACKEND_LEASES_MAX, info.leases);
}

/* ---- watching ---- */

static void test_watch_reports_in_order(void **state)
{
	struct store *s = *state;
	struct backend_op ops[] = {put_op("w/2", "b", 0), put_op("w/1", "a", 0),
		put_op("x", "not of the prefix", 0)};
	struct watcher w = {0};
	struct watcher all = {0};
	uint64_t before = put(s, "w/0", "earlier", 0);

	watch(s, &w, "w/", before + 1);
	watch(s, &all, "", before);
	txn(s, NULL, 0, ops, 3);
	put(s, "w/1", "again", 0);
	put(s, "x", "other", 0);
	del(s, "w/2");
	settle(s);
	assert_string_equal("w/1=a,w/2=b w/1=again w/2-", w.text);
	assert_string_equal("w/0=earlier w/1=a,w/2=b,x=not of the prefix"
			    " w/1=again x=other w/2-",
		all.text);
	/* both know how far the store has come */
	assert_int_equal(before + 4, w.revision);
	assert_int_equal(before + 4, all.revision);
	put(s, "x", "more", 0);
	settle(s);
	assert_int_equal(before + 5, w.revision);
	assert_int_equal(0, w.ended);
}

static void test_watch_resumes_after_a_restart(void **state)
{
	struct store *s = *state;
	uint64_t seen = put(s, "w", "1", 0);
	struct watcher w = {0};

	put(s, "w", "2", 0);
	store_reopen(s);
	put(s, "w", "3", 0);
	watch(s, &w, "w", seen + 1);
	settle(s);
	assert_string_equal("w=2 w=3", w.text);
}

static void test_cancelled_watch_says_no_more(void **state)
{
	struct store *s = *state;
	struct watcher w = {.cancel_at_first = true};
	struct watcher other = {0};
	uint64_t before = put(s, "w", "1", 0);

	watch(s, &w, "w", before);
	watch(s, &other, "w", before);
	put(s, "w", "2", 0);
	settle(s);
	assert_string_equal("w=1", w.text);
	assert_int_equal(0, w.ended);
	assert_string_equal("w=1 w=2", other.text);
	backend_watch_cancel(other.watch);
	put(s, "w", "3", 0);
	settle(s);
	assert_string_equal("w=1 w=2", other.text);
}

static void test_paused_watch_goes_on_where_it_was(void **state)
{
	struct store *s = *state;
	struct watcher w = {.pause_at_first = true};
	uint64_t before = put(s, "w", "1", 0);

	put(s, "w", "2", 0);
	watch(s, &w, "w", before);
	settle(s);
	put(s, "w", "3", 0);
	settle(s);
	assert_string_equal("w=1", w.text);
	backend_watch_pause(w.watch, false);
	settle(s);
	assert_string_equal("w=1 w=2 w=3", w.text);
}

static void test_watch_from_the_future_ends(void **state)
{
	struct store *s = *state;
	uint64_t now = put(s, "w", "1", 0);
	struct watcher next = {0};
	struct watcher beyond = {0};

	watch(s, &next, "w", now + 1);
	watch(s, &beyond, "w", now + 2);
	settle(s);
	assert_int_equal(0, next.ended);
	assert_int_equal(1, beyond.ended);
	assert_int_equal(BACKEND_FUTURE, beyond.why);
}

static void test_long_log_is_reported_whole(void **state)
{
	struct store *s = *state;
	struct backend_op ops[BACKEND_OPS_MAX];
	char keys[BACKEND_OPS_MAX][16];
	struct backend_txn many = {.ops = ops, .op_count = BACKEND_OPS_MAX};
	struct backend_info info;
	struct watcher w = {0};

	for (int i = 0; i < BACKEND_OPS_MAX; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k/%03d", i);
		ops[i] = put_op(keys[i], "", 0);
	}
	for (int i = 0; i < 40; i++)
		backend_txn(s->backend, &many, NULL, NULL);
	put(s, "z", "", 0);
	backend_info(s->backend, &info);
	/* only the last key of each is of interest here */
	watch(s, &w, "k/127", 1);
	for (int i = 0; i < 40; i++)
		settle(s);
	assert_int_equal(40 * 7 - 1, w.len);
	assert_int_equal(info.revision, w.revision);
}

/* ---- compaction ---- */

static enum backend_status compact(struct store *s, uint64_t revision)
{
	struct answer answer = {0};

	backend_compact(s->backend, revision, on_txn, &answer);
	await(s, &answer);
	return answer.status;
}

static void test_compaction_forgets(void **state)
{
	struct store *s = *state;
	uint64_t first = put(s, "c", "1", 0);
	uint64_t second = put(s, "c", "2", 0);
	uint64_t third = put(s, "c", "3", 0);
	struct watcher gone = {0};
	struct watcher kept = {0};
	struct watcher lagging = {0};
	struct backend_info info;

	watch(s, &lagging, "c", first);
	backend_watch_pause(lagging.watch, true);
	assert_int_equal(BACKEND_FUTURE, compact(s, third + 1));
	assert_int_equal(BACKEND_OK, compact(s, second));
	assert_list(s, "", "c=3");
	assert_string_equal("c=2", list_at(s, "c", second).text);
	assert_int_equal(BACKEND_COMPACTED, list_at(s, "c", first).status);
	watch(s, &gone, "c", second);
	watch(s, &kept, "c", third);
	backend_watch_pause(lagging.watch, false);
	settle(s);
	assert_int_equal(1, gone.ended);
	assert_int_equal(BACKEND_COMPACTED, gone.why);
	assert_int_equal(1, lagging.ended);
	assert_int_equal(BACKEND_COMPACTED, lagging.why);
	assert_string_equal("c=3", kept.text);
	/* again, and further back, is nothing new */
	assert_int_equal(BACKEND_OK, compact(s, first));
	store_reopen(s);
	backend_info(s->backend, &info);
	assert_int_equal(second, info.compacted);
	assert_int_equal(BACKEND_COMPACTED, list_at(s, "c", first).status);
}

/* A store without room says so, goes on reading, and lets leases end. */
static void test_full_store_recovers(void **state)
{
	struct store *s = *state;
	char *big = malloc(200000);
	struct backend_op op = {
		.kind = BACKEND_PUT, .key = "k", .value = big, .len = 200000};
	enum backend_status status = BACKEND_OK;
	uint64_t lease;

	s->max_bytes = 4 << 20;
	store_reopen(s);
	lease = grant(s, 5000);
	put(s, "leased", "v", lease);
	memset(big, 'x', 200000);
	for (int i = 0; i < 100 && status == BACKEND_OK; i++) {
		op.lease = lease;
		status = txn(s, NULL, 0, &op, 1).status;
	}
	assert_int_equal(BACKEND_FULL, status);
	assert_string_equal("leased=v", list_at(s, "leased", 0).text);
	/* the log is forgotten: there is room again */
	for (int i = 0; i < 1000 && status != BACKEND_OK; i++) {
		loop_turn(s->loop, false);
		status = txn(s, NULL, 0, &op, 1).status;
	}
	assert_int_equal(BACKEND_OK, status);
	store_wait(s, 6000);
	assert_list(s, "", "");
	free(big);
}

/* ---- ending ---- */

static void test_free_completes_what_is_under_way(void **state)
{
	struct store *s = *state;
	struct backend_op op = put_op("k", "v", 0);
	struct backend_txn one = {.ops = &op, .op_count = 1};
	struct answer answer = {0};
	struct watcher w = {0};

	watch(s, &w, "", 1);
	backend_txn(s->backend, &one, on_txn, &answer);
	store_reopen(s);
	assert_int_equal(1, answer.count);
	assert_int_equal(BACKEND_OK, answer.status);
	assert_int_equal(0, w.ended);
	assert_list(s, "", "k=v");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_empty_store_has_an_identity),
		TEST(test_range_is_ordered_and_bounded),
		TEST(test_exact_range_is_one_key),
		TEST(test_past_states_can_be_read),
		TEST(test_each_change_counts_one_revision),
		TEST(test_compares_guard_a_transaction),
		TEST(test_bounds_are_kept),
		TEST(test_calls_see_those_before_them),
		TEST(test_what_was_answered_survives),
		TEST(test_copy_put_back_is_another_store),
		TEST(test_lease_ends_with_one_revision),
		TEST(test_keepalive_keeps_a_lease),
		TEST(test_revoked_lease_takes_its_keys),
		TEST(test_ended_lease_takes_no_more_keys),
		TEST(test_restart_gives_leases_a_full_ttl),
		TEST(test_standing_still_ends_no_lease),
		TEST(test_ttl_has_bounds),
		TEST(test_leases_are_bounded),
		TEST(test_watch_reports_in_order),
		TEST(test_watch_resumes_after_a_restart),
		TEST(test_cancelled_watch_says_no_more),
		TEST(test_paused_watch_goes_on_where_it_was),
		TEST(test_watch_from_the_future_ends),
		TEST(test_long_log_is_reported_whole),
		TEST(test_compaction_forgets),
		TEST(test_full_store_recovers),
		TEST(test_free_completes_what_is_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
