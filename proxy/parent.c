/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Supervision of the workers. Owns all listening sockets, one SO_REUSEPORT set
 * of them per worker: the kernel spreads connections over the sets, and what
 * waits in a dead worker's queue is accepted by its replacement.
 *
 * What a newcomer gets wrong: the link to a worker carries no requests. It is
 * there so that each side sees the other's death, whatever kind of death.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proxy/inherit.h"
#include "proxy/metrics.h"
#include "proxy/parent.h"
#include "proxy/spawn.h"
#include "shared/alloc.h"
#include "shared/ctl.h"
#include "shared/daemon.h"
#include "shared/diag.h"
#include "shared/ipc_link.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/sock.h"

#define BACKLOG 4096
#define SOCKET_MODE 0660
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define HEALTHY_MS 10000 /* a worker that lived so long restarts at once */
#define KILL_MS 3000	 /* after drain_timeout */

struct parent;

struct child {
	struct parent *parent;
	uint32_t number;
	int *sockets; /* in the order of inherit.h, kept for its life */
	pid_t pid;    /* 0: not running */
	struct ipc_link *link;
	bool up; /* has said HELLO */
	unsigned restarts;
	int64_t started; /* loop_now() */
	time_t up_since;
	int64_t backoff_ms;
	struct timer *respawn;
};

struct parent {
	const struct conf *conf;
	struct loop *loop;
	int config_fd;
	int metrics_fd;
	struct metrics metrics;
	void *metrics_memory;
	size_t metrics_bytes;
	struct ipc_server *server;
	struct diag *diag;
	size_t socket_count; /* of each worker */
	struct child *children;
	bool ready;
	bool stopping;
	struct timer *kill;
};

/* --- sockets --- */

static int open_socket(const char *key, const char *text)
{
	struct sock_addr addr;
	int fd = sock_parse(text, 0, &addr);

	if (!fd)
		fd = sock_listen(&addr, true, BACKLOG);
	if (fd < 0)
		die("cannot listen on %s %s: %s", key, text, strerror(-fd));
	return fd;
}

static void open_sockets(struct parent *parent, struct child *child)
{
	const struct conf_proxy *conf = &parent->conf->proxy;
	size_t n = 0;

	child->sockets = xcalloc(parent->socket_count, sizeof(int));
	child->sockets[n++] = open_socket("listen_addr", conf->listen_addr);
	child->sockets[n++] =
		open_socket("tunnel_listen_addr", conf->tunnel_listen_addr);
	for (unsigned i = 0; i < conf->tcp_listeners_count; i++)
		child->sockets[n++] = open_socket(
			"tcp_listeners", conf->tcp_listeners[i].listen);
}

static void close_sockets(struct parent *parent)
{
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		struct child *child = &parent->children[i];

		for (size_t n = 0; child->sockets && n < parent->socket_count;
			n++)
			close(child->sockets[n]);
		free(child->sockets);
		child->sockets = NULL;
	}
}

/* --- children --- */

static void on_worker_up(struct ipc_link *link, void *arg)
{
	struct child *child = arg;
	struct parent *parent = child->parent;

	child->up = true;
	child->up_since = time(NULL);
	log_info("worker is up: worker=%u pid=%ld", child->number,
		(long)child->pid);
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		if (!parent->children[i].up)
			return;
	}
	if (!parent->ready)
		daemon_notify("READY=1");
	parent->ready = true;
}

static void on_worker_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct child *child = arg;

	/* freed by the link itself; its process is reaped by on_child() */
	if (child->link == link)
		child->link = NULL;
	child->up = false;
}

static const struct ipc_handlers from_worker[] = {
	{0, NULL}, /* it only has to be there */
};

static const struct ipc_link_ops worker_ops = {
	.handlers = from_worker,
	.on_up = on_worker_up,
	.on_down = on_worker_down,
};

