/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded store behind backend.h. Calls are carried out at once, inside
 * one SQLite transaction for each turn of the loop; the end of the turn commits
 * it (one fsync for all), then lets the calls complete and the watches report.
 * Owns the database, the leases and the watches. What a newcomer gets wrong:
 * nothing may be told to anybody before the commit, and when that fails every
 * call of the turn has failed, the readers included: they saw what was not to
 * be.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auth/backend_sqlite_impl.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define TICK_MS 500
#define PAGE 100	    /* others wait while it is read */
#define COMPACT_MS 60000    /* how often the log is looked at */
#define COMPACT_AGAIN_MS 50 /* while there is more to forget */
#define COMPACT_ROWS 2000   /* at once */
#define LOG_AGE_MS (30 * 60000)
#define LOG_BYTES (64 << 20)
/* What proxies gone mad may fill before they are told so, instead of the disk.
 */
#define MAX_BYTES (4ULL << 30)

/* A call that has been carried out and waits for the commit. */
struct completion {
	STAILQ_ENTRY(completion) entry;
	enum { RANGE, TXN, LEASE } kind;
	union {
		backend_range_done *range;
		backend_txn_done *txn;
		backend_lease_done *lease;
	} done;
	void *arg;
	enum backend_status status;
	uint64_t revision;
	uint64_t lease;
	uint32_t ttl_ms;
	/* of a range: copies */
	struct backend_kv *kvs;
	size_t count;
	bool more;
};

/* ---- the turn ---- */

void sqlite_backend_wake(struct sqlite_backend *b)
{
	loop_defer(b->loop, &b->end_of_turn);
}

bool sqlite_backend_check(struct sqlite_backend *b, int ret)
{
	if (ret >= 0)
		return true;
	b->failed = true;
	return false;
}

bool sqlite_backend_write(struct sqlite_backend *b)
{
	sqlite_backend_wake(b);
	if (!b->open && !b->failed)
		b->open = sqlite_backend_check(b, sqlite_db_begin(b->db));
	return !b->failed;
}

static struct completion *add_call(struct sqlite_backend *b)
{
	struct completion *call = xcalloc(1, sizeof(*call));

	STAILQ_INSERT_TAIL(&b->calls, call, entry);
	sqlite_backend_wake(b);
	return call;
}

/* Back to what the file says. */
static void roll_back(struct sqlite_backend *b)
{
	snprintf(b->problem, sizeof(b->problem), "%s", sqlite_db_error(b->db));
	if (!b->failing) {
		log_error("store cannot be used: %s", b->problem);
		b->failing_since = loop_now(b->loop);
	}
	b->full = sqlite_db_is_full(b->db);
	sqlite_db_rollback(b->db);
	if (sqlite_leases_load(b) < 0)
		log_error("leases cannot be read: %s", sqlite_db_error(b->db));
	/* without room not even a lease can end: it writes to the log */
	if (b->full)
		timer_set(b->compact, 0);
}

/* True when what the turn wrote is in the file. */
static bool commit(struct sqlite_backend *b)
{
	bool ok = !b->failed;

	if (b->open && ok)
		ok = sqlite_db_commit(b->db) == 0;
	if (!ok)
		roll_back(b);
	else if (b->open && b->failing)
		log_info("store can be used again");
	b->writes += b->open && ok;
	if (b->open || !ok)
		b->failing = !ok;
	b->open = false;
	b->failed = false;
	return ok;
}

static void complete_range(struct completion *call)
{
	struct backend_range_result result = {
		.status = call->status,
		.revision = call->revision,
	};

	if (call->status == BACKEND_OK) {
		result.kvs = call->kvs;
		result.count = call->count;
		result.more = call->more;
	}
	call->done.range(call->arg, &result);
}

static void call_free(struct completion *call)
{
	for (size_t i = 0; i < call->count; i++) {
		/* some of them are keys */
		wipe((void *)call->kvs[i].value, call->kvs[i].len);
		free((void *)call->kvs[i].value);
		free((void *)call->kvs[i].key);
	}
	free(call->kvs);
	free(call);
}

static void complete(struct completion *call)
{
	switch (call->kind) {
	case RANGE:
		complete_range(call);
		break;
	case TXN:
		if (call->done.txn)
			call->done.txn(call->arg, call->status, call->revision);
		break;
	case LEASE:
		if (call->done.lease)
			call->done.lease(call->arg, call->status, call->lease,
				call->ttl_ms);
		break;
	}
	call_free(call);
}

