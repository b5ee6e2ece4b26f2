/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares the cache with authd's records: see validate.h. Owns the call of
 * the snapshot and the scratch file it is written to, data_dir/validate.
 *
 * What is easily got wrong: ending the watch is asynchronous. Its end finds no
 * run any more, or one that came after it, so a run has an object of its own.
 */
#include "routed/validate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth.pb-c.h"
#include "routed/apply.h"
#include "routed/routed.h"
#include "routed/store.h"
#include "routed/store_compare.h"
#include "shared/alloc.h"

#define WATCH "/peerway.auth.AuthService/Watch"

/* One watch. It may end after its run is over: then it has no validate. */
struct snapshot {
	struct validate *validate;
	struct rpc_client_call *call;
};

struct validate {
	struct routed *routed;
	char *directory;
	struct timer *late;
	/* of the run; call NULL: idle */
	struct ctl_call *call;
	struct snapshot *snapshot;
	struct store *store;
	struct apply apply;
};

/* ---- the scratch file ---- */

static void remove_scratch(struct validate *validate)
{
	static const char *const names[] = {
		"cache-1.db", "cache-1.db-wal", "cache-1.db-shm", "new.db"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char *path = xasprintf("%s/%s", validate->directory, names[i]);

		unlink(path);
		free(path);
	}
	rmdir(validate->directory);
}

static bool open_scratch(struct validate *validate, char **error_out)
{
	char *notice = NULL;

	remove_scratch(validate); /* of a crash */
	validate->store = store_open(validate->directory, &notice, error_out);
	free(notice);
	apply_init(&validate->apply, "", 0);
	return validate->store != NULL;
}

/* ---- the end of a run ---- */

static struct ctl_call *end_run(struct validate *validate)
{
	struct ctl_call *call = validate->call;

	timer_clear(validate->late);
	if (validate->snapshot) {
		validate->snapshot->validate = NULL;
		rpc_client_cancel(validate->snapshot->call);
	}
	if (validate->store) {
		store_rollback(validate->store);
		store_close(validate->store);
	}
	remove_scratch(validate);
	validate->snapshot = NULL;
	validate->store = NULL;
	validate->call = NULL;
	return call;
}

static void fail_run(
	struct validate *validate, const char *what, const char *why)
{
	char *reason = xstrdup(why);

	ctl_fail(end_run(validate), "%s: %s", what, reason);
	free(reason);
}

/* ---- the answer ---- */

static json_t *text_json(const char *text)
{
	json_t *json = json_string(text);

	return json ? json : json_string("?");
}

static void add_difference(void *arg, const struct store_difference *difference)
{
	static const char *const kinds[] = {
		[STORE_MISSING] = "missing",
		[STORE_EXTRA] = "extra",
		[STORE_DIFFERS] = "differs",
	};
	json_t *json = json_pack("{s:s, s:s}", "kind", kinds[difference->kind],
		"record", difference->table);
	char fingerprint[20];

	if (difference->agent_id[0]) {
		json_object_set_new(
			json, "agent_id", text_json(difference->agent_id));
		json_object_set_new(
			json, "agent", text_json(difference->agent));
	}
	if (difference->proxy_id[0])
		json_object_set_new(
			json, "proxy_id", text_json(difference->proxy_id));
	snprintf(fingerprint, sizeof(fingerprint), "%016" PRIx64,
		difference->fingerprint);
	json_object_set_new(json, "fingerprint", json_string(fingerprint));
	json_array_append_new(arg, json);
}

struct own {
	const char *proxy_id; /* of the records that are wanted */
	json_t *list;
};

static int add_own(void *arg, const Peerway__Record__TunnelRecord *record)
{
	struct own *own = arg;

	if (strcmp(record->proxy_id, own->proxy_id) == 0)
		json_array_append_new(
			own->list, json_pack("{s:o, s:o, s:I}", "agent_id",
					   text_json(record->agent_id), "name",
					   text_json(record->name), "since_ms",
					   (json_int_t)record->since_ms));
	return 0;
}

/* This host's tunnels, as the cache has them and as its workers told us. */
static json_t *tunnels_json(struct routed *routed)
{
	struct cache *cache = mirror_cache(routed->mirror);
	struct own cached = {routed->proxy_id, json_array()};
	struct own told = {routed->proxy_id, json_array()};

	if (cache)
		cache_tunnels_all(cache, add_own, &cached);
	publish_each(routed->publish, add_own, &told);
	return json_pack(
		"{s:o, s:o}", "cache", cached.list, "routed", told.list);
}

