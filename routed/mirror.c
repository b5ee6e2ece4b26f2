/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream of authd's watch on one side, apply.c's rules and store.c's rows
 * on the other. Owns the store, the reading connection to it that status and
 * ls use, and the call.
 *
 * What is easily got wrong: a transaction stays open from message to message, a
 * snapshot's until its last part, that of changes for a moment. Whatever ends
 * the stream before must roll it back, and must ask anew from where the file
 * then stands.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "auth.pb-c.h"
#include "routed/apply.h"
#include "routed/mirror.h"
#include "routed/store.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define WATCH "/peerway.auth.AuthService/Watch"
#define RETRY_MS 1000
/* From one commit to the next: a page that several messages have changed is
 * written once. The first after a quiet moment waits for nothing. */
#define COMMIT_MS 20

/* One call. It may end after another has been begun: then it has no mirror. */
struct watch {
	struct mirror *mirror;
	struct rpc_client_call *call;
};

struct mirror {
	struct loop *loop;
	char *directory;
	struct session *session;
	const struct mirror_ops *ops;
	void *arg;
	struct store *store; /* NULL: no file can be made */
	struct cache *cache; /* NULL until asked for */
	struct apply apply;
	struct watch *watch; /* NULL: not watching */
	struct timer *retry;
	struct timer
		*commit; /* of changes that are written and not committed */
	int64_t committed_at;
	bool current; /* what was so when this watch began has been heard */
	int64_t heard_at;
	char *error; /* of the last attempt to write; NULL: it went well */
};

static void on_retry(void *arg);
static void on_commit_due(void *arg);

/* ---- the file ---- */

static int open_store(struct mirror *mirror, char **error_out)
{
	struct cache_meta meta = {0};
	char *notice = NULL;

	mirror->store = store_open(mirror->directory, &notice, error_out);
	if (notice)
		log_error("cache is rebuilt: %s", notice);
	free(notice);
	if (!mirror->store)
		return -1;
	store_meta(mirror->store, &meta);
	apply_init(&mirror->apply, meta.store_id, meta.revision);
	log_info("cache opened: path=%s store=%s revision=%llu",
		store_path(mirror->store), meta.store_id,
		(unsigned long long)meta.revision);
	return 0;
}

struct mirror *mirror_new(struct loop *loop, const char *directory,
	struct session *session, const struct mirror_ops *ops, void *arg,
	char **error_out)
{
	struct mirror *mirror = xcalloc(1, sizeof(*mirror));

	mirror->loop = loop;
	mirror->directory = xstrdup(directory);
	mirror->session = session;
	mirror->ops = ops;
	mirror->arg = arg;
	mirror->heard_at = loop_now(loop);
	mirror->retry = timer_new(loop, on_retry, mirror);
	mirror->commit = timer_new(loop, on_commit_due, mirror);
	if (open_store(mirror, error_out) < 0) {
		mirror_free(mirror);
		return NULL;
	}
	return mirror;
}

void mirror_free(struct mirror *mirror)
{
	if (!mirror)
		return;
	mirror_stop(mirror);
	timer_free(mirror->retry);
	timer_free(mirror->commit);
	cache_close(mirror->cache);
	store_close(mirror->store);
	free(mirror->directory);
	free(mirror->error);
	free(mirror);
}

/* Takes error; NULL: none. */
static void set_error(struct mirror *mirror, char *error)
{
	free(mirror->error);
	mirror->error = error;
}

/* The file failed us: another one, filled from the start. */
static void rebuild(struct mirror *mirror, const char *reason)
{
	char *why = xstrdup(reason);
	char *notice, *error = NULL;

	mirror_stop(mirror);
	cache_close(mirror->cache);
	mirror->cache = NULL;
	notice = store_set_aside(mirror->store, why);
	mirror->store = NULL;
	log_error("cache is rebuilt: %s", notice);
	free(notice);
	free(why);
	if (open_store(mirror, &error) < 0) {
		log_error("no cache can be made: %s", error);
		set_error(mirror, error);
	}
	timer_set(mirror->retry, RETRY_MS);
}

