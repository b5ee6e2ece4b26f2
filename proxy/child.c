/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's process and what outlives it. Owns the worker's listening sockets:
 * they form one SO_REUSEPORT set per worker, the kernel spreads connections
 * over the sets, and what waits in a dead worker's queue is accepted by its
 * replacement.
 *
 * What a newcomer gets wrong: the link to a worker carries no requests. It is
 * there so that each side sees the other's death, whatever kind of death.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy/child.h"
#include "proxy/inherit.h"
#include "proxy/parent.h"
#include "proxy/spawn.h"
#include "shared/alloc.h"
#include "shared/ipc_link.h"
#include "shared/log.h"
#include "shared/sock.h"

#define BACKLOG 4096
#define TLS_SOCKETS (INHERIT_TCP - INHERIT_CLIENTS) /* the first ones */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define HEALTHY_MS 10000 /* a worker that lived so long restarts at once */
#define STILL_MAX_S 30

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

/* The same where TLS is spoken. Who has said nothing yet waits in the kernel:
 * in a storm the agents whose ClientHello is still to come would take all of
 * max_handshakes, and clients would wait behind them. */
static int open_tls_socket(
	const struct conf_proxy *conf, const char *key, const char *text)
{
	int fd = open_socket(key, text);

	sock_defer_accept(fd, (conf->handshake_timeout + 999) / 1000);
	return fd;
}

void child_defer_accept(struct child *child)
{
	const struct conf_proxy *conf = &child->parent->conf->proxy;

	for (size_t n = 0; child->sockets && n < TLS_SOCKETS; n++)
		sock_defer_accept(child->sockets[n],
			(int)(conf->handshake_timeout + 999) / 1000);
}

static void open_sockets(struct child *child)
{
	const struct conf_proxy *conf = &child->parent->conf->proxy;
	size_t n = 0;

	child->socket_count =
		INHERIT_TCP - INHERIT_CLIENTS + conf->tcp_listeners_count;
	child->sockets = xcalloc(child->socket_count, sizeof(int));
	child->sockets[n++] =
		open_tls_socket(conf, "listen_addr", conf->listen_addr);
	child->sockets[n++] = open_tls_socket(
		conf, "tunnel_listen_addr", conf->tunnel_listen_addr);
	for (unsigned i = 0; i < conf->tcp_listeners_count; i++)
		child->sockets[n++] = open_socket(
			"tcp_listeners", conf->tcp_listeners[i].listen);
}

void child_close_sockets(struct child *child)
{
	for (size_t n = 0; child->sockets && n < child->socket_count; n++)
		close(child->sockets[n]);
	free(child->sockets);
	child->sockets = NULL;
}

static void on_up(struct ipc_link *link, void *arg)
{
	struct child *child = arg;

	child->up = true;
	child->up_since = time(NULL);
	log_info("worker is up: worker=%u pid=%ld", child->number,
		(long)child->pid);
	parent_worker_is_up(child->parent, child);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct child *child = arg;

	/* freed by the link itself; its process is reaped by child_reap() */
	if (child->link == link)
		child->link = NULL;
	child->up = false;
}

static const struct ipc_handlers from_worker[] = {
	{0, NULL}, /* it only has to be there */
};

static const struct ipc_link_ops link_ops = {
	.handlers = from_worker,
	.on_up = on_up,
	.on_down = on_down,
};

static void spawn_failed(struct child *child, const char *why)
{
	log_error("worker not started: %s worker=%u", why, child->number);
	child->backoff_ms = BACKOFF_MAX_MS;
	timer_set(child->respawn, child->backoff_ms);
}

void child_start(struct child *child)
{
	struct parent *parent = child->parent;
	struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_PROXY,
		.workers = parent->conf->proxy.workers};
	size_t count = INHERIT_CLIENTS - INHERIT_LINK + child->socket_count;
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
		child->socket_count * sizeof(int));
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
	child->still_s = 0;
	child->link =
		ipc_link_adopt(parent->loop, pair[0], &self, &link_ops, child);
}

static void on_respawn(void *arg)
{
	child_start(arg);
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

static void died(struct child *child, int status)
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

void child_reap(struct child *child)
{
	int status;

	if (child->pid && waitpid(child->pid, &status, WNOHANG) == child->pid)
		died(child, status);
}

/* Its loop counts how late it is once a second (lag.h). Seconds are those of
 * our own loop: if we stood still as well, nobody is blamed. */
void child_watch(struct child *child)
{
	uint64_t beats = metric_observed(
		&child->parent->metrics, child->number, PROXY_LAG);

	if (!child->pid || beats != child->beats) {
		child->beats = beats;
		child->still_s = 0;
		return;
	}
	if (++child->still_s < STILL_MAX_S)
		return;
	log_error("worker stands still, killed: seconds=%u worker=%u pid=%ld",
		child->still_s, child->number, (long)child->pid);
	child->still_s = 0;
	kill(child->pid, SIGKILL);
}

void child_end(struct child *child, int signal)
{
	timer_clear(child->respawn);
	if (child->pid)
		kill(child->pid, signal);
}

void child_init(struct child *child, struct parent *parent, uint32_t number)
{
	child->parent = parent;
	child->number = number;
	child->respawn = timer_new(parent->loop, on_respawn, child);
	open_sockets(child);
}

void child_deinit(struct child *child)
{
	ipc_link_free(child->link);
	timer_free(child->respawn);
	child_close_sockets(child);
}