static void answer(struct validate *validate)
{
	struct routed *routed = validate->routed;
	struct cache_meta meta = {0};
	json_t *differences = json_array();
	json_t *json;
	char *error = NULL;

	if (store_compare(store_path(validate->store),
		    mirror_path(routed->mirror), add_difference, differences,
		    &meta, &error) < 0) {
		json_decref(differences);
		fail_run(validate, "the cache cannot be read", error);
		free(error);
		mirror_suspect(routed->mirror);
		return;
	}
	json = json_pack("{s:{s:s, s:I}, s:{s:s, s:s, s:I}, s:o, s:o}",
		"backend", "store_id", validate->apply.store_id, "revision",
		(json_int_t)validate->apply.revision, "cache", "path",
		mirror_path(routed->mirror), "store_id", meta.store_id,
		"revision", (json_int_t)meta.revision, "differences",
		differences, "tunnels", tunnels_json(routed));
	ctl_reply(end_run(validate), json);
}

/* ---- the snapshot ---- */

/* False: the store has failed. */
static bool write_part(struct validate *validate, enum apply_step step,
	const Peerway__Auth__WatchResponse *message)
{
	struct store *store = validate->store;
	bool changed;

	if (!store_is_open(store) && store_begin(store, true) < 0)
		return false;
	for (size_t i = 0; i < message->n_changes; i++) {
		if (apply_is_fit(message->changes[i]) &&
			store_change(store, message->changes[i]) < 0)
			return false;
	}
	return step == APPLY_GATHER ||
	       store_commit(store, validate->apply.store_id,
		       validate->apply.revision, &changed) == 0;
}

static void on_message(void *arg, const ProtobufCMessage *base)
{
	const Peerway__Auth__WatchResponse *message = (const void *)base;
	struct validate *validate = ((struct snapshot *)arg)->validate;
	const char *reason = NULL;
	enum apply_step step;

	if (!validate)
		return;
	step = apply_next(&validate->apply, message, &reason);
	if (step == APPLY_SKIP)
		return;
	if (step == APPLY_BROKEN)
		fail_run(validate, "authd's records cannot be read", reason);
	else if (!write_part(validate, step, message))
		fail_run(validate, "authd's records cannot be kept",
			store_error(validate->store));
	else if (step == APPLY_REPLACE)
		answer(validate);
}

static void on_end(void *arg, int status, const char *message)
{
	struct snapshot *snapshot = arg;
	struct validate *validate = snapshot->validate;

	free(snapshot);
	if (!validate)
		return;
	validate->snapshot = NULL;
	fail_run(validate, "authd's records cannot be read", message);
}

static void on_late(void *arg)
{
	fail_run(arg, "authd's records cannot be read",
		"they did not come in time");
}

void validate_start(struct validate *validate, struct ctl_call *call)
{
	struct routed *routed = validate->routed;
	struct rpc_channel *channel = session_channel(routed->session);
	Peerway__Auth__WatchRequest request =
		PEERWAY__AUTH__WATCH_REQUEST__INIT;
	char *error = NULL;

	if (validate->call) {
		ctl_fail(call, "another validate is under way: try again");
		return;
	}
	if (!channel) {
		ctl_fail(call,
			"authd %s is unreachable, so there is nothing "
			"to compare with: %s",
			session_address(routed->session),
			session_last_error(routed->session));
		return;
	}
	if (!open_scratch(validate, &error)) {
		ctl_fail(call, "%s", error);
		free(error);
		return;
	}
	validate->call = call;
	timer_set(validate->late, VALIDATE_MS);
	validate->snapshot = xcalloc(1, sizeof(*validate->snapshot));
	validate->snapshot->validate = validate;
	validate->snapshot->call = rpc_stream(channel, WATCH, &request.base,
		&peerway__auth__watch_response__descriptor, on_message, on_end,
		validate->snapshot);
}

/* ---- the whole ---- */

struct validate *validate_new(struct routed *routed)
{
	struct validate *validate = xcalloc(1, sizeof(*validate));

	validate->routed = routed;
	validate->directory = xasprintf("%s/validate", routed->conf->data_dir);
	validate->late = timer_new(routed->loop, on_late, validate);
	return validate;
}

void validate_free(struct validate *validate)
{
	if (!validate)
		return;
	if (validate->call)
		fail_run(validate, "not compared", "routed is stopping");
	timer_free(validate->late);
	free(validate->directory);
	free(validate);
}
