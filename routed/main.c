/* SPDX-License-Identifier: Apache-2.0 */
/*
 * routed: joins this proxy host to the cluster and keeps its certificate,
 * mirrors authd's records into the cache that proxy and peerd read, publishes
 * the host's tunnels. Wiring only: routed.c has what hangs on what.
 */

#include <signal.h>
#include <string.h>

#include "routed/control.h"
#include "routed/routed.h"
#include "shared/daemon.h"
#include "shared/diag.h"
#include "shared/log.h"
#include "shared/reload.h"

static void on_terminate(int number, void *arg)
{
	struct routed *routed = arg;

	daemon_stopping(routed->conf->proxy.drain_timeout);
	routed_drain(routed);
}

struct process {
	struct routed routed;
	struct conf *conf;
	const char *config_path;
};

/* Everything else of this is read from conf whenever it is needed. */
static void apply(void *arg, const struct conf_changes *changes)
{
	struct process *process = arg;
	const struct conf_proxy *proxy = &process->conf->proxy;

	publish_set_max(process->routed.publish,
		(size_t)proxy->workers * proxy->max_tunnels);
	membership_reload(process->routed.membership);
}

static void on_hangup(int signal, void *arg)
{
	struct process *process = arg;

	if (process->routed.draining)
		return;
	reload(&(struct reload){
		.conf = process->conf,
		.name = process->config_path,
		.daemon = CONF_ROUTED,
		.ready = true,
		.apply = apply,
		.arg = process,
	});
}

static const struct diag_ops diag_ops = {
	.missing = routed_missing,
	.more_metrics = routed_gauges,
	.lag = ROUTED_LAG,
};

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct conf *conf = daemon_start(argc, argv, "routed",
		"Mirrors routing records, publishes this host's tunnels, keeps "
		"its certificate.",
		false, &options);
	struct loop *loop = loop_new();
	struct process process = {
		.conf = conf, .config_path = options.config_path};
	struct routed *routed = &process.routed;
	struct diag *diag;
	char *error = NULL;

	if (!conf->proxy.enabled)
		die("proxy_service is not enabled on this host: routed has "
		    "nothing to do");
	daemon_raise_fd_limit();
	rpc_require_tls13();
	if (routed_start(routed, conf, loop, &error) < 0)
		die("cannot start: %s", error);
	ctl_serve(control_verbs, routed);
	diag = diag_new(
		loop, conf->diag.routed, &diag_ops, &routed->metrics, routed);
	if (!diag && conf->diag.routed[0])
		die("cannot listen for diagnostics: %m addr=%s",
			conf->diag.routed);
	loop_on_signal(loop, SIGTERM, on_terminate, routed);
	loop_on_signal(loop, SIGINT, on_terminate, routed);
	loop_on_signal(loop, SIGHUP, on_hangup, &process);
	log_info("started: id=%s cluster=%s", routed->proxy_id,
		conf->cluster_name);
	daemon_notify("READY=1");
	daemon_run(loop);
	diag_free(diag);
	routed_stop(routed);
	loop_free(loop);
	conf_free(conf);
	log_info("stopped");
	return 0;
}
