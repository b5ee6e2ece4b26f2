/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches of the embedded store. A watch is a position in the change log; what
 * is reported is always read from there, so a watch that lags, is paused or
 * resumes after a week takes the same way and holds nothing in memory. What a
 * newcomer gets wrong: callbacks may cancel any watch, this one too, so after
 * each of them the watch is looked up again by its id.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "auth/backend_sqlite_impl.h"
#include "shared/alloc.h"

/* A watch that is far behind takes turns with everything else. Whole revisions
 * are read, so the last one may go beyond. */
#define EVENTS_PER_TURN 2000
#define BYTES_PER_TURN (2 << 20)

struct sqlite_watch {
	struct backend_watch base;
	TAILQ_ENTRY(sqlite_watch) entry;
	uint64_t id;
	char *prefix;
	uint64_t next; /* first revision not yet reported */
	bool paused;
	const struct backend_watch_ops *ops;
	void *arg;
};

struct backend_watch *sqlite_watch_new(struct backend *backend,
	const char *prefix, uint64_t from, const struct backend_watch_ops *ops,
	void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)backend;
	struct sqlite_watch *watch = xcalloc(1, sizeof(*watch));

	watch->base.backend = backend;
	watch->id = ++b->watch_id;
	watch->prefix = xstrdup(prefix);
	watch->next = from ? from : 1;
	watch->ops = ops;
	watch->arg = arg;
	TAILQ_INSERT_TAIL(&b->watches, watch, entry);
	sqlite_backend_wake(b);
	return &watch->base;
}

void sqlite_watch_pause(struct backend_watch *base, bool paused)
{
	struct sqlite_watch *watch = (struct sqlite_watch *)base;

	watch->paused = paused;
	if (!paused)
		sqlite_backend_wake((struct sqlite_backend *)base->backend);
}

void sqlite_watch_cancel(struct backend_watch *base)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base->backend;
	struct sqlite_watch *watch = (struct sqlite_watch *)base;

	TAILQ_REMOVE(&b->watches, watch, entry);
	free(watch->prefix);
	free(watch);
}

static struct sqlite_watch *find(struct sqlite_backend *b, uint64_t id)
{
	struct sqlite_watch *watch;

	TAILQ_FOREACH (watch, &b->watches, entry)
		if (watch->id == id)
			return watch;
	return NULL;
}

static void end_watch(struct sqlite_watch *watch, enum backend_status why)
{
	const struct backend_watch_ops *ops = watch->ops;
	void *arg = watch->arg;

	sqlite_watch_cancel(&watch->base);
	ops->on_end(arg, why);
}

/* Changes read from the log: copies, since callbacks use the database. */
struct batch {
	struct backend_event *events;
	uint64_t *revisions;
	size_t count;
	size_t room;
	size_t bytes;
};

static void batch_deinit(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++) {
		free((char *)batch->events[i].key);
		free((uint8_t *)batch->events[i].value);
	}
	free(batch->events);
	free(batch->revisions);
}

static void batch_grow(struct batch *batch)
{
	batch->room = batch->room ? 2 * batch->room : 16;
	batch->events =
		xrealloc(batch->events, batch->room * sizeof(*batch->events));
	batch->revisions = xrealloc(
		batch->revisions, batch->room * sizeof(*batch->revisions));
}

static int collect(void *arg, uint64_t revision, const struct backend_kv *kv)
{
	struct batch *batch = arg;
	struct backend_event event = {.len = kv->len};

	if ((batch->count >= EVENTS_PER_TURN ||
		    batch->bytes >= BYTES_PER_TURN) &&
		batch->revisions[batch->count - 1] != revision)
		return 1; /* whole revisions only */
	if (batch->count == batch->room)
		batch_grow(batch);
	event.key = xstrdup(kv->key);
	if (kv->value) {
		uint8_t *copy = xcalloc(1, kv->len + 1);

		memcpy(copy, kv->value, kv->len);
		event.value = copy;
	}
	batch->bytes += kv->len + strlen(kv->key);
	batch->events[batch->count] = event;
	batch->revisions[batch->count++] = revision;
	return 0;
}

/* One callback for each revision; false when the watch is no more, or paused
 * at the revision it then has as next. */
static bool report(struct sqlite_backend *b, struct sqlite_watch *watch,
	struct batch *batch)
{
	uint64_t id = watch->id;

	for (size_t first = 0, end; first < batch->count; first = end) {
		uint64_t revision = batch->revisions[first];

		for (end = first; end < batch->count; end++)
			if (batch->revisions[end] != revision)
				break;
		watch->next = revision + 1;
		watch->ops->on_changes(watch->arg, revision,
			batch->events + first, end - first);
		watch = find(b, id);
		if (!watch || watch->paused)
			return false;
	}
	return true;
}

static void pump(struct sqlite_backend *b, struct sqlite_watch *watch)
{
	struct batch batch = {0};
	uint64_t now = sqlite_db_committed(b->db);
	bool all;

	if (watch->next > now + 1) {
		end_watch(watch, BACKEND_FUTURE);
		return;
	}
	if (watch->next == now + 1)
		return;
	if (watch->next <= sqlite_db_compacted(b->db)) {
		end_watch(watch, BACKEND_COMPACTED);
		return;
	}
	if (sqlite_db_changes(
		    b->db, watch->prefix, watch->next, collect, &batch) < 0) {
		end_watch(watch, BACKEND_UNAVAILABLE);
		batch_deinit(&batch);
		return;
	}
	all = batch.count < EVENTS_PER_TURN && batch.bytes < BYTES_PER_TURN;
	if (report(b, watch, &batch)) {
		if (!all) {
			sqlite_backend_wake(b);
		} else if (watch->next <= now) {
			watch->next = now + 1;
			watch->ops->on_changes(watch->arg, now, NULL, 0);
		}
	}
	batch_deinit(&batch);
}

void sqlite_watches_pump(struct sqlite_backend *b)
{
	uint64_t last = b->watch_id; /* later ones wait for the next turn */
	uint64_t id = 0;
	struct sqlite_watch *watch;

	for (;;) {
		/* in order of age: the list is */
		TAILQ_FOREACH (watch, &b->watches, entry)
			if (watch->id > id)
				break;
		if (!watch || watch->id > last)
			return;
		id = watch->id;
		if (!watch->paused)
			pump(b, watch);
	}
}

void sqlite_watches_free(struct sqlite_backend *b)
{
	struct sqlite_watch *watch;

	while ((watch = TAILQ_FIRST(&b->watches)))
		sqlite_watch_cancel(&watch->base);
}
