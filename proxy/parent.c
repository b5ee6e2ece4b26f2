/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proxy's first process: wiring of what parent.h lists, and its end.
 *
 * What a newcomer gets wrong: everything here happens before or beside the
 * traffic. A parent that is busy or gone delays no byte; but nobody would
 * replace a worker any more, so the workers end with it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
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
#include "shared/reload.h"

#define SOCKET_MODE 0660
#define KILL_MS 3000 /* after drain_timeout */
#define WATCH_MS 1000

/* --- workers --- */

static void order_drain(struct parent *parent, struct child *child)
{
	int64_t left = parent->drain_until - loop_now(parent->loop);
	Peerway__Ipc__Drain order = PEERWAY__IPC__DRAIN__INIT;

	order.on = parent->draining;
	order.timeout_ms = left > 0 ? (uint32_t)left : 0;
	if (child->up)
		ipc_link_send(child->link, IPC_DRAIN, &order.base, -1);
}

/* Workers start with the file of the parent's start, which fits the sockets
 * that they inherit, and take up of the newest what those do that ran. */
static void order_reload(struct parent *parent, struct child *child)
{
	Peerway__Ipc__Reload order = PEERWAY__IPC__RELOAD__INIT;
	int fd = fcntl(parent->reload_fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		log_error("worker not told of the configuration: %m worker=%u",
			child->number);
	else
		ipc_link_send(child->link, IPC_RELOAD, &order.base, fd);
}

void parent_worker_is_up(struct parent *parent, struct child *child)
{
	if (parent->reload_fd >= 0)
		order_reload(parent, child);
	if (parent->draining)
		order_drain(parent, child);
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

static void on_watch(void *arg)
{
	struct parent *parent = arg;

	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		child_watch(&parent->children[i]);
	timer_set(parent->watch, WATCH_MS);
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

/* Not by another signal to the workers: one to the whole group of processes has
 * reached them beside ours. */
static void hurry(struct parent *parent, int signal)
{
	Peerway__Ipc__Drain order = PEERWAY__IPC__DRAIN__INIT;

	log_info("stopping at once: signal=%d", signal);
	order.on = true;
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		if (parent->children[i].up)
			ipc_link_send(parent->children[i].link, IPC_DRAIN,
				&order.base, -1);
	timer_set(parent->kill, KILL_MS);
}

static void on_stop(int signal, void *arg)
{
	struct parent *parent = arg;

	if (parent->stopping) {
		hurry(parent, signal);
		return;
	}
	parent->stopping = true;
	if (!parent->draining)
		parent->drain_until = loop_now(parent->loop) +
				      parent->conf->proxy.drain_timeout;
	metric_set(&parent->metrics, PROXY_DRAINING, 1);
	log_info("stopping: signal=%d", signal);
	daemon_stopping((int64_t)parent->conf->proxy.drain_timeout + KILL_MS);
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		child_close_sockets(&parent->children[i]);
	end_all(parent, SIGTERM);
	timer_set(parent->kill,
		(int64_t)parent->conf->proxy.drain_timeout + KILL_MS);
	if (!any_running(parent))
		loop_stop(parent->loop);
}

/* --- reloading --- */

static void apply(void *arg, const struct conf_changes *changes)
{
	struct parent *parent = arg;

	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		if (conf_taken(changes, "proxy_service.handshake_timeout"))
			child_defer_accept(&parent->children[i]);
		if (parent->children[i].up)
			order_reload(parent, &parent->children[i]);
	}
}

static void on_hangup(int signal, void *arg)
{
	struct parent *parent = arg;
	int before = parent->reload_fd;
	char path[64];

	if (parent->stopping)
		return;
	/* the very bytes that are found good go to the workers */
	parent->reload_fd = spawn_keep_file(parent->config_path);
	if (parent->reload_fd < 0) {
		log_error("configuration stays as it was: %s: %s",
			parent->config_path, strerror(-parent->reload_fd));
		parent->reload_fd = before;
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", parent->reload_fd);
	if (!reload(&(struct reload){
		    .conf = parent->conf,
		    .name = parent->config_path,
		    .path = path,
		    .daemon = CONF_PROXY,
		    .ready = parent->ready,
		    .apply = apply,
		    .arg = parent,
	    })) {
		close(parent->reload_fd);
		parent->reload_fd = before;
	} else if (before >= 0) {
		close(before);
	}
}

/* --- draining --- */

bool parent_is_draining(const struct parent *parent)
{
	return parent->draining || parent->stopping;
}

static void set_draining(struct parent *parent, bool draining)
{
	if (draining && !parent->draining)
		parent->drain_until = loop_now(parent->loop) +
				      parent->conf->proxy.drain_timeout;
	if (draining != parent->draining)
		log_info(draining ? "draining by order: drain_timeout_ms=%u"
				  : "serving again by order",
			parent->conf->proxy.drain_timeout);
	parent->draining = draining;
	metric_set(
		&parent->metrics, PROXY_DRAINING, parent_is_draining(parent));
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++)
		order_drain(parent, &parent->children[i]);
}

static void handle_drain(struct ctl_call *call, void *arg, json_t *args)
{
	set_draining(arg, true);
	status_answer(call, arg, args);
}

static void handle_undrain(struct ctl_call *call, void *arg, json_t *args)
{
	struct parent *parent = arg;

	if (parent->stopping) {
		ctl_fail(
			call, "this proxy is stopping, which cannot be undone");
		return;
	}
	set_draining(parent, false);
	status_answer(call, arg, args);
}

/* --- proxy.sock, diagnostics --- */

static const struct ctl_verb verbs[] = {
	{"status", status_answer},
	{"drain", handle_drain},
	{"undrain", handle_undrain},
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

static const struct diag_ops diag_ops = {
	.missing = status_missing, .lag = PROXY_LAG};

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
	timer_free(parent->watch);
	metrics_deinit(&parent->metrics);
	munmap(parent->metrics_memory, parent->metrics_bytes);
	close(parent->metrics_fd);
	close(parent->config_fd);
	if (parent->reload_fd >= 0)
		close(parent->reload_fd);
	loop_free(parent->loop);
}

int parent_run(struct conf *conf, const char *config_path)
{
	struct parent *parent = xcalloc(1, sizeof(*parent));

	parent->conf = conf;
	parent->config_path = config_path;
	parent->reload_fd = -1;
	daemon_raise_fd_limit();
	parent->config_fd = spawn_keep_file(config_path);
	if (parent->config_fd < 0)
		die("cannot read %s: %s", config_path,
			strerror(-parent->config_fd));
	parent->loop = loop_new();
	parent->kill = timer_new(parent->loop, on_kill, parent);
	parent->watch = timer_new(parent->loop, on_watch, parent);
	make_metrics(parent);
	make_children(parent);
	serve(parent);
	loop_on_signal(parent->loop, SIGCHLD, on_child, parent);
	loop_on_signal(parent->loop, SIGTERM, on_stop, parent);
	loop_on_signal(parent->loop, SIGINT, on_stop, parent);
	loop_on_signal(parent->loop, SIGHUP, on_hangup, parent);
	for (uint32_t i = 0; i < conf->proxy.workers; i++)
		child_start(&parent->children[i]);
	timer_set(parent->watch, WATCH_MS);
	log_info("started: pid=%ld workers=%u clients=%s tunnels=%s",
		(long)getpid(), conf->proxy.workers, conf->proxy.listen_addr,
		conf->proxy.tunnel_listen_addr);
	daemon_run(parent->loop);
	parent_deinit(parent);
	free(parent);
	log_info("ended");
	return 0;
}
