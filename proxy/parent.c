/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proxy's first process: wiring of what parent.h lists, and its end.
 *
 * What a newcomer gets wrong: everything here happens before or beside the
 * traffic. A parent that is busy or gone delays no byte; but nobody would
 * replace a worker any more, so the workers end with it.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy/parent.h"
#include "proxy/spawn.h"
#include "proxy/status.h"
#include "shared/alloc.h"
#include "shared/ctl.h"
#include "shared/daemon.h"
#include "shared/diag.h"
#include "shared/ipc_link.h"
#include "shared/log.h"

#define SOCKET_MODE 0660
#define KILL_MS 3000 /* after drain_timeout */

/* --- workers --- */

void parent_worker_is_up(struct parent *parent)
{
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		if (!parent->children[i].up)
			return;
	}
	if (!parent->ready)
		daemon_notify("READY=1");
	parent->ready = true;
}

static bool any_running(const struct parent *parent)
{
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		if (parent->children[i].pid)
			return true;
	}
	return false;
}

static void on_child(int signal, void *arg)
{
	struct parent *parent = arg;

	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		child_reap(&parent->children[i]);
	if (parent->stopping && !any_running(parent))
		loop_stop(parent->loop);
}

static void end_all(struct parent *parent, int signal)
{
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		child_end(&parent->children[i], signal);
}

static void on_kill(void *arg)
{
	log_warn("workers did not end in time: killed");
	end_all(arg, SIGKILL);
}

static void on_stop(int signal, void *arg)
{
	struct parent *parent = arg;

	if (parent->stopping)
		return;
	parent->stopping = true;
	log_info("stopping: signal=%d", signal);
	daemon_notify("STOPPING=1");
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		child_close_sockets(&parent->children[i]);
	end_all(parent, SIGTERM);
	timer_set(parent->kill,
		(int64_t)parent->conf->proxy.drain_timeout + KILL_MS);
	if (!any_running(parent))
		loop_stop(parent->loop);
}

/* --- proxy.sock, diagnostics --- */

static const struct ctl_verb verbs[] = {
	{"status", status_answer},
	{NULL, NULL},
};

/* What peerctl may say to us. Anything else drops the link. */
static const struct ipc_handlers from_ctl[] = {
	{IPC_CTL_REQUEST, ctl_handle_request},
	{0, NULL},
};

static void on_ctl_down(struct ipc_link *link, void *arg, const char *reason)
{
	ctl_link_gone(link);
}

static const struct ipc_link_ops ctl_ops = {
	.handlers = from_ctl,
	.on_down = on_ctl_down,
};

static const struct diag_ops diag_ops = {.missing = status_missing};

/* --- start and end --- */

static void make_metrics(struct parent *parent)
{
	size_t slots = parent->conf->proxy.workers + 1;

	parent->metrics_bytes =
		metrics_size(proxy_metrics, PROXY_METRICS, slots);
	parent->metrics_fd = memfd_create("peerway-metrics", MFD_CLOEXEC);
	if (parent->metrics_fd < 0 ||
		ftruncate(parent->metrics_fd, (off_t)parent->metrics_bytes) < 0)
		die("cannot make the metrics: %m");
	parent->metrics_memory = mmap(NULL, parent->metrics_bytes,
		PROT_READ | PROT_WRITE, MAP_SHARED, parent->metrics_fd, 0);
	if (parent->metrics_memory == MAP_FAILED)
		die("cannot map the metrics: %m");
	metrics_init(&parent->metrics, proxy_metrics, PROXY_METRICS, slots,
		slots - 1, parent->metrics_memory);
}

static void serve(struct parent *parent)
{
	const struct conf *conf = parent->conf;
	struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_PROXY,
		.workers = conf->proxy.workers};
	char *path = xasprintf("%s/proxy.sock", conf->run_dir);

	ctl_serve(verbs, parent);
	parent->server = ipc_server_new(
		parent->loop, path, SOCKET_MODE, &self, &ctl_ops, parent);
	if (!parent->server)
		die("cannot listen on %s: %m", path);
	free(path);
	parent->diag = diag_new(parent->loop, conf->diag.proxy, &diag_ops,
		&parent->metrics, parent);
	if (!parent->diag && *conf->diag.proxy)
		die("cannot listen on diag.proxy %s: %m", conf->diag.proxy);
}

static void make_children(struct parent *parent)
{
	uint32_t workers = parent->conf->proxy.workers;

	parent->children = xcalloc(workers, sizeof(*parent->children));
	for (uint32_t i = 0; i < workers; i++)
		child_init(&parent->children[i], parent, i);
}

static void parent_deinit(struct parent *parent)
{
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		child_deinit(&parent->children[i]);
	free(parent->children);
	diag_free(parent->diag);
	ipc_server_free(parent->server);
	timer_free(parent->kill);
	metrics_deinit(&parent->metrics);
	munmap(parent->metrics_memory, parent->metrics_bytes);
	close(parent->metrics_fd);
	close(parent->config_fd);
	loop_free(parent->loop);
}

int parent_run(const struct conf *conf, const char *config_path)
{
	struct parent *parent = xcalloc(1, sizeof(*parent));

	parent->conf = conf;
	daemon_raise_fd_limit();
	parent->config_fd = spawn_keep_file(config_path);
	if (parent->config_fd < 0)
		die("cannot read %s: %s", config_path,
			strerror(-parent->config_fd));
	parent->loop = loop_new();
	parent->kill = timer_new(parent->loop, on_kill, parent);
	make_metrics(parent);
	make_children(parent);
	serve(parent);
	loop_on_signal(parent->loop, SIGCHLD, on_child, parent);
	loop_on_signal(parent->loop, SIGTERM, on_stop, parent);
	loop_on_signal(parent->loop, SIGINT, on_stop, parent);
	for (uint32_t i = 0; i < conf->proxy.workers; i++)
		child_start(&parent->children[i]);
	log_info("started: pid=%ld workers=%u clients=%s tunnels=%s",
		(long)getpid(), conf->proxy.workers, conf->proxy.listen_addr,
		conf->proxy.tunnel_listen_addr);
	loop_run(parent->loop);
	parent_deinit(parent);
	free(parent);
	log_info("ended");
	return 0;
}
