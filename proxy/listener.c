/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's listening sockets. The parent holds them too, so closing one here
 * loses no connection that waits in its queue.
 *
 * What a newcomer gets wrong: at the descriptor limit accept() fails but the
 * socket stays readable, so a listener that is not paused spins. And a worker
 * that accepts up to its last descriptor can dial nothing for those whom it
 * let in: hence the reserve.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/listener.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define ACCEPTS_PER_TURN 32
/* Descriptors kept for dials, the cache and links. The kernel gives the lowest
 * free number, so the number tells how many are in use. */
#define FD_RESERVE 64
/* So long without a shortage, and it is over. */
#define CALM_MS 5000

struct listener {
	TAILQ_ENTRY(listener) entry;
	struct worker *worker;
	int fd;
	struct event *ev;
	bool paused;
	const struct listener_ops *ops;
	void *arg;
};

static void pause_listener(struct listener *listener)
{
	if (listener->paused)
		return;
	listener->paused = true;
	event_del(listener->ev);
	metric_add(&listener->worker->metrics, PROXY_LISTENERS_PAUSED, 1);
}

/* Said once: around the limit, each end of a connection lets one more in. */
static void fds_run_short(struct worker *worker, const char *why)
{
	if (!worker->fds_short_at)
		log_warn("accepting paused: %s limit=%ld clients=%u tunnels=%u",
			why, worker->fd_limit, worker->client_count,
			worker->tunnel_count);
	worker->fds_short_at = loop_now(worker->loop);
}

/* Whether to try the next one. */
static bool accept_one(struct listener *listener)
{
	struct worker *worker = listener->worker;
	struct sock_addr from = {.len = sizeof(from.ss)};
	int fd;

	if (!listener->ops->admit(worker)) {
		pause_listener(listener);
		return false;
	}
	fd = accept4(listener->fd, (struct sockaddr *)&from.ss, &from.len,
		SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		if (fd >= worker->fd_limit - FD_RESERVE) {
			fds_run_short(worker, "few descriptors are left");
			pause_listener(listener);
		}
		listener->ops->on_accept(worker, listener->arg, fd, &from);
		return !listener->paused;
	}
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		fds_run_short(worker, strerror(errno));
		pause_listener(listener);
		return false;
	default: /* a connection that died in the queue: accept(2) */
		return true;
	}
}

static void on_readable(evutil_socket_t fd, short events, void *arg)
{
	for (int i = 0; i < ACCEPTS_PER_TURN && accept_one(arg); i++)
		;
}

void listener_start(struct worker *worker, int fd,
	const struct listener_ops *ops, void *arg)
{
	struct listener *listener = xcalloc(1, sizeof(*listener));

	listener->worker = worker;
	listener->fd = fd;
	listener->ops = ops;
	listener->arg = arg;
	listener->ev = event_new(loop_base(worker->loop), fd,
		EV_READ | EV_PERSIST, on_readable, listener);
	if (!listener->ev || event_add(listener->ev, NULL) < 0)
		fatal("cannot watch a listening socket: %m");
	TAILQ_INSERT_TAIL(&worker->listeners, listener, entry);
}

void listener_tick(struct worker *worker)
{
	listener_resume_all(worker);
	if (!worker->fds_short_at ||
		loop_now(worker->loop) - worker->fds_short_at < CALM_MS)
		return;
	worker->fds_short_at = 0;
	log_info("accepting again: descriptors are free");
}

void listener_resume_all(struct worker *worker)
{
	struct listener *listener;

	TAILQ_FOREACH (listener, &worker->listeners, entry) {
		if (!listener->paused || !listener->ops->admit(worker))
			continue;
		listener->paused = false;
		event_add(listener->ev, NULL);
		metric_add(&worker->metrics, PROXY_LISTENERS_PAUSED, -1);
	}
}

static void free_listener(void *arg)
{
	struct listener *listener = arg;

	event_free(listener->ev);
	close(listener->fd);
	if (listener->ops->release)
		listener->ops->release(listener->arg);
	free(listener);
}

void listener_stop_all(struct worker *worker)
{
	struct listener *listener;

	while ((listener = TAILQ_FIRST(&worker->listeners))) {
		TAILQ_REMOVE(&worker->listeners, listener, entry);
		event_del(listener->ev);
		loop_free_later(worker->loop, free_listener, listener);
	}
}
