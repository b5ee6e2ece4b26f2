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
#include "auth/backend_sqlite.h"
#include "auth/control.h"
#include "auth/service.h"
#include "shared/alloc.h"
#include "shared/daemon.h"
#include "shared/log.h"

const struct metric authd_metrics[AUTHD_METRICS] = {
	[METRIC_JOINS] = {"peerway_authd_joins_total", "result=\"ok\"",
		"Hosts and agents that asked to join."},
	[METRIC_JOINS_REFUSED] = {"peerway_authd_joins_total",
		"result=\"refused\"", NULL},
	[METRIC_RENEWALS] = {"peerway_authd_renewals_total", "result=\"ok\"",
		"Certificates asked to be renewed."},
	[METRIC_RENEWALS_REFUSED] = {"peerway_authd_renewals_total",
		"result=\"refused\"", NULL},
	[METRIC_USERS] = {"peerway_authd_user_certificates_total", NULL,
		"Certificates issued to users."},
	[METRIC_GRANTS] = {"peerway_authd_lease_grants_total", NULL,
		"Leases granted: starts of routed."},
	[METRIC_BATCHES] = {"peerway_authd_batches_total", "result=\"ok\"",
		"Batches of records that proxies published."},
	[METRIC_BATCHES_REFUSED] = {"peerway_authd_batches_total",
		"result=\"refused\"", NULL},
	[METRIC_WATCHERS] = {"peerway_authd_watchers", NULL,
		"Proxies that watch the records.", true},
	[METRIC_SNAPSHOTS] = {"peerway_authd_snapshots_total", NULL,
		"Snapshots sent to watchers that could not resume."},
	[METRIC_WATCHERS_DROPPED] = {"peerway_authd_watchers_dropped_total",
		NULL, "Watchers dropped: too slow, or the store away."},
};

static char *missing(void *arg)
{
	struct authd *auth = arg;
	struct backend_info info;

	backend_info(auth->backend, &info);
	if (info.failing)
		return xstrdup("store: the last write failed\n");
	return auth->server ? NULL : xstrdup("service: not listening\n");
}

static char *more_metrics(void *arg)
{
	struct authd *auth = arg;
	struct backend_info info;

	backend_info(auth->backend, &info);
	return xasprintf(
		"# HELP peerway_authd_leases Leases kept alive by proxies.\n"
		"# TYPE peerway_authd_leases gauge\n"
		"peerway_authd_leases %u\n"
		"# HELP peerway_authd_store_revision Changes so far.\n"
		"# TYPE peerway_authd_store_revision gauge\n"
		"peerway_authd_store_revision %llu\n"
		"# HELP peerway_authd_store_log_bytes Kept to resume from.\n"
		"# TYPE peerway_authd_store_log_bytes gauge\n"
		"peerway_authd_store_log_bytes %llu\n"
		"# HELP peerway_authd_store_failing Last write failed.\n"
		"# TYPE peerway_authd_store_failing gauge\n"
		"peerway_authd_store_failing %d\n",
		info.leases, (unsigned long long)info.revision,
		(unsigned long long)info.log_bytes, info.failing);
}

static const struct diag_ops diag_ops = {missing, more_metrics};

/* data_dir/authd, which holds the CAs' keys, is nobody else's. */
static struct backend *open_store(struct loop *loop, const struct conf *conf)
{
	char *dir = xasprintf("%s/authd", conf->data_dir);
	char *path = xasprintf("%s/backend.db", dir);
	struct backend_sqlite_options options = {.path = path};
	struct backend *backend;
	char *error = NULL;

	if ((mkdir(conf->data_dir, 0755) < 0 && errno != EEXIST) ||
		(mkdir(dir, 0700) < 0 && errno != EEXIST) ||
		chmod(dir, 0700) < 0)
		die("cannot start: %s: %s", dir, strerror(errno));
	backend = backend_sqlite_new(loop, &options, &error);
	if (!backend)
		die("cannot start: %s", error);
	free(path);
	free(dir);
	return backend;
}

static void on_stopped(void *arg)
{
	struct authd *auth = arg;

	loop_stop(auth->loop);
}

static void on_terminate(int signal, void *arg)
{
	struct authd *auth = arg;

	log_info("stopping: signal=%d", signal);
	daemon_notify("STOPPING=1");
	if (auth->server)
		service_stop(auth, on_stopped);
	else
		loop_stop(auth->loop);
}

static void authd_deinit(struct authd *auth)
{
	control_stop(auth);
	diag_free(auth->diag);
	timer_free(auth->renewal);
	/* calls that were waiting for the store are answered, to nobody */
	backend_free(auth->backend);
	rpc_cq_free(auth->cq);
	rpc_identity_free(auth->identity);
	ca_pair_free(auth->cas);
	metrics_deinit(&auth->metrics);
	loop_free(auth->loop);
}

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct conf *conf = daemon_start(
		argc, argv, "authd", "Peerway's Auth Service", false, &options);
	struct authd auth = {.conf = conf};
	int ret;

	if (!conf->auth.enabled)
		die("cannot start: auth_service.enabled is not set");
	TAILQ_INIT(&auth.watchers);
	daemon_raise_fd_limit();
	auth.loop = loop_new();
	auth.started = loop_now(auth.loop);
	metrics_init(&auth.metrics, authd_metrics, AUTHD_METRICS, 1, 0, NULL);
	auth.backend = open_store(auth.loop, conf);
	ret = conf_host_uuid(conf, auth.uuid);
	if (ret < 0)
		die("cannot start: %s/host_uuid: %s", conf->data_dir,
			strerror(-ret));
	auth.diag = diag_new(
		auth.loop, conf->diag.authd, &diag_ops, &auth.metrics, &auth);
	if (!auth.diag && errno)
		die("cannot start: diag.authd %s: %m", conf->diag.authd);
	rpc_require_tls13();
	auth.cq = rpc_cq_new(auth.loop, 1);
	loop_on_signal(auth.loop, SIGTERM, on_terminate, &auth);
	loop_on_signal(auth.loop, SIGINT, on_terminate, &auth);
	authd_start(&auth);
	loop_run(auth.loop);
	authd_deinit(&auth);
	conf_free(conf);
	return 0;
}
