/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peerd: the mesh between the proxies of a cluster and the switchboard of this
 * host's proxy workers. Wiring only; docs/architecture.md follows one
 * connection through it.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "peerd/channel.h"
#include "peerd/control.h"
#include "peerd/ext.h"
#include "peerd/inquiry.h"
#include "peerd/lifecycle.h"
#include "peerd/lookup.h"
#include "peerd/meters.h"
#include "peerd/peers.h"
#include "peerd/switchboard.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"
#include "shared/daemon.h"
#include "shared/diag.h"
#include "shared/log.h"
#include "shared/reload.h"

static const struct diag_ops diag_ops = {
	.missing = lifecycle_missing,
	.more_metrics = meters_more,
	.lag = METER_LAG,
};

/* Measured: without these, a third of a receiver's time goes into giving pages
 * back and faulting them in again. Before the first thread. */
static void tune_malloc(void)
{
	mallopt(M_TRIM_THRESHOLD, 128 << 20);
	mallopt(M_TOP_PAD, 4 << 20);
	mallopt(M_MMAP_THRESHOLD, 8 << 20);
}

static void start_grpc(struct peerd *peerd)
{
	if (strcmp(peerd->conf->proxy.min_tls, "1.3") == 0)
		rpc_require_tls13();
	peerd->cq = rpc_cq_new(peerd->loop, 1);
	peerd->quota = grpc_resource_quota_create("peerd");
	grpc_resource_quota_resize(
		peerd->quota, peerd->conf->proxy.peer_memory_max);
	peerd->yard = channel_yard_new();
}

static void start(struct peerd *peerd)
{
	char *path = xasprintf("%s/peerd.sock", peerd->conf->run_dir);
	int ret = conf_host_uuid(peerd->conf, peerd->id);

	if (ret < 0)
		die("no host uuid: %s: %s", peerd->conf->data_dir,
			strerror(-ret));
	peerd->loop = loop_new();
	peerd->started = loop_now(peerd->loop);
	metrics_init(&peerd->metrics, meters_table, METER_COUNT, 1, 0, NULL);
	start_grpc(peerd);
	peerd->hub.loop = peerd->loop;
	peerd->hub.edges = edges_new(peerd->loop);
	peerd->hub.partings = partings_new(peerd->loop);
	peerd->hub.metrics = &peerd->metrics;
	peerd->hub.rpc = &peerd->rpc;
	peerd->hub.credit.max = (int64_t)peerd->conf->proxy.peer_memory_max;
	peerd->ext = peerd->conf->proxy.peer_plain ? 0 : EXT_ALL;
	peerd->peers = peers_new(peerd);
	peerd->inquiries = inquiries_new(peerd);
	peerd->lookups = lookups_new(peerd);
	peerd->switchboard = switchboard_new(peerd);
	control_serve(peerd);
	peerd->workers = worker_links_new(peerd, path);
	if (!peerd->workers)
		die("cannot listen: %s: %m", path);
	peerd->lifecycle = lifecycle_new(peerd);
	free(path);
}

/* The reverse. Channels are freed while the queue is drained. */
static void stop(struct peerd *peerd)
{
	inquiries_free(peerd->inquiries);
	worker_links_free(peerd->workers);
	lookups_free(peerd->lookups);
	lifecycle_free(peerd->lifecycle);
	switchboard_free(peerd->switchboard);
	peers_free(peerd->peers);
	channel_yard_close(peerd->yard);
	grpc_resource_quota_unref(peerd->quota);
	rpc_cq_free(peerd->cq);
	rpc_identity_free(peerd->identity);
	channel_yard_free(peerd->yard);
	partings_free(peerd->hub.partings);
	edges_free(peerd->hub.edges);
	loop_turn(peerd->loop, false);
	metrics_deinit(&peerd->metrics);
	loop_free(peerd->loop);
}

struct process {
	struct peerd peerd;
	struct conf *conf;
	const char *config_path;
};

/* Everything else of this is read from conf whenever it is needed. */
static void apply(void *arg, const struct conf_changes *changes)
{
	struct process *process = arg;
	struct peerd *peerd = &process->peerd;
	uint64_t max = process->conf->proxy.peer_memory_max;

	if (!conf_taken(changes, "proxy_service.peer_memory_max"))
		return;
	grpc_resource_quota_resize(peerd->quota, max);
	peerd->hub.credit.max = (int64_t)max;
}

static void on_hangup(int signal, void *arg)
{
	struct process *process = arg;

	if (lifecycle_is_draining(process->peerd.lifecycle))
		return;
	reload(&(struct reload){
		.conf = process->conf,
		.name = process->config_path,
		.daemon = CONF_PEERD,
		.ready = true,
		.apply = apply,
		.arg = process,
	});
}

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct conf *conf = daemon_start(argc, argv, "peerd",
		"the mesh between proxies", false, &options);
	struct process process = {.peerd = {.conf = conf},
		.conf = conf,
		.config_path = options.config_path};
	struct peerd *peerd = &process.peerd;
	struct diag *diag;

	if (!conf->proxy.enabled)
		die("proxy_service is not enabled: peerd has nothing to do");
	tune_malloc();
	daemon_raise_fd_limit();
	start(peerd);
	loop_on_signal(peerd->loop, SIGHUP, on_hangup, &process);
	diag = diag_new(peerd->loop, conf->diag.peerd, &diag_ops,
		&peerd->metrics, peerd);
	if (!diag && conf->diag.peerd[0])
		die("cannot listen: diag.peerd %s: %m", conf->diag.peerd);
	log_info("started: proxy=%s version=%s", peerd->id, PEERWAY_VERSION);
	daemon_notify("READY=1");
	daemon_run(peerd->loop);
	diag_free(diag);
	stop(peerd);
	log_info("stopped");
	conf_free(conf);
	return 0;
}
