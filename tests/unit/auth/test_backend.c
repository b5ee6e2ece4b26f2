/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What any implementation of auth/backend.h must do. The tests know a store
 * only by store.h, and all run against each; what only one of them can do
 * stands at the end. Each runs on a fresh one.
 */
#include "tests/unit/auth/store.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"

/* ---- the store under test ---- */

#define WAIT_S 20 /* for what must happen */

static void store_reopen(struct store *s)
{
	backend_free(s->backend);
	s->kind->open(s);
}

static int setup(void **state, const struct store_kind *kind)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->kind = kind;
	s->loop = loop_new();
	s->cq = rpc_cq_new(s->loop, 1);
	strcpy(s->dir, "/tmp/peerway-backend-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	kind->begin(s);
	kind->open(s);
	*state = s;
	return 0;
}

static int setup_sqlite(void **state)
{
	return setup(state, &store_sqlite);
}

static int setup_etcd(void **state)
{
	return setup(state, &store_etcd);
}

static int teardown(void **state)
{
	struct store *s = *state;
	char *command = xasprintf("rm -rf %s", s->dir);

	backend_free(s->backend);
	s->kind->end(s);
	assert_int_equal(0, system(command));
	free(command);
	rpc_cq_free(s->cq);
	loop_free(s->loop);
	free(s);
	return 0;
}

/* In the store's directory. */
static void store_shell(struct store *s, const char *what)
{
	char *command = xasprintf("cd %s && %s", s->dir, what);

	assert_int_equal(0, system(command));
	free(command);
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
	time_t deadline = time(NULL) + WAIT_S;

	assert_int_equal(0, answer->count); /* never inside the call */
	while (!answer->count && time(NULL) < deadline)
		loop_turn(s->loop, true);
	assert_int_equal(1, answer->count);
	if (answer->status == BACKEND_OK && answer->revision > s->answered)
		s->answered = answer->revision;
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
	uint64_t from;
	bool paused;
	bool cancelled;
};

static void unwatch(struct watcher *w)
{
	w->cancelled = true;
	backend_watch_cancel(w->watch);
}

static void pause_watch(struct watcher *w, bool paused)
{
	w->paused = paused;
	backend_watch_pause(w->watch, paused);
}

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
		unwatch(w);
	if (w->pause_at_first)
		pause_watch(w, true);
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
	w->from = from;
	w->watch = backend_watch(s->backend, prefix, from, &watch_ops, w);
	assert_non_null(w->watch);
	s->watchers[s->watcher_count++] = w;
}

static bool is_settled(struct store *s)
{
	struct backend_info info;

	backend_info(s->backend, &info);
	if (info.revision < s->answered)
		return false;
	for (size_t i = 0; i < s->watcher_count; i++) {
		const struct watcher *w = s->watchers[i];

		if (!w->ended && !w->cancelled && !w->paused &&
			w->from <= info.revision && w->revision < info.revision)
			return false;
	}
	return true;
}

/* Until all who watch know all there is to know. */
static void settle(struct store *s)
{
	time_t deadline = time(NULL) + WAIT_S;

	while (!is_settled(s) && time(NULL) < deadline)
		loop_turn(s->loop, true);
	for (int i = 0; i < 20; i++)
		loop_turn(s->loop, false);
}

/* Until this one has been ended, as it must. */
static void await_end(struct store *s, struct watcher *w)
{
	time_t deadline = time(NULL) + WAIT_S;

	while (!w->ended && time(NULL) < deadline)
		loop_turn(s->loop, true);
	assert_int_equal(1, w->ended);
}

/* Long enough for a lease to end, and then until it has. */
static void wait_for_end(
	struct store *s, const char *prefix, const char *expected, int64_t ms)
{
	for (; ms > 0; ms -= 250) {
		s->kind->wait(s, 250);
		if (!strcmp(expected, list_at(s, prefix, 0).text))
			return;
	}
	assert_list(s, prefix, expected);
}

/* ---- reading ---- */

