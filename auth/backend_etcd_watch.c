/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches of the store in etcd. One watch of etcd's follows everything of ours
 * and fills the log; ours are positions in it. One that lags behind the log has
 * a watch of etcd's of its own until it has caught up, none while it is paused.
 *
 * What a newcomer gets wrong: callbacks may cancel any watch, this one too, so
 * after each of them the watch is looked up again by its id. And etcd forgets
 * the deletions of the very revision that it was compacted to, so everything is
 * read from one revision earlier, which it then refuses.
 */
#include <grpc/status.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "auth/backend_etcd_impl.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* A watch that is far behind takes turns with everything else. */
#define EVENTS_PER_TURN 2000
#define BYTES_PER_TURN (2 << 20)

/* What of one revision has come so far; keys are without the root. */
struct etcd_events {
	uint64_t revision;
	struct backend_event *events;
	size_t count;
	size_t room;
};

struct etcd_watch {
	struct backend_watch base;
	TAILQ_ENTRY(etcd_watch) entry;
	uint64_t id;
	char *prefix;
	uint64_t next; /* first revision that has not been looked at */
	uint64_t told; /* the last one that was reported */
	bool ahead;    /* it may be of the future: not known yet */
	bool asked;    /* etcd, for that */
	bool paused;
	struct etcd_stream *stream; /* of its own, while it lags */
	struct etcd_events gathered;
	const struct backend_watch_ops *ops;
	void *arg;
};

/* An answer for a watch that may be no more. */
struct ticket {
	struct etcd_backend *b;
	uint64_t id;
};

static const struct etcd_method watch_method = {"/etcdserverpb.Watch/Watch",
	&peerway__etcd__watch_response__descriptor, true, ETCD_CALL_MS};
static const struct etcd_method range_method = {"/etcdserverpb.KV/Range",
	&peerway__etcd__range_response__descriptor, true, ETCD_CALL_MS};

static struct etcd_watch *find(struct etcd_backend *b, uint64_t id)
{
	struct etcd_watch *watch;

	TAILQ_FOREACH (watch, &b->watches, entry)
		if (watch->id == id)
			return watch;
	return NULL;
}

static void wake(struct etcd_backend *b)
{
	loop_defer(b->loop, &b->pump);
}

/* ---- gathering revisions ---- */

static void events_clear(struct etcd_events *gathered)
{
	for (size_t i = 0; i < gathered->count; i++) {
		free((char *)gathered->events[i].key);
		free((uint8_t *)gathered->events[i].value);
	}
	free(gathered->events);
	*gathered = (struct etcd_events){0};
}

static void events_add(struct etcd_events *gathered, const char *key,
	const Peerway__Etcd__Event *from)
{
	struct backend_event *event;

	if (gathered->count == gathered->room) {
		gathered->room = gathered->room ? 2 * gathered->room : 16;
		gathered->events = xrealloc(gathered->events,
			gathered->room * sizeof(*gathered->events));
	}
	event = &gathered->events[gathered->count++];
	*event = (struct backend_event){.key = xstrdup(key)};
	if (from->type == PEERWAY__ETCD__EVENT__TYPE__PUT) {
		uint8_t *value = xcalloc(1, from->kv->value.len + 1);

		event->len = from->kv->value.len;
		if (event->len)
			memcpy(value, from->kv->value.data, event->len);
		event->value = value;
	}
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct backend_event *)a)->key,
		((const struct backend_event *)b)->key);
}

/* etcd tells a revision's events as they were written. */
static void events_sort(struct etcd_events *gathered)
{
	if (gathered->count)
		qsort(gathered->events, gathered->count,
			sizeof(*gathered->events), by_key);
}

/* ---- following everything ---- */

static void follower_failed(
	struct etcd_backend *b, int status, const char *message)
{
	etcd_follow_stop(b);
	etcd_client_move(b->client, status, message);
}

static void emit(struct etcd_backend *b)
{
	struct etcd_events *gathered = b->gathered;

	if (gathered->revision > b->seen) {
		events_sort(gathered);
		change_log_add(b->log, gathered->revision, gathered->events,
			gathered->count);
		b->seen = gathered->revision;
		wake(b);
	}
	events_clear(gathered);
}

