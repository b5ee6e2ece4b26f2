/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watchers, see watch.h. Owns each struct watcher from the call to its end.
 * What a newcomer gets wrong: a snapshot is read in parts, all as of the
 * revision of the first; what changes meanwhile is not missed, because the
 * watcher's own feed then starts right behind that revision. It goes on with
 * the common feed only where both stand at the same revision with nothing
 * unsent, so that no change is told twice or left out.
 */
#include <grpc/status.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "auth/changes.h"
#include "auth/feed.h"
#include "auth/records.h"
#include "auth/watch.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* Records in a message of a snapshot; each is at most RECORDS_SIZE_MAX. */
#define PART 100
/* From one message of the common feed to the next: what it costs everybody to
 * hear of a change, and to commit it, is for all changes of that time. */
#define GATHER_MS 25

struct watcher {
	TAILQ_ENTRY(watcher) entry; /* in auth->watchers, oldest first */
	struct authd *auth;
	struct rpc_server_call *call; /* NULL: ended */
	char proxy[37];
	char store_id[64];
	uint64_t revision; /* the caller's state is as of this one */
	uint64_t head;	   /* what it takes to know all of the beginning */

	/* what we are waiting for */
	bool reading;	     /* a page of the snapshot */
	bool draining;	     /* the caller */
	struct timer *stall; /* while draining */
	struct timer *hold;  /* set: a snapshot is too early */
	struct feed *own;    /* CATCHING UP */
	bool common;	     /* FOLLOWING: the feed of all */

	char after[RECORDS_KEY_MAX]; /* last key of the snapshot's pages */
	size_t page;
};

static void read_page(struct watcher *watcher);
static void follow(struct watcher *watcher);
static void start_common(struct watcher *watcher);
static void join_common(struct watcher *watcher);
static void leave_common(struct watcher *watcher);

/* ---- the end ---- */

/* Everything but the call; the struct goes when nobody can come back to it. */
static void watcher_end(struct watcher *watcher)
{
	struct authd *auth = watcher->auth;

	watcher->call = NULL;
	feed_free(watcher->own);
	watcher->own = NULL;
	leave_common(watcher);
	timer_free(watcher->stall);
	watcher->stall = NULL;
	timer_free(watcher->hold);
	watcher->hold = NULL;
	TAILQ_REMOVE(&auth->watchers, watcher, entry);
	auth->watcher_count--;
	metric_set(&auth->metrics, METRIC_WATCHERS, auth->watcher_count);
	if (!watcher->reading)
		loop_free_later(auth->loop, free, watcher);
}

static void watcher_drop(struct watcher *watcher, int status, const char *why)
{
	struct rpc_server_call *call = watcher->call;

	log_warn("watcher dropped: %s proxy=%s revision=%" PRIu64, why,
		watcher->proxy, watcher->revision);
	metric_add(&watcher->auth->metrics, METRIC_WATCHERS_DROPPED, 1);
	watcher_end(watcher);
	rpc_fail(call, status, "%s", why);
}

void watch_end_all(struct authd *auth)
{
	struct watcher *watcher;

	while ((watcher = TAILQ_FIRST(&auth->watchers))) {
		struct rpc_server_call *call = watcher->call;

		watcher_end(watcher);
		rpc_fail(call, GRPC_STATUS_UNAVAILABLE, "authd stops");
	}
}

/* ---- sending ---- */

static void on_stall(void *arg)
{
	watcher_drop(arg, GRPC_STATUS_RESOURCE_EXHAUSTED,
		"nothing was read for 30 s");
}

/* Nothing more for this caller until it has read. */
static void wait_for_drain(struct watcher *watcher)
{
	watcher->draining = true;
	timer_set(watcher->stall, WATCH_STALL_MS);
	if (watcher->common) {
		leave_common(watcher);
		follow(watcher);
	} else if (watcher->own) {
		feed_pause(watcher->own, true);
	}
}

/* Bytes that wait for the caller; a caller who has gone is about to be told to
 * us, and waits till then. */
static int64_t push(
	struct watcher *watcher, Peerway__Auth__WatchResponse *response)
{
	int64_t queued;

	response->store_id = watcher->store_id;
	response->revision = watcher->revision;
	response->head = watcher->head;
	queued = rpc_push(watcher->call, &response->base);
	return queued < 0 ? INT64_MAX : queued;
}

static void push_message(struct watcher *watcher, grpc_byte_buffer *message,
	uint64_t revision, size_t records)
{
	int64_t queued = rpc_push_packed(watcher->call, message);

	watcher->revision = revision;
	metric_add(
		&watcher->auth->metrics, METRIC_SENT_CHANGES, (int64_t)records);
	if (queued < 0 || queued >= WATCH_HIGH)
		wait_for_drain(watcher);
}

/* ---- catching up ---- */