static void test_empty_store_has_an_identity(void **state)
{
	struct store *s = *state;
	struct backend_info info, again;

	assert_list(s, "", "");
	backend_info(s->backend, &info);
	assert_true(strlen(info.store_id) > 0);
	store_reopen(s);
	assert_list(s, "", "");
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

	put(s, "before", "", 0);
	settle(s);
	backend_info(s->backend, &info);
	backend_txn(s->backend, &first, on_ordered, order);
	backend_range(s->backend, &all, on_range, &middle);
	backend_txn(s->backend, &second, on_ordered, order);
	backend_range(s->backend, &all, on_range, &last);
	assert_string_equal("", order);
	await(s, &last);
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

/* ---- leases ---- */

static void test_lease_ends_with_one_revision(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 2000);
	uint64_t other = grant(s, 60000);
	struct watcher w = {0};
	uint64_t before;

	put(s, "r/1", "a", lease);
	put(s, "r/2", "b", lease);
	put(s, "r/3", "c", other);
	before = put(s, "r/4", "d", 0);
	watch(s, &w, "r/", before + 1);
	s->kind->wait(s, 1500);
	assert_list(s, "r/", "r/1=a r/2=b r/3=c r/4=d");
	wait_for_end(s, "r/", "r/3=c r/4=d", 500 + s->kind->late_ms);
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
	for (int i = 0; i < 5; i++) {
		s->kind->wait(s, 1000);
		assert_int_equal(BACKEND_OK, keepalive(s, lease));
	}
	assert_list(s, "", "k=v");
	wait_for_end(s, "", "", 2000 + s->kind->late_ms);
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
	uint64_t lease = grant(s, 2000);

	put(s, "k", "v", lease);
	s->kind->wait(s, 1000);
	backend_free(s->backend);
	s->kind->pass(s, 5000);
	s->kind->open(s);
	s->kind->wait(s, 1500);
	assert_list(s, "", "k=v");
	wait_for_end(s, "", "", 500 + s->kind->late_ms);
}

static void test_standing_still_ends_no_lease(void **state)
{
	struct store *s = *state;
	uint64_t lease = grant(s, 2000);

	put(s, "k", "v", lease);
	/* the process was stopped for a while */
	s->kind->stall(s, 5000);
	settle(s);
	s->kind->wait(s, 500);
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
	assert_list(s, "", "");
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
	unwatch(&other);
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
	pause_watch(&w, false);
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
	await_end(s, &beyond);
	assert_int_equal(0, next.ended);
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
	/* only the last key of each is of interest here */
	watch(s, &w, "k/127", 1);
	for (int i = 0; i < 40; i++)
		settle(s);
	assert_int_equal(40 * 7 - 1, w.len);
	backend_info(s->backend, &info);
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

	watch(s, &lagging, "c", first);
	pause_watch(&lagging, true);
	assert_int_equal(BACKEND_FUTURE, compact(s, third + 1));
	assert_int_equal(BACKEND_OK, compact(s, second));
	assert_list(s, "", "c=3");
	assert_string_equal("c=2", list_at(s, "c", second).text);
	assert_int_equal(BACKEND_COMPACTED, list_at(s, "c", first).status);
	watch(s, &gone, "c", second);
	watch(s, &kept, "c", third);
	pause_watch(&lagging, false);
	await_end(s, &gone);
	await_end(s, &lagging);
	settle(s);
	assert_int_equal(BACKEND_COMPACTED, gone.why);
	assert_int_equal(BACKEND_COMPACTED, lagging.why);
	assert_string_equal("c=3", kept.text);
	/* again, and further back, is nothing new */
	assert_int_equal(BACKEND_OK, compact(s, first));
	s->watcher_count = 0; /* they end with the store */
	store_reopen(s);
	assert_int_equal(BACKEND_COMPACTED, list_at(s, "c", first).status);
}

/* The newest record is older than what has been forgotten: a deletion was the
 * last that happened. */
static void test_store_compacted_behind_its_last_record_opens(void **state)
{
	struct store *s = *state;
	struct watcher w = {0};
	uint64_t last;

	put(s, "kept", "v", 0);
	put(s, "gone", "v", 0);
	last = del(s, "gone");
	assert_int_equal(BACKEND_OK, compact(s, last));
	store_reopen(s);
	assert_list(s, "", "kept=v");
	watch(s, &w, "", last + 1);
	put(s, "kept", "w", 0);
	settle(s);
	assert_string_equal("kept=w", w.text);
	assert_int_equal(0, w.ended);
}

/* A store without room says so, goes on reading, and lets leases end. */
static uint64_t fill_store(struct store *s, char *big)
{
	struct backend_op op = {
		.kind = BACKEND_PUT, .key = "k", .value = big, .len = 200000};
	enum backend_status status = BACKEND_OK;

	s->max_bytes = 4 << 20;
	store_reopen(s);
	op.lease = grant(s, 2000);
	put(s, "leased", "v", op.lease);
	memset(big, 'x', 200000);
	for (int i = 0; i < 100 && status == BACKEND_OK; i++)
		status = txn(s, NULL, 0, &op, 1).status;
	assert_int_equal(BACKEND_FULL, status);
	assert_string_equal("leased=v", list_at(s, "leased", 0).text);
	return op.lease;
}

