/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watchers, see watch.h. Owns each struct watcher from the call to its end.
 * What a newcomer gets wrong: a snapshot is read in parts, all as of the
 * revision of the first; what changes meanwhile is not missed, because the
 * store's watch then starts right behind that revision.
 */
#include <grpc/status.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "auth/records.h"
#include "auth/watch.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define PART 100 /* records; each is at most RECORDS_SIZE_MAX */
/* A caller who resumes later than the log reaches back needs a snapshot, so it
 * is told how far the store has come even when nothing of its concern changes.
 */
#define PROGRESS_MS 5000

struct watcher {
	TAILQ_ENTRY(watcher) entry; /* in auth->watchers, oldest first */
	struct authd *auth;
	struct rpc_server_call *call; /* NULL: ended */
	char proxy[37];
	char store_id[64];
	uint64_t revision; /* the caller's state is as of this one */
	uint64_t head;	   /* what it takes to know all of the beginning */
	int64_t told;	   /* when it was last told a revision */

	/* what we are waiting for */
	bool reading;		     /* a part of the snapshot */
	bool draining;		     /* the caller */
	struct timer *stall;	     /* while draining */
	struct backend_watch *watch; /* FOLLOWING */

	char after[RECORDS_KEY_MAX]; /* last key of the snapshot's parts */
};

static void read_part(struct watcher *watcher);
static void resume(void *arg, bool gone);

/* ---- the end ---- */

/* Everything but the call; the struct goes when nobody can come back to it. */
static void watcher_end(struct watcher *watcher)
{
	struct authd *auth = watcher->auth;

	watcher->call = NULL;
	backend_watch_cancel(watcher->watch);
	watcher->watch = NULL;
	timer_free(watcher->stall);
	watcher->stall = NULL;
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
	if (watcher->watch)
		backend_watch_pause(watcher->watch, true);
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
	watcher->told = loop_now(watcher->auth->loop);
	queued = rpc_push(watcher->call, &response->base);
	return queued < 0 ? INT64_MAX : queued;
}

/* Changes as messages. */
struct changes {
	Peerway__Auth__Change *items;
	Peerway__Auth__Change **list;
	size_t count;
};

static void changes_init(struct changes *changes, size_t max)
{
	changes->items = xcalloc(max + 1, sizeof(*changes->items));
	changes->list = xcalloc(max + 1, sizeof(*changes->list));
	changes->count = 0;
}

static void changes_add(struct changes *changes, const char *key,
	const uint8_t *value, size_t len, uint64_t revision)
{
	Peerway__Auth__Change *item = &changes->items[changes->count];

	if (records_change(key, value, len, revision, item))
		changes->list[changes->count++] = item;
}

static int64_t changes_push(struct changes *changes, struct watcher *watcher,
	Peerway__Auth__WatchResponse *response)
{
	int64_t queued;

	response->changes = changes->list;
	response->n_changes = changes->count;
	queued = push(watcher, response);
	for (size_t i = 0; i < changes->count; i++)
		records_change_deinit(changes->list[i]);
	free(changes->items);
	free(changes->list);
	return queued;
}

/* ---- following ---- */

static void on_changes(void *arg, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	struct watcher *watcher = arg;
	Peerway__Auth__WatchResponse response =
		PEERWAY__AUTH__WATCH_RESPONSE__INIT;
	struct changes changes;
	bool caught_up =
		watcher->revision < watcher->head && revision >= watcher->head;

	watcher->revision = revision;
	if (count == 0 && !caught_up &&
		loop_now(watcher->auth->loop) - watcher->told < PROGRESS_MS)
		return;
	changes_init(&changes, count);
	for (size_t i = 0; i < count; i++)
		changes_add(&changes, events[i].key, events[i].value,
			events[i].len, revision);
	if (changes_push(&changes, watcher, &response) >= WATCH_HIGH)
		wait_for_drain(watcher);
}

static void start_snapshot(struct watcher *watcher)
{
	metric_add(&watcher->auth->metrics, METRIC_SNAPSHOTS, 1);
	watcher->revision = 0;
	watcher->head = 0; /* a snapshot is of now */
	watcher->after[0] = '\0';
	read_part(watcher);
}

static void on_watch_end(void *arg, enum backend_status why)
{
	struct watcher *watcher = arg;

	watcher->watch = NULL;
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

static const struct backend_watch_ops ops = {on_changes, on_watch_end};

static void follow(struct watcher *watcher)
{
	watcher->watch = backend_watch(watcher->auth->backend, RECORDS_PUBLIC,
		watcher->revision + 1, &ops, watcher);
	if (watcher->draining)
		backend_watch_pause(watcher->watch, true);
}

/* ---- the snapshot ---- */

static void send_part(
	struct watcher *watcher, const struct backend_range_result *result)
{
	Peerway__Auth__WatchResponse response =
		PEERWAY__AUTH__WATCH_RESPONSE__INIT;
	struct changes changes;

	watcher->revision = result->revision;
	response.snapshot = true;
	response.complete = !result->more;
	changes_init(&changes, result->count);
	for (size_t i = 0; i < result->count; i++)
		changes_add(&changes, result->kvs[i].key, result->kvs[i].value,
			result->kvs[i].len, result->kvs[i].mod_revision);
	if (result->count)
		strcpy(watcher->after, result->kvs[result->count - 1].key);
	if (changes_push(&changes, watcher, &response) >= WATCH_LOW)
		wait_for_drain(watcher);
	if (!result->more)
		follow(watcher);
	else if (!watcher->draining)
		read_part(watcher);
}

static void on_part(void *arg, const struct backend_range_result *result)
{
	struct watcher *watcher = arg;

	watcher->reading = false;
	if (!watcher->call)
		loop_free_later(watcher->auth->loop, free, watcher);
	else if (result->status == BACKEND_OK)
		send_part(watcher, result);
	else if (result->status == BACKEND_COMPACTED)
		watcher_drop(watcher, GRPC_STATUS_RESOURCE_EXHAUSTED,
			"the snapshot was read too slowly");
	else
		watcher_drop(watcher, GRPC_STATUS_UNAVAILABLE,
			backend_status_text(result->status));
}

static void read_part(struct watcher *watcher)
{
	struct backend_range range = {.prefix = RECORDS_PUBLIC,
		.after = watcher->after[0] ? watcher->after : NULL,
		.limit = PART,
		.at_revision = watcher->revision};

	watcher->reading = true;
	backend_range(watcher->auth->backend, &range, on_part, watcher);
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
	if (watcher->watch)
		backend_watch_pause(watcher->watch, false);
	else if (!watcher->reading)
		read_part(watcher);
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
	TAILQ_INSERT_TAIL(&auth->watchers, watcher, entry);
	auth->watcher_count++;
	metric_set(&auth->metrics, METRIC_WATCHERS, auth->watcher_count);
	rpc_on_drain(call, WATCH_LOW, resume, watcher);

	if (strcmp(request->store_id, info.store_id) ||
		!request->from_revision ||
		request->from_revision <= info.compacted ||
		request->from_revision > info.revision + 1) {
		start_snapshot(watcher);
		return;
	}
	/* at once, so that the caller knows it is heard */
	watcher->revision = request->from_revision - 1;
	watcher->head = info.revision;
	push(watcher, &hello);
	follow(watcher);
}
