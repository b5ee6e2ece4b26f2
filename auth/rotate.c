/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries out a verb of `peerctl ca rotate`:
 *
 *   question --> survey --> allowed? --> CAs written --> CAs read again -->
 *      used (own certificate, pub/config) --> survey --> answer
 *
 * Owns each struct rotation until its answer. What a newcomer gets wrong: what
 * this process uses is always what has been read from the store, never what it
 * has just written, so that a start after a crash takes the same way.
 */
#include <stdlib.h>
#include <string.h>

#include "auth/rotate.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* Renewals that authd takes at ease: each is a write. */
#define RENEWALS_PER_S 50
#define SPREAD_MAX_MS (3600 * 1000)

struct rotation {
	struct authd *auth;
	struct ctl_call *call;
	enum ca_verb verb;
	bool host, user; /* which are meant */
	bool force;
	struct ca_change change;
	bool changed;
};

static void fail(struct rotation *rotation, const char *why)
{
	ctl_fail(rotation->call, "%s", why);
	free(rotation);
}

/* ---- the answer ---- */

static void on_reported(void *arg, struct survey *survey, const char *error)
{
	struct rotation *rotation = arg;
	json_t *answer;

	if (!survey) {
		fail(rotation, error);
		return;
	}
	answer = rotate_json(rotation->auth, survey);
	json_object_set_new(answer, "changed", json_boolean(rotation->changed));
	ctl_reply(rotation->call, answer);
	survey_free(survey);
	free(rotation);
}

static void report(struct rotation *rotation)
{
	survey_take(rotation->auth, on_reported, rotation);
}

/* ---- the change ---- */

static void on_used(void *arg, enum backend_status status)
{
	struct rotation *rotation = arg;

	if (status == BACKEND_OK)
		report(rotation);
	else
		fail(rotation, backend_status_text(status));
}

/* What stood in the store up to here has the key of a CA that is gone. */
static void on_compacted(
	void *arg, enum backend_status status, uint64_t revision)
{
	if (status != BACKEND_OK)
		log_warn("store not compacted, it keeps a withdrawn CA's key "
			 "for now: %s",
			backend_status_text(status));
}

static void on_loaded(void *arg, struct ca_pair *cas, const char *error)
{
	struct rotation *rotation = arg;
	struct authd *auth = rotation->auth;

	if (!cas) {
		fail(rotation, error);
		return;
	}
	if (rotation->changed)
		log_info("CAs changed: host=%s user=%s host_pin=%s user_pin=%s",
			ca_phase_text(cas->host.state.phase),
			ca_phase_text(cas->user.state.phase),
			cas->host.active.pin, cas->user.active.pin);
	if (rotation->changed && rotation->verb == CA_FINISH) {
		struct backend_info info;

		backend_info(auth->backend, &info);
		backend_compact(
			auth->backend, info.revision, on_compacted, NULL);
	}
	authd_use_cas(auth, cas, on_used, rotation);
}

static void on_written(void *arg, enum backend_status status, uint64_t revision)
{
	struct rotation *rotation = arg;

	if (status == BACKEND_COMPARE_FAILED) {
		fail(rotation, "somebody else has changed the CAs meanwhile: "
			       "look at `peerctl ca rotate status`");
	} else if (status != BACKEND_OK) {
		fail(rotation, backend_status_text(status));
	} else {
		rotation->changed = true;
		ca_load(&rotation->auth->ca_store, on_loaded, rotation);
	}
}

/* All hosts at once would be too many. */
static uint32_t spread_ms(const struct survey *survey)
{
	uint64_t ms = survey->host_count * 1000ull / RENEWALS_PER_S;

	return ms < SPREAD_MAX_MS ? (uint32_t)ms : SPREAD_MAX_MS;
}

/* False with the call answered. */
static bool decide(struct rotation *rotation, const struct survey *survey)
{
	const struct ca_pair *cas = rotation->auth->cas;
	struct ca_change *change = &rotation->change;
	char *objection = NULL;

	change->host = rotation->host ? ca_phase_next(cas->host.state.phase,
						rotation->verb)
				      : CA_NOTHING;
	change->user = rotation->user ? ca_phase_next(cas->user.state.phase,
						rotation->verb)
				      : CA_NOTHING;
	if (change->host == CA_REFUSED || change->user == CA_REFUSED) {
		fail(rotation, "no rotation is under way (of each CA named): "
			       "there is nothing to roll back");
		return false;
	}
	if (rotation->verb == CA_FINISH && !rotation->force)
		objection = rotate_objection(cas, survey, rotation->host,
			rotation->user, authd_time());
	if (objection) {
		ctl_fail(rotation->call,
			"not finished: %s; wait, or cut them off with --force",
			objection);
		free(objection);
		free(rotation);
		return false;
	}
	change->now = authd_time();
	change->spread_ms = spread_ms(survey);
	return true;
}

static void on_surveyed(void *arg, struct survey *survey, const char *error)
{
	struct rotation *rotation = arg;
	struct authd *auth = rotation->auth;
	const struct ca_change *change = &rotation->change;
	bool go;

	if (!survey) {
		fail(rotation, error);
		return;
	}
	go = decide(rotation, survey);
	survey_free(survey);
	if (!go)
		return;
	if (change->host == CA_NOTHING && change->user == CA_NOTHING)
		report(rotation);
	else if (ca_change(&auth->ca_store, auth->cas, change, on_written,
			 rotation) < 0)
		fail(rotation, "a CA could not be made");
}

/* ---- the verbs ---- */

/* NULL, or what is wrong. */
static const char *read_args(struct rotation *rotation, json_t *args)
{
	const char *which = "both";
	int force = 0;

	if (args && json_unpack(args, "{s?s, s?b}", "ca", &which, "force",
			    &force) < 0)
		return "ca must be a text, force true or false";
	rotation->host = !strcmp(which, "host") || !strcmp(which, "both");
	rotation->user = !strcmp(which, "user") || !strcmp(which, "both");
	rotation->force = force;
	return rotation->host || rotation->user
		       ? NULL
		       : "ca must be host, user or both";
}

static void begin(struct ctl_call *call, struct authd *auth, json_t *args,
	enum ca_verb verb)
{
	struct rotation *rotation = xcalloc(1, sizeof(*rotation));
	const char *wrong;

	rotation->auth = auth;
	rotation->call = call;
	rotation->verb = verb;
	wrong = read_args(rotation, args);
	if (wrong)
		fail(rotation, wrong);
	else
		survey_take(auth, on_surveyed, rotation);
}

void rotate_start(struct ctl_call *call, void *arg, json_t *args)
{
	begin(call, arg, args, CA_START);
}

void rotate_finish(struct ctl_call *call, void *arg, json_t *args)
{
	begin(call, arg, args, CA_FINISH);
}

void rotate_rollback(struct ctl_call *call, void *arg, json_t *args)
{
	begin(call, arg, args, CA_ROLLBACK);
}

void rotate_status(struct ctl_call *call, void *arg, json_t *args)
{
	struct rotation *rotation = xcalloc(1, sizeof(*rotation));

	rotation->auth = arg;
	rotation->call = call;
	report(rotation);
}
