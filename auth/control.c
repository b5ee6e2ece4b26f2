/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket for peerctl and the verbs about authd itself, see control.h.
 * Tokens are in control_token.c, users in control_identity.c, the CAs' rotation
 * in rotate.c. What a newcomer gets wrong: who may connect may do everything,
 * so what must not leave this process has no verb.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "auth/backup.h"
#include "auth/control.h"
#include "auth/control_identity.h"
#include "auth/control_token.h"
#include "auth/rotate.h"
#include "shared/alloc.h"
#include "shared/ctl.h"
#include "shared/log.h"

void control_time(int64_t seconds, char out[CONTROL_TIME_SIZE])
{
	time_t when = seconds;
	struct tm tm;

	gmtime_r(&when, &tm);
	strftime(out, CONTROL_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void handle_status(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;
	struct backend_info info;
	char not_after[CONTROL_TIME_SIZE];
	json_t *store;

	backend_info(auth->backend, &info);
	control_time(auth->not_after, not_after);
	store = json_pack("{s:s, s:s, s:I, s:I, s:b, s:s, s:I}", "type",
		auth->conf->auth.storage.type, "store_id", info.store_id,
		"revision", (json_int_t)info.revision, "log_bytes",
		(json_int_t)info.log_bytes, "failing", info.failing, "problem",
		info.problem, "failing_s",
		info.failing ? (json_int_t)(loop_now(auth->loop) -
					    info.failing_since) /
				       1000
			     : (json_int_t)0);
	ctl_reply(call,
		json_pack("{s:s, s:s, s:s, s:i, s:I, s:s, s:i, s:s, s:{s:s},"
			  " s:i, s:i, s:o, s:{s:s, s:i, s:s}}",
			"auth_id", auth->uuid, "cluster",
			auth->conf->cluster_name, "version", PEERWAY_VERSION,
			"pid", getpid(), "uptime_s",
			(json_int_t)(loop_now(auth->loop) - auth->started) /
				1000,
			"listening", auth->conf->auth.listen_addr, "port",
			auth->server ? rpc_server_port(auth->server) : 0, "pin",
			auth->cas->host.active.pin, "identity", "not_after",
			not_after, "leases", info.leases, "watchers",
			auth->watcher_count, "store", store, "strategy", "type",
			auth->strategy_type ? auth->strategy_type : "",
			"agent_connection_count", (int)auth->strategy_count,
			"disagreement",
			auth->disagreement ? auth->disagreement : ""));
}

static void handle_ca(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;

	ctl_reply(call, json_pack("{s:s, s:s, s:s, s:s}", "host_ca",
				auth->cas->host.bundle, "user_ca",
				auth->cas->user.bundle, "pin",
				auth->cas->host.active.pin, "cluster_name",
				auth->conf->cluster_name));
}

/* ---- the socket ---- */

static const struct ctl_verb verbs[] = {
	{"status", handle_status},
	{"ca", handle_ca},
	{"token.add", control_token_add},
	{"token.ls", control_token_list},
	{"token.rm", control_token_remove},
	{"identity.issue", control_identity_issue},
	{"backup.start", backup_start},
	{"backup.status", backup_status},
	{"ca.rotate.start", rotate_start},
	{"ca.rotate.status", rotate_status},
	{"ca.rotate.finish", rotate_finish},
	{"ca.rotate.rollback", rotate_rollback},
	{NULL, NULL},
};

static const struct ipc_handlers handlers[] = {
	{IPC_CTL_REQUEST, ctl_handle_request},
	{0, NULL},
};

static void on_up(struct ipc_link *link, void *arg)
{
	log_debug("peerctl connected: pid=%u", ipc_link_hello(link)->pid);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	log_debug("peerctl gone: %s", reason);
	ctl_link_gone(link);
}

bool control_start(struct authd *auth, char **error_out)
{
	static const struct ipc_link_ops ops = {handlers, on_up, on_down};
	const struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_AUTHD};
	char *path = xasprintf("%s/authd.sock", auth->conf->run_dir);

	backup_clean(auth);
	ctl_serve(verbs, auth);
	auth->control =
		ipc_server_new(auth->loop, path, 0660, &self, &ops, auth);
	if (!auth->control)
		*error_out = xasprintf("%s: %s", path, strerror(errno));
	free(path);
	return auth->control != NULL;
}

void control_stop(struct authd *auth)
{
	ipc_server_free(auth->control);
	auth->control = NULL;
}