/* ---- messages ---- */

static int change_rows(
	struct mirror *mirror, const Peerway__Auth__WatchResponse *message)
{
	for (size_t i = 0; i < message->n_changes; i++) {
		if (!apply_is_fit(message->changes[i])) {
			log_warn("a record is left out of the cache: it is "
				 "malformed or of a newer kind revision=%llu",
				(unsigned long long)message->revision);
			continue;
		}
		if (store_change(mirror->store, message->changes[i]) < 0)
			return -1;
	}
	return 0;
}

static int commit(struct mirror *mirror)
{
	bool proxies_changed;

	timer_clear(mirror->commit);
	if (store_commit(mirror->store, mirror->apply.store_id,
		    mirror->apply.revision, &proxies_changed) < 0)
		return -1;
	mirror->committed_at = loop_now(mirror->loop);
	set_error(mirror, NULL);
	mirror->ops->on_commit(mirror->arg, proxies_changed);
	return 0;
}

/* At once, or with what else comes soon. */
static int commit_changes(struct mirror *mirror)
{
	int64_t rest =
		mirror->committed_at + COMMIT_MS - loop_now(mirror->loop);

	if (rest <= 0)
		return commit(mirror);
	if (!timer_is_set(mirror->commit))
		timer_set(mirror->commit, rest);
	return 0;
}

static int write_step(struct mirror *mirror, enum apply_step step,
	const Peerway__Auth__WatchResponse *message)
{
	struct store *store = mirror->store;

	if (!store_is_open(store) &&
		store_begin(store, step != APPLY_CHANGES) < 0)
		return -1;
	if (change_rows(mirror, message) < 0)
		return -1;
	if (step == APPLY_GATHER)
		return 0;
	return step == APPLY_REPLACE ? commit(mirror) : commit_changes(mirror);
}

static void restart(struct mirror *mirror, const char *reason)
{
	char *error = xasprintf("the cache is not kept up: %s", reason);

	/* once for as long as it is the same */
	if (!mirror->error || strcmp(mirror->error, error))
		log_warn("watch is started anew: %s", reason);
	set_error(mirror, error);
	mirror_stop(mirror);
	timer_set(mirror->retry, RETRY_MS);
}

static void store_failed(struct mirror *mirror)
{
	if (store_is_damaged(mirror->store))
		rebuild(mirror, store_error(mirror->store));
	else
		restart(mirror, store_error(mirror->store));
}

static void on_commit_due(void *arg)
{
	struct mirror *mirror = arg;

	if (commit(mirror) < 0)
		store_failed(mirror);
}

/* Changes that are written and not committed; -1: they could not be. */
static int settle(struct mirror *mirror)
{
	return timer_is_set(mirror->commit) ? commit(mirror) : 0;
}

/* A watch that goes on from an old revision begins with old news. */
static int note_current(
	struct mirror *mirror, const Peerway__Auth__WatchResponse *message)
{
	if (mirror->current || mirror->apply.revision < message->head)
		return 0;
	if (settle(mirror) < 0)
		return -1;
	mirror->current = true;
	mirror->ops->on_current(mirror->arg);
	return 0;
}

static void on_message(void *arg, const ProtobufCMessage *base)
{
	const Peerway__Auth__WatchResponse *message = (const void *)base;
	struct mirror *mirror = ((struct watch *)arg)->mirror;
	const char *reason = NULL;
	enum apply_step step;

	mirror->heard_at = loop_now(mirror->loop);
	session_heard(mirror->session);
	/* a snapshot is a transaction of its own, and of another position */
	if (message->snapshot && settle(mirror) < 0) {
		store_failed(mirror);
		return;
	}
	step = apply_next(&mirror->apply, message, &reason);
	if (step == APPLY_BROKEN)
		restart(mirror, reason);
	else if ((step != APPLY_SKIP &&
			 write_step(mirror, step, message) < 0) ||
		 (step != APPLY_GATHER && note_current(mirror, message) < 0))
		store_failed(mirror);
}