static void spawn_failed(struct child *child, const char *why)
{
	log_error("worker not started: %s worker=%u", why, child->number);
	child->backoff_ms = BACKOFF_MAX_MS;
	timer_set(child->respawn, child->backoff_ms);
}

static void start_worker(struct child *child)
{
	struct parent *parent = child->parent;
	struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_PROXY,
		.workers = parent->conf->proxy.workers};
	size_t count = INHERIT_CLIENTS - INHERIT_LINK + parent->socket_count;
	int *fds = xcalloc(count, sizeof(*fds));
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0, pair) < 0) {
		spawn_failed(child, strerror(errno));
		free(fds);
		return;
	}
	fds[0] = pair[1];
	fds[INHERIT_METRICS - INHERIT_LINK] = parent->metrics_fd;
	fds[INHERIT_CONF - INHERIT_LINK] = parent->config_fd;
	memcpy(&fds[INHERIT_CLIENTS - INHERIT_LINK], child->sockets,
		parent->socket_count * sizeof(int));
	pid = spawn_worker(child->number, fds, count);
	free(fds);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		spawn_failed(child, strerror(-pid));
		return;
	}
	child->pid = pid;
	child->started = loop_now(parent->loop);
	child->link = ipc_link_adopt(
		parent->loop, pair[0], &self, &worker_ops, child);
}

static void on_respawn(void *arg)
{
	start_worker(arg);
}

/* First at once, then slower while it dies young. */
static void restart_later(struct child *child)
{
	int64_t lived = loop_now(child->parent->loop) - child->started;
	int64_t wait = child->backoff_ms;

	if (lived >= HEALTHY_MS)
		wait = 0;
	child->backoff_ms = wait ? wait * 2 : BACKOFF_MIN_MS;
	if (child->backoff_ms > BACKOFF_MAX_MS)
		child->backoff_ms = BACKOFF_MAX_MS;
	child->restarts++;
	timer_set(child->respawn, wait);
}

static void worker_died(struct child *child, int status)
{
	struct parent *parent = child->parent;

	if (!parent->stopping)
		log_error("worker died: %s=%d worker=%u pid=%ld",
			WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status)
					    : WEXITSTATUS(status),
			child->number, (long)child->pid);
	child->pid = 0;
	child->up = false;
	ipc_link_free(child->link);
	child->link = NULL;
	metrics_clear_gauges(&parent->metrics, child->number);
	if (!parent->stopping)
		restart_later(child);
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
	int status;

	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		struct child *child = &parent->children[i];

		if (child->pid &&
			waitpid(child->pid, &status, WNOHANG) == child->pid)
			worker_died(child, status);
	}
	if (parent->stopping && !any_running(parent))
		loop_stop(parent->loop);
}

static void signal_all(struct parent *parent, int signal)
{
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		timer_clear(parent->children[i].respawn);
		if (parent->children[i].pid)
			kill(parent->children[i].pid, signal);
	}
}

static void on_kill(void *arg)
{
	log_warn("workers did not end in time: killed");
	signal_all(arg, SIGKILL);
}

static void on_stop(int signal, void *arg)
{
	struct parent *parent = arg;

	if (parent->stopping)
		return;
	parent->stopping = true;
	log_info("stopping: signal=%d", signal);
	daemon_notify("STOPPING=1");
	close_sockets(parent);
	signal_all(parent, SIGTERM);
	timer_set(parent->kill,
		(int64_t)parent->conf->proxy.drain_timeout + KILL_MS);
	if (!any_running(parent))
		loop_stop(parent->loop);
}

/* --- proxy.sock, diagnostics --- */

