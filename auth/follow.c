/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See follow.h. Two watches; what they report is only a reason to look. What a
 * newcomer gets wrong: our own changes come back here as well, so what has been
 * read is compared with what is in use, and nothing is done when it is the
 * same.
 */
#include <stdlib.h>

#include "auth/config.h"
#include "auth/follow.h"
#include "auth/records.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define AGAIN_MS 1000
#define CAS "secret/ca/"

struct follow {
	struct authd *auth;
	struct backend_watch *cas;
	struct backend_watch *config;
	struct timer *look;
	bool loading;
	bool again; /* changed while they were loaded */
	bool ended; /* freed when what is under way has come back */
};

static void look_at_cas(struct follow *follow);

/* ---- the CAs ---- */

static void on_used(void *arg, enum backend_status status)
{
	struct follow *follow = arg;

	follow->loading = false;
	if (follow->ended) {
		free(follow);
		return;
	}
	if (status != BACKEND_OK)
		log_warn("cluster config not stored: %s",
			backend_status_text(status));
	if (follow->again)
		look_at_cas(follow);
}

static void on_loaded(void *arg, struct ca_pair *cas, const char *error)
{
	struct follow *follow = arg;
	struct authd *auth = follow->auth;

	if (follow->ended) {
		ca_pair_free(cas);
		free(follow);
		return;
	}
	if (!cas) {
		follow->loading = false;
		log_warn("CAs not read again: %s", error);
		timer_set(follow->look, AGAIN_MS);
	} else if (ca_pair_equal(cas, auth->cas)) {
		ca_pair_free(cas);
		on_used(follow, BACKEND_OK);
	} else {
		log_info("CAs were changed by another auth server: host=%s "
			 "user=%s host_pin=%s",
			ca_phase_text(cas->host.state.phase),
			ca_phase_text(cas->user.state.phase),
			cas->host.active.pin);
		authd_use_cas(auth, cas, on_used, follow);
	}
}

static void look_at_cas(struct follow *follow)
{
	follow->again = follow->loading;
	if (follow->loading)
		return;
	follow->loading = true;
	ca_load(&follow->auth->ca_store, on_loaded, follow);
}

static void on_cas(void *arg, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	if (count)
		look_at_cas(arg);
}

/* ---- the settings ---- */

static void on_config(void *arg, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	struct follow *follow = arg;

	if (count)
		config_seen(follow->auth, events[0].value, events[0].len);
}

static void on_config_read(void *arg, const struct backend_range_result *result)
{
	if (result->count)
		config_seen(arg, result->kvs[0].value, result->kvs[0].len);
}

/* ---- the watches ---- */

static void on_cas_end(void *arg, enum backend_status why)
{
	struct follow *follow = arg;

	follow->cas = NULL;
	timer_set(follow->look, AGAIN_MS);
}

static void on_config_end(void *arg, enum backend_status why)
{
	struct follow *follow = arg;

	follow->config = NULL;
	timer_set(follow->look, AGAIN_MS);
}

static const struct backend_watch_ops cas_ops = {on_cas, on_cas_end};
static const struct backend_watch_ops config_ops = {on_config, on_config_end};

/* Watches from now on, and then looks at what is there. */
static void on_look(void *arg)
{
	struct follow *follow = arg;
	struct backend *backend = follow->auth->backend;
	struct backend_range config = {
		.prefix = RECORDS_CONFIG, .exact = true, .limit = 1};
	struct backend_info info;

	backend_info(backend, &info);
	if (!follow->cas)
		follow->cas = backend_watch(
			backend, CAS, info.revision + 1, &cas_ops, follow);
	if (!follow->config)
		follow->config = backend_watch(backend, RECORDS_CONFIG,
			info.revision + 1, &config_ops, follow);
	look_at_cas(follow);
	backend_range(backend, &config, on_config_read, follow->auth);
}

struct follow *follow_new(struct authd *auth)
{
	struct follow *follow = xcalloc(1, sizeof(*follow));

	follow->auth = auth;
	follow->look = timer_new(auth->loop, on_look, follow);
	timer_set(follow->look, 0);
	return follow;
}

void follow_free(struct follow *follow)
{
	if (!follow)
		return;
	backend_watch_cancel(follow->cas);
	backend_watch_cancel(follow->config);
	timer_free(follow->look);
	follow->ended = true;
	if (!follow->loading)
		free(follow);
}
