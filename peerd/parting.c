/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last seconds of sockets that peerd has written everything to: see
 * parting.h. Owns each until the other end has ended or its time is over.
 */
#include "peerd/parting.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/alloc.h"

#define READS_PER_TURN 4

struct parting {
	TAILQ_ENTRY(parting) entry;
	struct partings *partings;
	int fd;
	struct event *read_ev;
	struct timer *deadline;
};

struct partings {
	struct loop *loop;
	TAILQ_HEAD(, parting) list;
	unsigned count;
};

struct partings *partings_new(struct loop *loop)
{
	struct partings *partings = xcalloc(1, sizeof(*partings));

	partings->loop = loop;
	TAILQ_INIT(&partings->list);
	return partings;
}

static void parting_end(struct parting *parting)
{
	struct partings *partings = parting->partings;

	TAILQ_REMOVE(&partings->list, parting, entry);
	partings->count--;
	if (parting->read_ev)
		event_free(parting->read_ev);
	timer_free(parting->deadline);
	close(parting->fd);
	loop_free_later(partings->loop, free, parting);
}

void partings_free(struct partings *partings)
{
	if (!partings)
		return;
	while (!TAILQ_EMPTY(&partings->list))
		parting_end(TAILQ_FIRST(&partings->list));
	free(partings);
}

static void on_deadline(void *arg)
{
	parting_end(arg);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct parting *parting = arg;
	char waste[16384];

	for (int n = 0; n < READS_PER_TURN; n++) {
		ssize_t len = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);

		if (len > 0)
			continue;
		if (len == 0 || errno != EAGAIN)
			parting_end(parting);
		return;
	}
}

void partings_close(struct partings *partings, int fd)
{
	struct parting *parting;

	if (shutdown(fd, SHUT_WR) < 0 || partings->count >= PARTING_MAX) {
		close(fd);
		return;
	}
	parting = xcalloc(1, sizeof(*parting));
	parting->partings = partings;
	parting->fd = fd;
	parting->deadline = timer_new(partings->loop, on_deadline, parting);
	timer_set(parting->deadline, PARTING_MS);
	TAILQ_INSERT_TAIL(&partings->list, parting, entry);
	partings->count++;
	parting->read_ev = event_new(loop_base(partings->loop), fd,
		EV_READ | EV_PERSIST, on_readable, parting);
	if (!parting->read_ev || event_add(parting->read_ev, NULL) < 0)
		parting_end(parting);
}