/* Of a store that was put back not before the proxies could publish: until then
 * their caches know better. */
static void start_snapshot(void *arg)
{
	struct watcher *watcher = arg;
	struct authd *auth = watcher->auth;
	struct backend_info info;
	int64_t early = auth->snapshots_from - loop_now(auth->loop);

	if (early > 0) {
		timer_set(watcher->hold, early);
		return;
	}
	metric_add(&auth->metrics, METRIC_SNAPSHOTS, 1);
	watcher->revision = 0;
	watcher->head = 0; /* a snapshot is of now */
	watcher->after[0] = '\0';
	backend_info(auth->backend, &info);
	watcher->page = info.page;
	read_page(watcher);
}

/* Its feed has ended. */
static void feed_ended(struct watcher *watcher, enum backend_status why)
{
	if (why == BACKEND_UNAVAILABLE)
		watcher_drop(watcher, GRPC_STATUS_UNAVAILABLE,
			backend_status_text(why));
	else if (watcher->draining)
		watcher_drop(watcher, GRPC_STATUS_RESOURCE_EXHAUSTED,
			"changes came faster than they were read");
	else
		/* too old, or of a store that was set back: begin anew */
		start_snapshot(watcher);
}

static void on_own_end(void *arg, enum backend_status why)
{
	struct watcher *watcher = arg;

	feed_free(watcher->own);
	watcher->own = NULL;
	feed_ended(watcher, why);
}

/* Whether it may go on with all, of whom revision is the last news. */
static bool may_join(const struct watcher *watcher, uint64_t revision)
{
	return watcher->own && feed_revision(watcher->own) == revision &&
	       revision >= watcher->head && !watcher->draining;
}

static void on_own_message(
	void *arg, grpc_byte_buffer *message, uint64_t revision, size_t records)
{
	struct watcher *watcher = arg;

	push_message(watcher, message, revision, records);
	if (!watcher->auth->feed && may_join(watcher, revision)) {
		start_common(watcher);
		join_common(watcher);
	}
}

static const struct feed_ops own_ops = {on_own_message, on_own_end};

static void follow(struct watcher *watcher)
{
	struct feed_options options = {.store_id = watcher->store_id,
		.revision = watcher->revision,
		.head = watcher->head};

	watcher->own = feed_new(watcher->auth->loop, watcher->auth->backend,
		&options, &own_ops, watcher);
	if (watcher->draining)
		feed_pause(watcher->own, true);
}

/* ---- following, all together ---- */

static void join_common(struct watcher *watcher)
{
	watcher->revision = feed_revision(watcher->own);
	feed_free(watcher->own);
	watcher->own = NULL;
	watcher->common = true;
	watcher->auth->followers++;
}

static void leave_common(struct watcher *watcher)
{
	struct authd *auth = watcher->auth;

	if (!watcher->common)
		return;
	watcher->common = false;
	if (--auth->followers > 0)
		return;
	feed_free(auth->feed);
	auth->feed = NULL;
}

/* Those who have got just as far on their own go on with all. */
static void gather_in(struct authd *auth, uint64_t revision)
{
	struct watcher *watcher;

	TAILQ_FOREACH (watcher, &auth->watchers, entry) {
		if (watcher->own && feed_revision(watcher->own) == revision)
			feed_flush(watcher->own);
		if (auth->feed && may_join(watcher, revision))
			join_common(watcher);
	}
}

static void on_common_message(
	void *arg, grpc_byte_buffer *message, uint64_t revision, size_t records)
{
	struct authd *auth = arg;
	struct watcher *watcher;

	TAILQ_FOREACH (watcher, &auth->watchers, entry)
		if (watcher->common)
			push_message(watcher, message, revision, records);
	if (auth->feed)
		gather_in(auth, revision);
}

static void on_common_end(void *arg, enum backend_status why)
{
	struct authd *auth = arg;
	struct watcher *watcher, *next;

	for (watcher = TAILQ_FIRST(&auth->watchers); watcher; watcher = next) {
		next = TAILQ_NEXT(watcher, entry);
		if (!watcher->common)
			continue;
		leave_common(watcher);
		feed_ended(watcher, why);
	}
}

static const struct feed_ops common_ops = {on_common_message, on_common_end};

/* From where this one stands. */
static void start_common(struct watcher *watcher)
{
	struct authd *auth = watcher->auth;
	struct feed_options options = {.store_id = watcher->store_id,
		.revision = watcher->revision,
		.gather_ms = GATHER_MS};

	auth->feed = feed_new(
		auth->loop, auth->backend, &options, &common_ops, auth);
}

/* ---- the snapshot ---- */