static void on_end(void *arg, int status, const char *message)
{
	struct watch *watch = arg;
	struct mirror *mirror = watch->mirror;

	free(watch);
	if (!mirror)
		return;
	mirror->watch = NULL;
	if (session_is_fatal(status) && status != GRPC_STATUS_OK)
		session_fail(mirror->session, "watch ended", status, message);
	else
		restart(mirror, message);
}

/* ---- the call ---- */

void mirror_start(struct mirror *mirror)
{
	Peerway__Auth__WatchRequest request =
		PEERWAY__AUTH__WATCH_REQUEST__INIT;
	struct rpc_channel *channel = session_channel(mirror->session);
	char *error = NULL;

	if (mirror->watch || !channel)
		return;
	if (!mirror->store && open_store(mirror, &error) < 0) {
		log_error("no cache can be made: %s", error);
		free(error);
		timer_set(mirror->retry, RETRY_MS);
		return;
	}
	mirror->current = false;
	request.store_id = mirror->apply.store_id;
	request.from_revision = mirror->apply.revision + 1;
	mirror->watch = xcalloc(1, sizeof(*mirror->watch));
	mirror->watch->mirror = mirror;
	mirror->watch->call = rpc_stream(channel, WATCH, &request.base,
		&peerway__auth__watch_response__descriptor, on_message, on_end,
		mirror->watch);
}

static void on_retry(void *arg)
{
	mirror_start(arg);
}

void mirror_stop(struct mirror *mirror)
{
	struct cache_meta meta = {0};

	timer_clear(mirror->retry);
	/* what has been heard is known, however long authd stays away */
	if (settle(mirror) < 0)
		log_warn("changes not committed: %s",
			store_error(mirror->store));
	timer_clear(mirror->commit);
	if (mirror->watch) {
		mirror->watch->mirror = NULL;
		rpc_client_cancel(mirror->watch->call);
		mirror->watch = NULL;
	}
	if (!mirror->store)
		return;
	store_rollback(mirror->store);
	store_meta(mirror->store, &meta);
	apply_init(&mirror->apply, meta.store_id, meta.revision);
}

/* ---- what others ask ---- */

struct cache *mirror_cache(struct mirror *mirror)
{
	char *error = NULL;

	if (!mirror->cache && mirror->store) {
		mirror->cache = cache_open(store_path(mirror->store), &error);
		if (!mirror->cache)
			log_warn("cache cannot be read: %s", error);
		free(error);
	}
	return mirror->cache;
}

void mirror_suspect(struct mirror *mirror)
{
	char *fault = mirror->store ? store_check(mirror->store) : NULL;

	if (fault)
		rebuild(mirror, fault);
	free(fault);
}

int mirror_tunnel_counts(struct mirror *mirror,
	void (*fn)(void *arg, const char *proxy_id, uint64_t tunnels),
	void *arg)
{
	return mirror->store ? store_tunnel_counts(mirror->store, fn, arg)
			     : -EIO;
}

const char *mirror_last_error(const struct mirror *mirror)
{
	return mirror->error ? mirror->error : "";
}

const char *mirror_path(const struct mirror *mirror)
{
	return mirror->store ? store_path(mirror->store) : "";
}

bool mirror_position(const struct mirror *mirror, struct cache_meta *out)
{
	memset(out, 0, sizeof(*out));
	return mirror->store && store_meta(mirror->store, out) == 0 &&
	       out->store_id[0] != '\0';
}

int64_t mirror_silence_ms(const struct mirror *mirror)
{
	return loop_now(mirror->loop) - mirror->heard_at;
}

int64_t mirror_age_ms(const struct mirror *mirror)
{
	return mirror->watch ? loop_now(mirror->loop) - mirror->heard_at : -1;
}
