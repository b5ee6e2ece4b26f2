/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authd: the cluster's CAs and join tokens, its tunnel strategy, its routing
 * records. Serves routed of every proxy host (3025) and peerctl of this one
 * (authd.sock). Wiring only.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/authd.h"
#include "auth/backend_etcd.h"
#include "auth/backend_sqlite.h"
#include "auth/control.h"
#include "auth/follow.h"
#include "auth/service.h"
#include "shared/alloc.h"
#include "shared/daemon.h"
#include "shared/log.h"
#include "shared/reload.h"

static struct backend *open_sqlite(
	struct authd *auth, const char *dir, char **error_out)
{
	char *path = xasprintf("%s/backend.db", dir);
	struct backend_sqlite_options options = {.path = path};
	struct backend *backend =
		backend_sqlite_new(auth->loop, &options, error_out);

	free(path);
	return backend;
}

static struct backend *open_etcd(
	struct authd *auth, const char *dir, char **error_out)
{
	const struct conf_storage *storage = &auth->conf->auth.storage;
	struct backend_etcd_options options = {
		.etcd = {.endpoints = storage->endpoints,
			.endpoint_count = storage->endpoints_count,
			.tls = storage->tls.enabled,
			.ca_file = storage->tls.ca,
			.cert_file = storage->tls.cert,
			.key_file = storage->tls.key,
			.user = storage->user.name,
			.password_file = storage->user.password_file},
		.prefix = storage->prefix,
		.compact_ms = storage->compaction};

	return backend_etcd_new(auth->loop, auth->cq, &options, error_out);
}

static const struct {
	const char *type;
	struct backend *(*open)(
		struct authd *auth, const char *dir, char **error_out);
} stores[] = {
	{"sqlite", open_sqlite},
	{"etcd", open_etcd},
};

/* data_dir/authd, which holds the CAs' keys, is nobody else's. */
static struct backend *open_store(struct authd *auth)
{
	const struct conf *conf = auth->conf;
	char *dir = xasprintf("%s/authd", conf->data_dir);
	struct backend *backend = NULL;
	char *error = NULL;

	if ((mkdir(conf->data_dir, 0755) < 0 && errno != EEXIST) ||
		(mkdir(dir, 0700) < 0 && errno != EEXIST) ||
		chmod(dir, 0700) < 0)
		die("cannot start: %s: %s", dir, strerror(errno));
	for (size_t i = 0; i < sizeof(stores) / sizeof(stores[0]); i++)
		if (!strcmp(conf->auth.storage.type, stores[i].type))
			backend = stores[i].open(auth, dir, &error);
	free(dir);
	if (!backend)
		die("cannot start: %s", error);
	return backend;
}

static struct seal *open_seal(const struct conf *conf)
{
	char *error = NULL;
	struct seal *seal = seal_new(conf->auth.ca_key_file, &error);

	if (!seal)
		die("cannot start: auth_service.ca_key_file: %s", error);
	return seal;
}

static void on_stopped(void *arg)
{
	struct authd *auth = arg;

	loop_stop(auth->loop);
}

static void on_terminate(int signal, void *arg)
{
	struct authd *auth = arg;

	if (auth->stopping)
		return;
	log_info("stopping: signal=%d", signal);
	daemon_notify("STOPPING=1");
	auth->stopping = true;
	if (auth->server)
		service_stop(auth, on_stopped);
	else
		loop_stop(auth->loop);
}

struct process {
	struct authd auth;
	struct conf *conf;
	const char *config_path;
};

static void apply(void *arg, const struct conf_changes *changes)
{
	struct process *process = arg;

	authd_apply(&process->auth, changes);
}

static void on_hangup(int signal, void *arg)
{
	struct process *process = arg;

	if (process->auth.stopping)
		return;
	reload(&(struct reload){
		.conf = process->conf,
		.name = process->config_path,
		.daemon = CONF_AUTHD,
		.ready = process->auth.server != NULL,
		.apply = apply,
		.arg = process,
	});
}

static void authd_deinit(struct authd *auth)
{
	control_stop(auth);
	diag_free(auth->diag);
	timer_free(auth->renewal);
	follow_free(auth->follow);
	/* calls that were waiting for the store are answered, to nobody */
	backend_free(auth->backend);
	backup_deinit(auth);
	rpc_cq_free(auth->cq);
	rpc_identity_free(auth->identity);
	ca_pair_free(auth->cas);
	seal_free(auth->ca_store.seal);
	free(auth->disagreement);
	metrics_deinit(&auth->metrics);
	loop_free(auth->loop);
}

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct conf *conf = daemon_start(
		argc, argv, "authd", "Peerway's Auth Service", false, &options);
	struct process process = {.auth = {.conf = conf},
		.conf = conf,
		.config_path = options.config_path};
	struct authd *auth = &process.auth;
	int ret;

	if (!conf->auth.enabled)
		die("cannot start: auth_service.enabled is not set");
	TAILQ_INIT(&auth->watchers);
	daemon_raise_fd_limit();
	auth->loop = loop_new();
	auth->started = loop_now(auth->loop);
	metrics_init(&auth->metrics, authd_metrics, AUTHD_METRICS, 1, 0, NULL);
	rpc_require_tls13();
	auth->cq = rpc_cq_new(auth->loop, 1);
	auth->backend = open_store(auth);
	auth->ca_store = (struct ca_store){
		auth->backend, conf->cluster_name, open_seal(conf)};
	ret = conf_host_uuid(conf, auth->uuid);
	if (ret < 0)
		die("cannot start: %s/host_uuid: %s", conf->data_dir,
			strerror(-ret));
	auth->diag = diag_new(auth->loop, conf->diag.authd, &authd_diag_ops,
		&auth->metrics, auth);
	if (!auth->diag && errno)
		die("cannot start: diag.authd %s: %m", conf->diag.authd);
	loop_on_signal(auth->loop, SIGTERM, on_terminate, auth);
	loop_on_signal(auth->loop, SIGINT, on_terminate, auth);
	loop_on_signal(auth->loop, SIGHUP, on_hangup, &process);
	authd_start(auth);
	daemon_run(auth->loop);
	authd_deinit(auth);
	conf_free(conf);
	return 0;
}