static void test_full_store_lets_leases_end(void **state)
{
	struct store *s = *state;
	char *big = malloc(200000);

	fill_store(s, big);
	wait_for_end(s, "leased", "", 4000 + s->kind->late_ms);
	s->max_bytes = 0;
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

/* ---- of the embedded store alone ---- */

static void assert_other_store_after(struct store *s, const char *how)
{
	struct backend_info before, after;

	put(s, "a", "old", 0);
	backend_info(s->backend, &before);
	backend_free(s->backend);
	store_shell(s, "cp backend.db copy");
	s->kind->open(s);
	backend_info(s->backend, &after);
	assert_string_equal(before.store_id, after.store_id);
	put(s, "a", "new", 0);
	backend_free(s->backend);
	store_shell(s, how);
	s->kind->open(s);
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
	assert_other_store_after(*state, "mv copy backend.db");
	/* over the same inode */
	assert_other_store_after(*state, "cp copy backend.db");
}

static void test_full_store_makes_room(void **state)
{
	struct store *s = *state;
	char *big = malloc(200000);
	struct backend_op op = {
		.kind = BACKEND_PUT, .key = "k", .value = big, .len = 200000};
	enum backend_status status = BACKEND_FULL;

	op.lease = fill_store(s, big);
	/* the log is forgotten: there is room again */
	for (int i = 0; i < 1000 && status != BACKEND_OK; i++) {
		loop_turn(s->loop, false);
		status = txn(s, NULL, 0, &op, 1).status;
	}
	assert_int_equal(BACKEND_OK, status);
	free(big);
}

/* ---- of etcd alone ---- */

/* Until it answers again. */
static void await_store(struct store *s)
{
	time_t deadline = time(NULL) + WAIT_S;

	while (list_at(s, "", 0).status != BACKEND_OK && time(NULL) < deadline)
		s->kind->wait(s, 100);
}

static void test_processes_share_a_store(void **state)
{
	struct store *s = *state;
	struct store other = *s;
	struct watcher w = {0};
	uint64_t lease = grant(s, 2000);
	uint64_t before = put(s, "k", "1", lease);
	struct backend_info info, same;

	other.backend = store_etcd_open_second(s);
	other.watcher_count = 0;
	assert_list(&other, "", "k=1");
	backend_info(s->backend, &info);
	backend_info(other.backend, &same);
	assert_string_equal(info.store_id, same.store_id);
	watch(&other, &w, "", before);
	put(s, "a", "2", 0);
	put(&other, "b", "3", 0);
	settle(&other);
	assert_string_equal("k=1 a=2 b=3", w.text);
	/* kept alive by the one, it is not ended by the other */
	for (int i = 0; i < 5; i++) {
		other.kind->wait(&other, 1000);
		assert_int_equal(BACKEND_OK, keepalive(&other, lease));
	}
	assert_list(s, "", "a=2 b=3 k=1");
	/* nor lost with the one that granted it */
	backend_free(other.backend);
	wait_for_end(s, "", "a=2 b=3", 2000 + s->kind->late_ms);
}

static void test_revision_of_another_process_is_no_future(void **state)
{
	struct store *s = *state;
	struct store other = *s;
	struct watcher w = {0};
	uint64_t now;

	put(s, "k", "1", 0);
	settle(s);
	other.backend = store_etcd_open_second(s);
	assert_list(&other, "", "k=1");
	now = put(&other, "k", "2", 0);
	/* which s may not have heard of yet */
	watch(s, &w, "", now + 1);
	put(&other, "k", "3", 0);
	s->answered = now + 1;
	settle(s);
	assert_int_equal(0, w.ended);
	assert_string_equal("k=3", w.text);
	backend_free(other.backend);
}

static void test_member_killed_and_back(void **state)
{
	struct store *s = *state;
	struct watcher w = {0};
	struct answer lost = {0};
	struct backend_range all = {.prefix = "", .limit = 10};
	uint64_t lease = grant(s, 2000);
	uint64_t before = put(s, "k", "1", lease);

	watch(s, &w, "k", before);
	settle(s);
	store_etcd_kill(s);
	backend_range(s->backend, &all, on_range, &lost);
	await(s, &lost);
	assert_int_equal(BACKEND_UNAVAILABLE, lost.status);
	store_etcd_start(s);
	await_store(s);
	assert_list(s, "", "k=1");
	put(s, "k", "2", lease);
	settle(s);
	assert_string_equal("k=1 k=2", w.text);
	assert_int_equal(0, w.ended);
}

static void test_member_that_hangs_is_left(void **state)
{
	struct store *s = *state;
	time_t deadline = time(NULL) + WAIT_S;
	struct backend_info info;
	struct watcher w = {0};
	struct answer answer = {0};
	struct backend_range all = {.prefix = "k", .limit = 1};
	uint64_t before = put(s, "k", "1", 0);

	watch(s, &w, "k", before);
	settle(s);
	/* the only call under way when the member is given up */
	kill(s->pid, SIGSTOP);
	backend_range(s->backend, &all, on_range, &answer);
	do {
		assert_true(time(NULL) < deadline);
		loop_turn(s->loop, true);
		backend_info(s->backend, &info);
	} while (!info.failing);
	store_etcd_kill(s);
	store_etcd_start(s);
	/* told that the member is away, or by the one that came back */
	if (!answer.count)
		await(s, &answer);
	await_store(s);
	assert_list(s, "k", "k=1");
	put(s, "k", "2", 0);
	settle(s);
	assert_string_equal("k=1 k=2", w.text);
	assert_int_equal(0, w.ended);
}

static void test_store_set_back_is_another_one(void **state)
{
	struct store *s = *state;
	struct watcher w = {0};
	struct backend_info before, after;

	put(s, "k", "old", 0);
	settle(s);
	backend_info(s->backend, &before);
	store_etcd_kill(s);
	store_shell(s, "cp -r etcd copy");
	store_etcd_start(s);
	await_store(s);
	assert_list(s, "", "k=old");
	put(s, "k", "new", 0);
	put(s, "k", "newer", 0);
	watch(s, &w, "k", before.revision + 1);
	settle(s);
	store_etcd_kill(s);
	store_shell(s, "rm -r etcd && mv copy etcd");
	store_etcd_start(s);
	await_end(s, &w);
	await_store(s);
	assert_list(s, "", "k=old");
	backend_info(s->backend, &after);
	assert_string_not_equal(before.store_id, after.store_id);
}

#define TEST(fn, kind) \
	cmocka_unit_test_setup_teardown(fn, setup_##kind, teardown)
#define COMMON(kind)                                                           \
	TEST(test_empty_store_has_an_identity, kind),                          \
		TEST(test_range_is_ordered_and_bounded, kind),                 \
		TEST(test_exact_range_is_one_key, kind),                       \
		TEST(test_past_states_can_be_read, kind),                      \
		TEST(test_each_change_counts_one_revision, kind),              \
		TEST(test_compares_guard_a_transaction, kind),                 \
		TEST(test_bounds_are_kept, kind),                              \
		TEST(test_calls_see_those_before_them, kind),                  \
		TEST(test_what_was_answered_survives, kind),                   \
		TEST(test_lease_ends_with_one_revision, kind),                 \
		TEST(test_keepalive_keeps_a_lease, kind),                      \
		TEST(test_revoked_lease_takes_its_keys, kind),                 \
		TEST(test_ended_lease_takes_no_more_keys, kind),               \
		TEST(test_restart_gives_leases_a_full_ttl, kind),              \
		TEST(test_standing_still_ends_no_lease, kind),                 \
		TEST(test_ttl_has_bounds, kind),                               \
		TEST(test_leases_are_bounded, kind),                           \
		TEST(test_watch_reports_in_order, kind),                       \
		TEST(test_watch_resumes_after_a_restart, kind),                \
		TEST(test_cancelled_watch_says_no_more, kind),                 \
		TEST(test_paused_watch_goes_on_where_it_was, kind),            \
		TEST(test_watch_from_the_future_ends, kind),                   \
		TEST(test_long_log_is_reported_whole, kind),                   \
		TEST(test_compaction_forgets, kind),                           \
		TEST(test_store_compacted_behind_its_last_record_opens, kind), \
		TEST(test_full_store_lets_leases_end, kind),                   \
		TEST(test_free_completes_what_is_under_way, kind)

int main(void)
{
	const struct CMUnitTest embedded[] = {
		COMMON(sqlite),
		TEST(test_copy_put_back_is_another_store, sqlite),
		TEST(test_full_store_makes_room, sqlite),
	};
	const struct CMUnitTest in_etcd[] = {
		COMMON(etcd),
		TEST(test_processes_share_a_store, etcd),
		TEST(test_revision_of_another_process_is_no_future, etcd),
		TEST(test_member_killed_and_back, etcd),
		TEST(test_member_that_hangs_is_left, etcd),
		TEST(test_store_set_back_is_another_one, etcd),
	};
	int failed = cmocka_run_group_tests_name(
		"the embedded store", embedded, NULL, NULL);

	return failed + cmocka_run_group_tests_name(
				"the store in etcd", in_etcd, NULL, NULL);
}
