/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An epoll set inside libevent's, for the relayed descriptors. libevent would
 * want an event object and a lock for each, and re-arms; this is one system
 * call per descriptor's life. Owns the epoll descriptor only.
 *
 * A newcomer's trap: the outer watch is level-triggered on purpose. What a
 * batch leaves in the inner set keeps it readable, so nothing is forgotten.
 */
#include "peerd/edges.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/log.h"

#define BATCH 128

struct edges {
	int epoll_fd;
	struct event *ev;
};

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct epoll_event events[BATCH];
	int count = epoll_wait(fd, events, BATCH, 0);

	for (int i = 0; i < count; i++) {
		struct edge *edge = events[i].data.ptr;

		edge->on_edge(edge);
	}
}

struct edges *edges_new(struct loop *loop)
{
	struct edges *edges = xcalloc(1, sizeof(*edges));

	edges->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (edges->epoll_fd < 0)
		die("no epoll set for the streams: %m");
	edges->ev = event_new(loop_base(loop), edges->epoll_fd,
		EV_READ | EV_PERSIST, on_readable, edges);
	if (!edges->ev || event_add(edges->ev, NULL) < 0)
		die("no event for the streams");
	return edges;
}

void edges_free(struct edges *edges)
{
	if (!edges)
		return;
	event_free(edges->ev);
	close(edges->epoll_fd);
	free(edges);
}

int edges_add(struct edges *edges, int fd, struct edge *edge)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
		.data.ptr = edge,
	};

	if (epoll_ctl(edges->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	return 0;
}

void edges_remove(struct edges *edges, int fd)
{
	epoll_ctl(edges->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