static void end_turn(struct sqlite_backend *b)
{
	bool ok = commit(b);
	struct completion *call;
	STAILQ_HEAD(, completion) calls = STAILQ_HEAD_INITIALIZER(calls);

	/* What callbacks ask for belongs to the next turn. */
	STAILQ_CONCAT(&calls, &b->calls);
	sqlite_copying_turn(b);
	sqlite_watches_pump(b);
	while ((call = STAILQ_FIRST(&calls))) {
		STAILQ_REMOVE_HEAD(&calls, entry);
		if (!ok)
			call->status =
				b->full ? BACKEND_FULL : BACKEND_UNAVAILABLE;
		complete(call);
	}
}

static void on_end_of_turn(struct loop_task *task)
{
	struct sqlite_backend *b =
		(struct sqlite_backend *)((char *)task -
					  offsetof(struct sqlite_backend,
						  end_of_turn));

	end_turn(b);
}

/* ---- ranges ---- */

struct collector {
	struct completion *call;
	size_t limit;
};

static int collect(void *arg, uint64_t revision, const struct backend_kv *kv)
{
	struct collector *to = arg;
	struct completion *call = to->call;
	struct backend_kv *copy;
	uint8_t *value;

	if (call->count == to->limit) {
		call->more = true;
		return 1;
	}
	value = xcalloc(1, kv->len + 1);
	memcpy(value, kv->value, kv->len);
	copy = &call->kvs[call->count++];
	*copy = *kv;
	copy->key = xstrdup(kv->key);
	copy->value = value;
	return 0;
}

static enum backend_status read_range(struct sqlite_backend *b,
	const struct backend_range *range, struct completion *call)
{
	struct collector to = {call, range->limit};

	if (!backend_range_is_valid(range))
		return BACKEND_INVALID;
	call->revision = range->at_revision ? range->at_revision
					    : sqlite_db_revision(b->db);
	if (call->revision > sqlite_db_revision(b->db))
		return BACKEND_FUTURE;
	if (call->revision < sqlite_db_compacted(b->db))
		return BACKEND_COMPACTED;
	call->kvs = xcalloc(range->limit, sizeof(*call->kvs));
	if (!sqlite_backend_check(
		    b, sqlite_db_range(b->db, range, collect, &to)))
		return BACKEND_UNAVAILABLE;
	return BACKEND_OK;
}

static void sqlite_range(struct backend *base,
	const struct backend_range *range, backend_range_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct completion *call = add_call(b);

	call->kind = RANGE;
	call->done.range = done;
	call->arg = arg;
	call->status = read_range(b, range, call);
}

/* ---- transactions ---- */

static void sqlite_txn(struct backend *base, const struct backend_txn *txn,
	backend_txn_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct completion *call = add_call(b);

	call->kind = TXN;
	call->done.txn = done;
	call->arg = arg;
	call->status = sqlite_txn_run(b, txn);
	call->revision = sqlite_db_revision(b->db);
}

/* ---- leases ---- */

static struct completion *add_lease_call(
	struct sqlite_backend *b, backend_lease_done *done, void *arg)
{
	struct completion *call = add_call(b);

	call->kind = LEASE;
	call->done.lease = done;
	call->arg = arg;
	return call;
}

static void sqlite_grant(struct backend *base, uint32_t ttl_ms,
	backend_lease_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct completion *call = add_lease_call(b, done, arg);

	call->ttl_ms = ttl_ms;
	call->status = sqlite_lease_grant(b, ttl_ms, &call->lease);
}

static void sqlite_keepalive(struct backend *base, uint64_t lease,
	backend_lease_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct completion *call = add_lease_call(b, done, arg);

	call->lease = lease;
	call->status = sqlite_lease_keepalive(b, lease, &call->ttl_ms);
}

static void sqlite_revoke(struct backend *base, uint64_t lease,
	backend_lease_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct completion *call = add_lease_call(b, done, arg);

	call->lease = lease;
	call->status = sqlite_lease_revoke(b, lease);
}

void backend_sqlite_tick(struct backend *base)
{
	sqlite_leases_expire((struct sqlite_backend *)base);
}

static void on_tick(void *arg)
{
	struct sqlite_backend *b = arg;

	timer_set(b->tick, TICK_MS);
	sqlite_leases_expire(b);
}

/* ---- compaction ---- */

/* Forgets a part; false when there is more. */
static bool compact(struct sqlite_backend *b, uint64_t revision)
{
	if (!sqlite_backend_write(b))
		return true;
	sqlite_backend_check(
		b, sqlite_db_compact(b->db, revision, COMPACT_ROWS));
	return b->failed || sqlite_db_compacted(b->db) >= revision;
}

