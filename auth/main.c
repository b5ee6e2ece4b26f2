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
	free(path);
	free(dir);
	if (!backend)
		die("cannot start: %s", error);
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
	auth.diag = diag_new(auth.loop, conf->diag.authd, &authd_diag_ops,
		&auth.metrics, &auth);
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