static void take_lease(struct etcd_backend *b, const char *id,
	const Peerway__Etcd__Event *event)
{
	uint64_t lease = strtoull(id, NULL, 16);
	uint32_t ttl_ms = event->type == PEERWAY__ETCD__EVENT__TYPE__PUT
				  ? etcd_lease_ttl(&event->kv->value)
				  : 0;

	if (ttl_ms)
		etcd_lease_seen(b, lease, ttl_ms);
	else
		etcd_lease_gone(b, lease);
}

static bool is_other_store(
	const struct etcd_backend *b, const Peerway__Etcd__Event *event)
{
	const ProtobufCBinaryData *value = &event->kv->value;

	return value->len != strlen(b->uuid) ||
	       memcmp(value->data, b->uuid, value->len);
}

/* False when the follower has come to its end. */
static bool take_event(
	struct etcd_backend *b, const Peerway__Etcd__Event *event)
{
	etcd_key rest;
	enum etcd_kind kind;

	if (!event->kv || (uint64_t)event->kv->mod_revision <= b->seen)
		return true;
	if (b->gathered->revision != (uint64_t)event->kv->mod_revision)
		emit(b);
	b->gathered->revision = (uint64_t)event->kv->mod_revision;
	kind = etcd_key_kind(b->root, &event->kv->key, rest);
	if (kind == ETCD_DATA)
		events_add(b->gathered, rest, event);
	if (kind == ETCD_LEASE)
		take_lease(b, rest, event);
	if (kind == ETCD_STORE && is_other_store(b, event)) {
		etcd_follow_stop(b);
		etcd_open_again(b, "its id has changed");
		return false;
	}
	return true;
}

static void on_follow(void *arg, const ProtobufCMessage *message)
{
	const Peerway__Etcd__WatchResponse *response = (const void *)message;
	struct etcd_backend *b = arg;

	if (response->canceled && response->compact_revision > 0) {
		etcd_follow_stop(b);
		b->compacted = (uint64_t)response->compact_revision;
		etcd_open_again(b, "its history has been compacted further "
				   "than it had been followed");
		return;
	}
	if (response->canceled) {
		follower_failed(
			b, GRPC_STATUS_UNAVAILABLE, response->cancel_reason);
		return;
	}
	for (size_t i = 0; i < response->n_events; i++)
		if (!take_event(b, response->events[i]))
			return;
	if (!response->fragment)
		emit(b);
}

static void on_follow_end(void *arg, int status, const char *message)
{
	struct etcd_backend *b = arg;

	b->follower = NULL;
	etcd_follow_stop(b);
	etcd_client_move(b->client, status ? status : GRPC_STATUS_UNAVAILABLE,
		status ? message : "the watch has ended");
}

static struct etcd_stream *open_stream(struct etcd_backend *b, uint64_t from,
	void (*on_message)(void *arg, const ProtobufCMessage *message),
	void (*on_end)(void *arg, int status, const char *message), void *arg)
{
	Peerway__Etcd__WatchRequest request;
	Peerway__Etcd__WatchCreateRequest create;
	etcd_key end;

	etcd_prefix_end(b->root, end);
	etcd_watch_request(
		&request, &create, b->root, end, from > 1 ? from - 1 : 1);
	return etcd_stream_open(b->client, &watch_method, &request.base,
		on_message, on_end, arg);
}

void etcd_follow(struct etcd_backend *b)
{
	if (!b->log || change_log_last(b->log) != b->seen) {
		change_log_free(b->log);
		b->log = change_log_new(b->seen, b->log_bytes);
	}
	if (!b->follower)
		b->follower = open_stream(
			b, b->seen + 1, on_follow, on_follow_end, b);
	wake(b);
}

void etcd_follow_stop(struct etcd_backend *b)
{
	etcd_stream_close(b->follower);
	b->follower = NULL;
	events_clear(b->gathered);
}

/* ---- our watches ---- */

static void stop_catching(struct etcd_watch *watch)
{
	etcd_stream_close(watch->stream);
	watch->stream = NULL;
	events_clear(&watch->gathered);
}

