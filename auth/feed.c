/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See feed.h; used by watch.c. Owns the watch of the store and what is
 * gathered. What a newcomer gets wrong: on_message may free the feed, so
 * sending is the last thing that any function here does with it.
 */
#include "auth/feed.h"

#include <stdlib.h>
#include <string.h>

#include "auth/changes.h"
#include "auth/records.h"
#include "shared/alloc.h"
#include "shared/rpc.h"

/* A message takes no further revision beyond that. */
#define BYTES_MAX (256 << 10)
/* A caller who resumes later than the log reaches back needs a snapshot, so it
 * is told how far the store has come even when nothing of its concern changes.
 */
#define PROGRESS_MS 5000

struct feed {
	struct loop *loop;
	const struct feed_ops *ops;
	void *arg;
	struct backend_watch *watch; /* NULL: it has ended */
	struct timer *gather;
	struct changes changes;
	char store_id[64];
	uint64_t revision;
	uint64_t told; /* revision of the last message */
	uint64_t head;
	uint32_t gather_ms;
	int64_t sent; /* when the last message was */
	bool paused;
	bool over; /* freed at the end of the turn */
};

/* ---- sending ---- */

static bool is_due(const struct feed *feed)
{
	if (feed->changes.count)
		return true;
	return feed->told < feed->head && feed->revision >= feed->head;
}

static void tell(struct feed *feed)
{
	Peerway__Auth__WatchResponse response =
		PEERWAY__AUTH__WATCH_RESPONSE__INIT;
	size_t records = feed->changes.count;
	grpc_byte_buffer *message;

	timer_clear(feed->gather);
	response.store_id = feed->store_id;
	response.revision = feed->revision;
	response.head = feed->head;
	changes_lend(&feed->changes, &response);
	message = rpc_pack(&response.base);
	changes_clear(&feed->changes);
	feed->told = feed->revision;
	feed->sent = loop_now(feed->loop);
	feed->ops->on_message(feed->arg, message, response.revision, records);
	grpc_byte_buffer_destroy(message);
}

void feed_flush(struct feed *feed)
{
	if (!feed->paused && is_due(feed))
		tell(feed);
}

static void on_gathered(void *arg)
{
	feed_flush(arg);
}

static void schedule(struct feed *feed)
{
	int64_t rest = feed->sent + feed->gather_ms - loop_now(feed->loop);

	if (!timer_is_set(feed->gather))
		timer_set(feed->gather, rest > 0 ? rest : 0);
}

/* ---- gathering ---- */

static size_t bytes_of(const struct backend_event *events, size_t count)
{
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++)
		bytes += strlen(events[i].key) + events[i].len;
	return bytes;
}

static void gather(struct feed *feed, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	for (size_t i = 0; i < count; i++)
		changes_add(&feed->changes, events[i].key, events[i].value,
			events[i].len, revision);
	feed->revision = revision;
	if (is_due(feed))
		schedule(feed);
	else if (loop_now(feed->loop) - feed->sent >= PROGRESS_MS)
		tell(feed);
}

static void on_changes(void *arg, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	struct feed *feed = arg;

	if (feed->changes.count > 0 && !feed->paused &&
		feed->changes.bytes + bytes_of(events, count) > BYTES_MAX)
		tell(feed);
	if (!feed->over)
		gather(feed, revision, events, count);
}

static void on_watch_end(void *arg, enum backend_status why)
{
	struct feed *feed = arg;

	feed->watch = NULL;
	changes_clear(&feed->changes);
	timer_clear(feed->gather);
	feed->ops->on_end(feed->arg, why);
}

static const struct backend_watch_ops watch_ops = {on_changes, on_watch_end};

/* ---- the whole ---- */

struct feed *feed_new(struct loop *loop, struct backend *backend,
	const struct feed_options *options, const struct feed_ops *ops,
	void *arg)
{
	struct feed *feed = xcalloc(1, sizeof(*feed));

	feed->loop = loop;
	feed->ops = ops;
	feed->arg = arg;
	strncpy(feed->store_id, options->store_id, sizeof(feed->store_id) - 1);
	feed->revision = options->revision;
	feed->told = options->revision;
	feed->head = options->head;
	feed->gather_ms = options->gather_ms;
	feed->sent = loop_now(loop);
	feed->gather = timer_new(loop, on_gathered, feed);
	feed->watch = backend_watch(backend, RECORDS_PUBLIC,
		options->revision + 1, &watch_ops, feed);
	return feed;
}

void feed_free(struct feed *feed)
{
	if (!feed)
		return;
	feed->over = true;
	backend_watch_cancel(feed->watch);
	timer_free(feed->gather);
	changes_clear(&feed->changes);
	/* one of its own callbacks may be running */
	loop_free_later(feed->loop, free, feed);
}

uint64_t feed_revision(const struct feed *feed)
{
	return feed->revision;
}

void feed_pause(struct feed *feed, bool paused)
{
	feed->paused = paused;
	if (feed->watch)
		backend_watch_pause(feed->watch, paused);
	if (!paused && is_due(feed))
		schedule(feed);
}
