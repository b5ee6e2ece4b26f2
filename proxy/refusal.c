/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refused connections until the other side has closed. Owns their sockets.
 *
 * What a newcomer gets wrong: the agent's ClientHello lies unread in our
 * receive queue, or is still on its way. A close() now would send RST, and an
 * RST makes the agent's kernel throw the answer away. So the socket is kept,
 * and read, until the agent has closed; for a moment only, and of too many the
 * oldest has to go.
 */
#include "proxy/refusal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/loop.h"

#define LINGER_MS 2000
#define LINGERING_MAX 512
#define READ_MAX 65536 /* of what nobody asked for */

struct refusal {
	TAILQ_ENTRY(refusal) entry;
	struct refusals *refusals;
	struct event *ev;
	int fd;
	int64_t until;
	size_t read;
};
TAILQ_HEAD(refusal_list, refusal);

struct refusals {
	struct loop *loop;
	struct refusal_list lingering; /* the oldest first */
	unsigned count;
	struct timer *deadline; /* of the oldest */
};

static void end(struct refusal *refusal)
{
	struct refusals *refusals = refusal->refusals;

	TAILQ_REMOVE(&refusals->lingering, refusal, entry);
	refusals->count--;
	event_free(refusal->ev);
	close(refusal->fd);
	loop_free_later(refusals->loop, free, refusal);
}

static void set_deadline(struct refusals *refusals)
{
	struct refusal *oldest = TAILQ_FIRST(&refusals->lingering);

	if (oldest && !timer_is_set(refusals->deadline))
		timer_set(refusals->deadline,
			oldest->until - loop_now(refusals->loop));
}

static void on_deadline(void *arg)
{
	struct refusals *refusals = arg;
	int64_t now = loop_now(refusals->loop);
	struct refusal *oldest;

	while ((oldest = TAILQ_FIRST(&refusals->lingering)) &&
		oldest->until <= now)
		end(oldest);
	set_deadline(refusals);
}

static void on_readable(evutil_socket_t fd, short events, void *arg)
{
	struct refusal *refusal = arg;
	char dropped[4096];
	ssize_t n = recv(fd, dropped, sizeof(dropped), MSG_DONTWAIT);

	if (n > 0)
		refusal->read += (size_t)n;
	if (n == 0 || refusal->read > READ_MAX ||
		(n < 0 && errno != EAGAIN && errno != EINTR))
		end(refusal);
}

struct refusals *refusals_new(struct loop *loop)
{
	struct refusals *refusals = xcalloc(1, sizeof(*refusals));

	refusals->loop = loop;
	TAILQ_INIT(&refusals->lingering);
	refusals->deadline = timer_new(loop, on_deadline, refusals);
	return refusals;
}

void refusals_free(struct refusals *refusals)
{
	struct refusal *refusal;

	if (!refusals)
		return;
	while ((refusal = TAILQ_FIRST(&refusals->lingering)))
		end(refusal);
	timer_free(refusals->deadline);
	free(refusals);
}

/* The first bytes of a connection: they fit, or it is gone already. */
static void answer(int fd, unsigned retry_after_s)
{
	char text[128];
	int len = snprintf(text, sizeof(text),
		"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %u\r\n"
		"Content-Length: 0\r\nConnection: close\r\n\r\n",
		retry_after_s);

	if (send(fd, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) == len)
		shutdown(fd, SHUT_WR);
}

void refusals_add(struct refusals *refusals, int fd, unsigned retry_after_s)
{
	struct refusal *refusal = xcalloc(1, sizeof(*refusal));

	answer(fd, retry_after_s);
	if (refusals->count >= LINGERING_MAX)
		end(TAILQ_FIRST(&refusals->lingering));
	refusal->refusals = refusals;
	refusal->fd = fd;
	refusal->until = loop_now(refusals->loop) + LINGER_MS;
	refusal->ev = event_new(loop_base(refusals->loop), fd,
		EV_READ | EV_PERSIST, on_readable, refusal);
	TAILQ_INSERT_TAIL(&refusals->lingering, refusal, entry);
	refusals->count++;
	if (!refusal->ev || event_add(refusal->ev, NULL) < 0)
		fatal("cannot watch a socket: %m");
	set_deadline(refusals);
}