static void on_compact(void *arg)
{
	struct sqlite_backend *b = arg;
	struct timespec ts;
	uint64_t revision;
	bool done = true;

	clock_gettime(CLOCK_REALTIME, &ts);
	revision = b->full ? sqlite_db_committed(b->db)
			   : sqlite_db_expendable(b->db,
				     ts.tv_sec * 1000LL - b->log_age_ms,
				     b->log_bytes);
	if (revision)
		done = compact(b, revision);
	if (done)
		b->full = false;
	timer_set(b->compact, done ? COMPACT_MS : COMPACT_AGAIN_MS);
}

static void sqlite_compact(struct backend *base, uint64_t revision,
	backend_txn_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct completion *call = add_call(b);

	call->kind = TXN;
	call->done.txn = done;
	call->arg = arg;
	if (revision > sqlite_db_revision(b->db)) {
		call->status = BACKEND_FUTURE;
		return;
	}
	while (!compact(b, revision))
		;
	call->status = b->failed ? BACKEND_UNAVAILABLE : BACKEND_OK;
	call->revision = sqlite_db_compacted(b->db);
}

/* ---- the store ---- */

static void sqlite_info(const struct backend *base, struct backend_info *out)
{
	const struct sqlite_backend *b = (const struct sqlite_backend *)base;

	memset(out, 0, sizeof(*out));
	strcpy(out->store_id, sqlite_db_store_id(b->db));
	out->revision = sqlite_db_committed(b->db);
	out->log_bytes = sqlite_db_log_bytes(b->db);
	out->writes = b->writes;
	out->leases = b->lease_count;
	out->failing = b->failing;
	out->failing_since = b->failing_since;
	if (b->failing)
		memcpy(out->problem, b->problem, sizeof(out->problem));
	out->put_back = sqlite_db_put_back(b->db);
	out->page = PAGE;
}

static void sqlite_free(struct backend *base)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;

	timer_free(b->tick);
	timer_free(b->compact);
	sqlite_copying_free(b);
	sqlite_watches_free(b);
	/* completions may make calls that complete with this loop's next round
	 */
	while (!STAILQ_EMPTY(&b->calls) || b->open)
		end_turn(b);
	sqlite_watches_free(b);
	loop_cancel(b->loop, &b->end_of_turn);
	sqlite_leases_free(b);
	sqlite_db_close(b->db);
	free(b);
}

static const struct backend_ops ops = {
	.range = sqlite_range,
	.txn = sqlite_txn,
	.lease_grant = sqlite_grant,
	.lease_keepalive = sqlite_keepalive,
	.lease_revoke = sqlite_revoke,
	.watch = sqlite_watch_new,
	.watch_pause = sqlite_watch_pause,
	.watch_cancel = sqlite_watch_cancel,
	.compact = sqlite_compact,
	.info = sqlite_info,
	.backup = sqlite_backup,
	.backup_progress = sqlite_backup_progress,
	.free = sqlite_free,
};

static int64_t now_of_loop(void *loop)
{
	return loop_now(loop);
}

struct backend *backend_sqlite_new(struct loop *loop,
	const struct backend_sqlite_options *options, char **error_out)
{
	struct sqlite_db *db = sqlite_db_open(options->path,
		options->max_bytes ? options->max_bytes : MAX_BYTES, error_out);
	struct sqlite_backend *b;

	if (!db)
		return NULL;
	b = xcalloc(1, sizeof(*b));
	b->base.ops = &ops;
	b->loop = loop;
	b->db = db;
	b->now = options->now ? options->now : now_of_loop;
	b->now_arg = options->now ? options->now_arg : loop;
	b->log_age_ms = options->log_age_ms ? options->log_age_ms : LOG_AGE_MS;
	b->log_bytes = options->log_bytes ? options->log_bytes : LOG_BYTES;
	b->end_of_turn.run = on_end_of_turn;
	b->last_tick = b->now(b->now_arg);
	STAILQ_INIT(&b->calls);
	TAILQ_INIT(&b->leases);
	TAILQ_INIT(&b->watches);
	b->tick = timer_new(loop, on_tick, b);
	b->compact = timer_new(loop, on_compact, b);
	if (sqlite_leases_load(b) < 0) {
		*error_out =
			xasprintf("%s: %s", options->path, sqlite_db_error(db));
		sqlite_free(&b->base);
		return NULL;
	}
	timer_set(b->tick, TICK_MS);
	timer_set(b->compact, COMPACT_MS);
	return &b->base;
}