void etcd_watch_cancel(struct backend_watch *base)
{
	struct etcd_backend *b = (struct etcd_backend *)base->backend;
	struct etcd_watch *watch = (struct etcd_watch *)base;

	stop_catching(watch);
	TAILQ_REMOVE(&b->watches, watch, entry);
	free(watch->prefix);
	free(watch);
}

static void end_watch(struct etcd_watch *watch, enum backend_status why)
{
	const struct backend_watch_ops *ops = watch->ops;
	void *arg = watch->arg;

	etcd_watch_cancel(&watch->base);
	ops->on_end(arg, why);
}

/* What of a revision is below the watch's prefix; false when the watch is no
 * more, or paused. */
static bool report(struct etcd_watch *watch, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;
	size_t prefix_len = strlen(watch->prefix);
	uint64_t id = watch->id;
	size_t first = 0;
	size_t end;

	watch->next = revision + 1;
	/* they are in order of key */
	while (first < count &&
		strncmp(events[first].key, watch->prefix, prefix_len))
		first++;
	for (end = first; end < count; end++)
		if (strncmp(events[end].key, watch->prefix, prefix_len))
			break;
	if (end == first)
		return true;
	watch->told = revision;
	watch->ops->on_changes(
		watch->arg, revision, events + first, end - first);
	watch = find(b, id);
	return watch && !watch->paused;
}

/* ---- one that lags ---- */

/* False when the watch is no more, or has caught up, or is paused. */
static bool emit_caught(struct etcd_watch *watch)
{
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;
	struct etcd_events gathered = watch->gathered;
	uint64_t id = watch->id;
	bool go = true;

	watch->gathered = (struct etcd_events){0};
	if (gathered.revision >= watch->next) {
		events_sort(&gathered);
		go = report(watch, gathered.revision, gathered.events,
			gathered.count);
	}
	events_clear(&gathered);
	watch = find(b, id);
	if (watch && go && watch->next < change_log_first(b->log))
		return true;
	if (watch) { /* the log goes on from here; or, paused, we shall see */
		stop_catching(watch);
		wake(b);
	}
	return false;
}

static bool take_caught(
	struct etcd_watch *watch, const Peerway__Etcd__Event *event)
{
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;
	etcd_key rest;

	if (!event->kv || (uint64_t)event->kv->mod_revision < watch->next)
		return true;
	if (watch->gathered.revision &&
		watch->gathered.revision != (uint64_t)event->kv->mod_revision &&
		!emit_caught(watch))
		return false;
	watch->gathered.revision = (uint64_t)event->kv->mod_revision;
	if (etcd_key_kind(b->root, &event->kv->key, rest) == ETCD_DATA)
		events_add(&watch->gathered, rest, event);
	return true;
}

static void on_caught(void *arg, const ProtobufCMessage *message)
{
	const Peerway__Etcd__WatchResponse *response = (const void *)message;
	struct etcd_watch *watch = arg;

	if (response->canceled) {
		end_watch(watch, response->compact_revision > 0
					 ? BACKEND_COMPACTED
					 : BACKEND_UNAVAILABLE);
		return;
	}
	for (size_t i = 0; i < response->n_events; i++)
		if (!take_caught(watch, response->events[i]))
			return;
	if (!response->fragment && watch->gathered.revision)
		emit_caught(watch);
}

/* The next member that answers is asked again. */
static void on_caught_end(void *arg, int status, const char *message)
{
	struct etcd_watch *watch = arg;
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;

	watch->stream = NULL;
	stop_catching(watch);
	etcd_client_move(b->client, status ? status : GRPC_STATUS_UNAVAILABLE,
		status ? message : "the watch has ended");
}

/* ---- one that may be of the future ---- */

static void on_head(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	struct ticket *ticket = arg;
	struct etcd_backend *b = ticket->b;
	struct etcd_watch *watch = find(b, ticket->id);

	free(ticket);
	if (!watch)
		return;
	watch->asked = false;
	if (status != GRPC_STATUS_OK || !range->header) {
		end_watch(watch, BACKEND_UNAVAILABLE);
	} else if (watch->next > (uint64_t)range->header->revision + 1) {
		end_watch(watch, BACKEND_FUTURE);
	} else {
		watch->ahead = false;
		wake(b);
	}
}

