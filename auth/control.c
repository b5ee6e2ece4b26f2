/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket for peerctl and the verbs about authd itself and about users, see
 * control.h. Tokens are in control_token.c. What a newcomer gets wrong: a
 * user's private key is made by peerctl and stays there; what arrives here is a
 * signing request.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "auth/control.h"
#include "auth/control_token.h"
#include "auth/issue.h"
#include "shared/alloc.h"
#include "shared/ctl.h"
#include "shared/log.h"
#include "shared/pki.h"

#define CSR_TEXT_MAX 24000

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
	store = json_pack("{s:s, s:s, s:I, s:I, s:I, s:b}", "type",
		auth->conf->auth.storage.type, "store_id", info.store_id,
		"revision", (json_int_t)info.revision, "compacted",
		(json_int_t)info.compacted, "log_bytes",
		(json_int_t)info.log_bytes, "failing", info.failing);
	ctl_reply(call,
		json_pack("{s:s, s:s, s:s, s:i, s:I, s:s, s:i, s:s, s:{s:s},"
			  " s:i, s:i, s:o}",
			"auth_id", auth->uuid, "cluster",
			auth->conf->cluster_name, "version", PEERWAY_VERSION,
			"pid", getpid(), "uptime_s",
			(json_int_t)(loop_now(auth->loop) - auth->started) /
				1000,
			"listening", auth->conf->auth.listen_addr, "port",
			auth->server ? rpc_server_port(auth->server) : 0, "pin",
			auth->cas->host.pin, "identity", "not_after", not_after,
			"leases", info.leases, "watchers", auth->watcher_count,
			"store", store));
}

static void handle_ca(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;

	ctl_reply(call, json_pack("{s:s, s:s, s:s, s:s}", "host_ca",
				auth->cas->host.pem, "user_ca",
				auth->cas->user.pem, "pin", auth->cas->host.pin,
				"cluster_name", auth->conf->cluster_name));
}

/* ---- users ---- */

/* The key of a signing request in base64; gives. */
static EVP_PKEY *request_key(const char *text)
{
	size_t len = strlen(text);
	uint8_t *der;
	EVP_PKEY *key = NULL;
	int n;

	if (len < 4 || len > CSR_TEXT_MAX || len % 4)
		return NULL;
	der = xcalloc(1, len);
	n = EVP_DecodeBlock(der, (const unsigned char *)text, (int)len);
	/* it counts the padding as bytes */
	n -= (text[len - 1] == '=') + (text[len - 2] == '=');
	if (n > 0)
		key = pki_csr_key(der, n, NULL);
	free(der);
	return key;
}

/* NULL, or what is wrong; texts are borrowed from args. */
static const char *read_user(
	struct issue_user *user, const char **csr_out, json_t *args)
{
	json_t *groups = NULL;
	json_t *group;
	json_int_t ttl = 0;
	size_t i;

	if (json_unpack(args, "{s:s, s:s, s?o, s?I}", "user", &user->name,
		    "csr", csr_out, "groups", &groups, "ttl_s", &ttl) < 0)
		return "user or csr is missing, or an argument has the wrong "
		       "type";
	user->ttl_s = ttl;
	if (groups && !json_is_null(groups) && !json_is_array(groups))
		return "groups must be a list";
	if (json_array_size(groups) > IDENTITY_GROUPS_MAX)
		return "there are more than 32 groups";
	json_array_foreach(groups, i, group)
	{
		user->groups[i] = json_string_value(group);
		if (!user->groups[i])
			return "a group must be a text";
	}
	return issue_check_user(user);
}

static void handle_issue(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;
	struct issue_user user = {0};
	const char *csr = "";
	const char *wrong = read_user(&user, &csr, args);
	EVP_PKEY *key;
	X509 *cert;
	char *chain;

	if (wrong) {
		ctl_fail(call, "%s", wrong);
		return;
	}
	key = request_key(csr);
	if (!key) {
		ctl_fail(call, "csr is not a signing request in base64");
		return;
	}
	cert = issue_user(&auth->cas->user, &user, key, authd_time(), NULL);
	chain = cert ? issue_chain(cert, &auth->cas->user) : NULL;
	if (chain) {
		metric_add(&auth->metrics, METRIC_USERS, 1);
		log_info("user certificate issued: user=%s groups=%zu "
			 "ttl_s=%lld",
			user.name,
			json_array_size(json_object_get(args, "groups")),
			(long long)(user.ttl_s ? user.ttl_s
					       : ISSUE_USER_DEFAULT_S));
		ctl_reply(call,
			json_pack("{s:s, s:s, s:s, s:s}", "cert_chain", chain,
				"host_ca", auth->cas->host.pem, "user_ca",
				auth->cas->user.pem, "cluster_name",
				auth->conf->cluster_name));
	} else {
		ctl_fail(call, "the certificate could not be made");
	}
	free(chain);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/* ---- the socket ---- */

static const struct ctl_verb verbs[] = {
	{"status", handle_status},
	{"ca", handle_ca},
	{"token.add", control_token_add},
	{"token.ls", control_token_list},
	{"token.rm", control_token_remove},
	{"identity.issue", handle_issue},
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