/* Bytes that wait for the caller. */
static int64_t send_part(struct watcher *watcher, const struct backend_kv *kvs,
	size_t count, bool complete)
{
	Peerway__Auth__WatchResponse response =
		PEERWAY__AUTH__WATCH_RESPONSE__INIT;
	struct changes changes = {0};
	int64_t queued;

	response.snapshot = true;
	response.complete = complete;
	for (size_t i = 0; i < count; i++)
		changes_add(&changes, kvs[i].key, kvs[i].value, kvs[i].len,
			kvs[i].mod_revision);
	changes_lend(&changes, &response);
	metric_add(&watcher->auth->metrics, METRIC_SENT_SNAPSHOT,
		(int64_t)changes.count);
	queued = push(watcher, &response);
	changes_clear(&changes);
	return queued;
}

static void send_page(
	struct watcher *watcher, const struct backend_range_result *result)
{
	size_t sent = 0;
	int64_t queued;

	watcher->revision = result->revision;
	do {
		size_t rest = result->count - sent;
		size_t count = rest < PART ? rest : PART;

		queued = send_part(watcher, result->kvs + sent, count,
			count == rest && !result->more);
		sent += count;
	} while (sent < result->count);
	if (result->count)
		strcpy(watcher->after, result->kvs[result->count - 1].key);
	if (queued >= WATCH_LOW)
		wait_for_drain(watcher);
	if (!result->more)
		follow(watcher);
	else if (!watcher->draining)
		read_page(watcher);
}

static void on_page(void *arg, const struct backend_range_result *result)
{
	struct watcher *watcher = arg;

	watcher->reading = false;
	if (!watcher->call)
		loop_free_later(watcher->auth->loop, free, watcher);
	else if (result->status == BACKEND_OK)
		send_page(watcher, result);
	else if (result->status == BACKEND_COMPACTED)
		watcher_drop(watcher, GRPC_STATUS_RESOURCE_EXHAUSTED,
			"the snapshot was read too slowly");
	else
		watcher_drop(watcher, GRPC_STATUS_UNAVAILABLE,
			backend_status_text(result->status));
}

static void read_page(struct watcher *watcher)
{
	struct backend_range range = {.prefix = RECORDS_PUBLIC,
		.after = watcher->after[0] ? watcher->after : NULL,
		.limit = watcher->page,
		.at_revision = watcher->revision};

	watcher->reading = true;
	backend_range(watcher->auth->backend, &range, on_page, watcher);
}

/* The caller has read, or has gone. */
static void resume(void *arg, bool gone)
{
	struct watcher *watcher = arg;

	if (gone) {
		log_debug("watcher gone: proxy=%s", watcher->proxy);
		watcher_end(watcher);
		return;
	}
	if (!watcher->draining)
		return;
	watcher->draining = false;
	timer_clear(watcher->stall);
	if (watcher->own)
		feed_pause(watcher->own, false);
	else if (!watcher->reading)
		read_page(watcher);
}

/* ---- the beginning ---- */

static void make_room(struct authd *auth, const char *proxy)
{
	struct watcher *oldest = NULL;
	struct watcher *watcher;
	unsigned count = 0;

	TAILQ_FOREACH (watcher, &auth->watchers, entry) {
		if (strcmp(watcher->proxy, proxy))
			continue;
		if (!oldest)
			oldest = watcher;
		count++;
	}
	if (count >= WATCH_PER_CALLER)
		watcher_drop(oldest, GRPC_STATUS_ABORTED,
			"this proxy watches too often at once");
}

void watch_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__WatchRequest *request = (const void *)message;
	Peerway__Auth__WatchResponse hello =
		PEERWAY__AUTH__WATCH_RESPONSE__INIT;
	struct authd *auth = arg;
	struct watcher *watcher;
	struct backend_info info;

	make_room(auth, caller->uuid);
	backend_info(auth->backend, &info);
	watcher = xcalloc(1, sizeof(*watcher));
	watcher->auth = auth;
	watcher->call = call;
	strcpy(watcher->proxy, caller->uuid);
	strcpy(watcher->store_id, info.store_id);
	watcher->stall = timer_new(auth->loop, on_stall, watcher);
	watcher->hold = timer_new(auth->loop, start_snapshot, watcher);
	TAILQ_INSERT_TAIL(&auth->watchers, watcher, entry);
	auth->watcher_count++;
	metric_set(&auth->metrics, METRIC_WATCHERS, auth->watcher_count);
	rpc_on_drain(call, WATCH_LOW, resume, watcher);

	if (strcmp(request->store_id, info.store_id) ||
		!request->from_revision) {
		start_snapshot(watcher);
		return;
	}
	/* At once, so that the caller knows it is heard. Whether the revision
	 * is too old, or another authd has come further than this one has
	 * heard, the store knows. */
	watcher->revision = request->from_revision - 1;
	watcher->head = info.revision < watcher->revision ? watcher->revision
							  : info.revision;
	push(watcher, &hello);
	follow(watcher);
}