static void ask_head(struct etcd_watch *watch)
{
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;
	struct ticket *ticket = xcalloc(1, sizeof(*ticket));
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;
	etcd_key key;

	ticket->b = b;
	ticket->id = watch->id;
	watch->asked = true;
	etcd_store_key(b->root, key);
	request.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
	etcd_call(b->client, &range_method, rpc_pack(&request.base), on_head,
		ticket);
}

/* ---- the log ---- */

/* False when the watch is no more, or paused. */
static bool read_log(struct etcd_watch *watch)
{
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;
	size_t events = 0, bytes = 0;
	const struct change_log_entry *entry;

	while ((entry = change_log_from(b->log, watch->next))) {
		if (events > EVENTS_PER_TURN || bytes > BYTES_PER_TURN) {
			wake(b);
			return true;
		}
		events += entry->count;
		bytes += entry->bytes;
		if (!report(watch, entry->revision, entry->events,
			    entry->count))
			return false;
	}
	return true;
}

static void pump_watch(struct etcd_watch *watch)
{
	struct etcd_backend *b = (struct etcd_backend *)watch->base.backend;

	if (watch->next > b->seen + 1) {
		if (watch->ahead && !watch->asked)
			ask_head(watch);
	} else if (watch->next < change_log_first(b->log)) {
		if (!watch->stream && etcd_client_is_ready(b->client))
			watch->stream = open_stream(b, watch->next, on_caught,
				on_caught_end, watch);
	} else if (read_log(watch) && watch->next == b->seen + 1 &&
		   watch->told < b->seen) {
		watch->told = b->seen;
		watch->ops->on_changes(watch->arg, b->seen, NULL, 0);
	}
}

static void on_pump(struct loop_task *task)
{
	struct etcd_backend *b =
		(void *)((char *)task - offsetof(struct etcd_backend, pump));
	uint64_t last = b->watch_id; /* later ones wait for the next turn */
	uint64_t id = 0;
	struct etcd_watch *watch;

	while (b->open) {
		/* in order of age: the list is */
		TAILQ_FOREACH (watch, &b->watches, entry)
			if (watch->id > id)
				break;
		if (!watch || watch->id > last)
			return;
		id = watch->id;
		if (!watch->paused)
			pump_watch(watch);
	}
}

struct backend_watch *etcd_watch_new(struct backend *backend,
	const char *prefix, uint64_t from, const struct backend_watch_ops *ops,
	void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_watch *watch = xcalloc(1, sizeof(*watch));

	watch->base.backend = backend;
	watch->id = ++b->watch_id;
	watch->prefix = xstrdup(prefix);
	watch->next = from ? from : 1;
	watch->told = watch->next - 1;
	watch->ahead = true;
	watch->ops = ops;
	watch->arg = arg;
	TAILQ_INSERT_TAIL(&b->watches, watch, entry);
	wake(b);
	return &watch->base;
}

void etcd_watch_pause(struct backend_watch *base, bool paused)
{
	struct etcd_watch *watch = (struct etcd_watch *)base;

	watch->paused = paused;
	if (paused)
		stop_catching(watch);
	else
		wake((struct etcd_backend *)base->backend);
}

void etcd_watches_init(struct etcd_backend *b)
{
	TAILQ_INIT(&b->watches);
	b->pump.run = on_pump;
	b->gathered = xcalloc(1, sizeof(*b->gathered));
}

void etcd_watches_end(struct etcd_backend *b, enum backend_status why)
{
	struct etcd_watch *watch;
	uint64_t last = b->watch_id;

	while ((watch = TAILQ_FIRST(&b->watches)) && watch->id <= last)
		end_watch(watch, why);
}

void etcd_watches_free(struct etcd_backend *b)
{
	struct etcd_watch *watch;

	while ((watch = TAILQ_FIRST(&b->watches)))
		etcd_watch_cancel(&watch->base);
	loop_cancel(b->loop, &b->pump);
	change_log_free(b->log);
	b->log = NULL;
}