static json_t *time_text(time_t when)
{
	char text[32];
	struct tm tm;

	if (!when)
		return json_null();
	gmtime_r(&when, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static json_t *workers_json(const struct parent *parent)
{
	json_t *workers = json_array();

	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		const struct child *child = &parent->children[i];

		json_array_append_new(workers,
			json_pack("{s:i, s:i, s:i, s:o}", "worker",
				(int)child->number, "pid", (int)child->pid,
				"restarts", (int)child->restarts, "up_since",
				time_text(child->up ? child->up_since : 0)));
	}
	return workers;
}

static json_t *listen_json(const struct conf_proxy *conf)
{
	json_t *listen = json_pack("[{s:s, s:s}, {s:s, s:s}]", "addr",
		conf->listen_addr, "for", "clients", "addr",
		conf->tunnel_listen_addr, "for", "tunnels");

	for (unsigned i = 0; i < conf->tcp_listeners_count; i++)
		json_array_append_new(listen,
			json_pack("{s:s, s:s, s:s}", "addr",
				conf->tcp_listeners[i].listen, "for", "tcp",
				"target", conf->tcp_listeners[i].target));
	return listen;
}

static void verb_status(struct ctl_call *call, void *arg, json_t *args)
{
	struct parent *parent = arg;
	struct metrics *metrics = &parent->metrics;

	ctl_reply(
		call, json_pack("{s:i, s:s, s:o, s:I, s:I, s:I, s:b, s:o}",
			      "pid", (int)getpid(), "version", PEERWAY_VERSION,
			      "workers", workers_json(parent), "clients",
			      (json_int_t)metric_get(metrics, PROXY_CLIENTS),
			      "tunnels",
			      (json_int_t)metric_get(metrics, PROXY_TUNNELS),
			      "sessions",
			      (json_int_t)metric_get(metrics, PROXY_SESSIONS),
			      "stopping", parent->stopping, "listen",
			      listen_json(&parent->conf->proxy)));
}

static const struct ctl_verb verbs[] = {
	{"status", verb_status},
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

/* One line for each thing that fewer workers have than there are. */
static char *missing(void *arg)
{
	static const struct {
		enum proxy_metric metric;
		const char *what;
	} needs[] = {
		{PROXY_HAS_IDENTITY, "certificate"},
		{PROXY_HAS_CACHE, "routing cache"},
		{PROXY_LINK_PEERD, "link to peerd"},
		{PROXY_LINK_ROUTED, "link to routed"},
	};
	struct parent *parent = arg;
	unsigned workers = parent->conf->proxy.workers;
	char *text = NULL;

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		int64_t have = metric_get(&parent->metrics, needs[i].metric);
		char *before = text;

		if (have >= workers)
			continue;
		text = xasprintf("%s%s: %lld of %u workers\n",
			before ? before : "", needs[i].what, (long long)have,
			workers);
		free(before);
	}
	return text;
}

static const struct diag_ops diag_ops = {.missing = missing};

/* --- start and end --- */

static void make_metrics(struct parent *parent)
{
	size_t slots = parent->conf->proxy.workers + 1;

	parent->metrics_bytes = metrics_size(PROXY_METRICS, slots);
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

	parent->socket_count = INHERIT_TCP - INHERIT_CLIENTS +
			       parent->conf->proxy.tcp_listeners_count;
	parent->children = xcalloc(workers, sizeof(*parent->children));
	for (uint32_t i = 0; i < workers; i++) {
		struct child *child = &parent->children[i];

		child->parent = parent;
		child->number = i;
		child->respawn = timer_new(parent->loop, on_respawn, child);
		open_sockets(parent, child);
	}
}

static void parent_deinit(struct parent *parent)
{
	close_sockets(parent);
	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		ipc_link_free(parent->children[i].link);
		timer_free(parent->children[i].respawn);
	}
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
		start_worker(&parent->children[i]);
	log_info("started: pid=%ld workers=%u clients=%s tunnels=%s",
		(long)getpid(), conf->proxy.workers, conf->proxy.listen_addr,
		conf->proxy.tunnel_listen_addr);
	loop_run(parent->loop);
	parent_deinit(parent);
	free(parent);
	log_info("ended");
	return 0;
}
