/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dialing a list of addresses. Talks to the resolver and the loop; owns the
 * descriptor while it is connecting.
 *
 * Pending work is the state: lookup, event, or the task that takes the next
 * step; at most one of them is set.
 */
#include "agent/dial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/alloc.h"

struct dial {
	struct loop *loop;
	struct resolver *resolver;
	char **addrs;
	unsigned addr_count;
	unsigned next_addr;
	uint16_t default_port;
	struct timeval try_time;
	uint32_t first;
	dial_fn *fn;
	void *arg;

	/* what addrs[next_addr - 1] means */
	char host[256];
	struct sock_addr found[RESOLVE_ADDRS_MAX];
	size_t found_count;
	size_t next_found;

	/* what is pending; NULL = not pending */
	struct loop_task step;
	struct lookup *lookup;
	struct event *event; /* connecting fd, or the lookup's deadline */
	int fd;		     /* -1: none */

	char why[400];
	int error;
};

static void failed(
	struct dial *dial, int error, const char *what, const char *why)
{
	snprintf(dial->why, sizeof(dial->why), "%s: %s", what, why);
	dial->error = error;
	loop_defer(dial->loop, &dial->step);
}

static void clear_event(struct dial *dial)
{
	if (dial->event)
		event_free(dial->event);
	dial->event = NULL;
}

static void on_found(void *arg, const struct sock_addr *addrs, size_t count,
	const char *error)
{
	struct dial *dial = arg;

	dial->lookup = NULL;
	clear_event(dial);
	if (!count) {
		failed(dial, -EADDRNOTAVAIL, dial->host, error);
		return;
	}
	/* Begin anywhere: the agents of a fleet spread over the addresses. */
	for (size_t i = 0; i < count; i++)
		dial->found[i] = addrs[(dial->first + i) % count];
	dial->found_count = count;
	dial->next_found = 0;
	loop_defer(dial->loop, &dial->step);
}

static void on_lookup_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;

	clear_event(dial);
	lookup_cancel(dial->lookup);
	dial->lookup = NULL;
	failed(dial, -ETIMEDOUT, dial->host, "the name lookup timed out");
}

/* Takes up the next text address. */
static void look_up(struct dial *dial)
{
	const char *text = dial->addrs[dial->next_addr++];
	uint16_t port;

	dial->found_count = 0;
	if (sock_split(text, dial->default_port, dial->host, sizeof(dial->host),
		    &port) < 0) {
		failed(dial, -EINVAL, text, "is not host:port");
		return;
	}
	if (dial->host[0] &&
		sock_parse(text, dial->default_port, &dial->found[0]) == 0) {
		dial->found_count = 1;
		dial->next_found = 0;
		loop_defer(dial->loop, &dial->step);
		return;
	}
	dial->lookup =
		lookup_start(dial->resolver, dial->host, port, on_found, dial);
	dial->event =
		evtimer_new(loop_base(dial->loop), on_lookup_deadline, dial);
	if (dial->event)
		evtimer_add(dial->event, &dial->try_time);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;
	char text[SOCK_ADDR_MAX];
	int ret = (what & EV_TIMEOUT) ? -ETIMEDOUT : sock_error(fd);

	clear_event(dial);
	dial->fd = -1;
	sock_format(&dial->found[dial->next_found - 1], text, sizeof(text));
	if (ret < 0) {
		close(fd);
		failed(dial, ret, text,
			ret == -ETIMEDOUT ? "did not answer" : strerror(-ret));
		return;
	}
	dial->fn(dial->arg, fd, text);
}

static void connect_found(struct dial *dial)
{
	const struct sock_addr *addr = &dial->found[dial->next_found++];
	char text[SOCK_ADDR_MAX];
	int fd = sock_connect(addr);

	if (fd >= 0) {
		dial->event = event_new(loop_base(dial->loop), fd, EV_WRITE,
			on_connected, dial);
		if (dial->event &&
			event_add(dial->event, &dial->try_time) == 0) {
			dial->fd = fd;
			return;
		}
		clear_event(dial);
		close(fd);
		fd = -ENOMEM;
	}
	sock_format(addr, text, sizeof(text));
	failed(dial, fd, text, strerror(-fd));
}

static void on_step(struct loop_task *task)
{
	struct dial *dial =
		(struct dial *)((char *)task - offsetof(struct dial, step));

	if (dial->next_found < dial->found_count)
		connect_found(dial);
	else if (dial->next_addr < dial->addr_count)
		look_up(dial);
	else
		dial->fn(dial->arg, dial->error, dial->why);
}

struct dial *dial_new(struct loop *loop, struct resolver *resolver,
	const char *const *addrs, unsigned addr_count, uint16_t default_port,
	uint32_t try_ms, uint32_t first, dial_fn *fn, void *arg)
{
	struct dial *dial = xcalloc(1, sizeof(*dial));

	*dial = (struct dial){
		.loop = loop,
		.resolver = resolver,
		.addrs = xcalloc(addr_count + 1, sizeof(char *)),
		.addr_count = addr_count,
		.default_port = default_port,
		.try_time = {try_ms / 1000, try_ms % 1000 * 1000},
		.first = first,
		.fn = fn,
		.arg = arg,
		.step = {.run = on_step},
		.fd = -1,
		.error = -EADDRNOTAVAIL,
		.why = "no address to dial",
	};
	for (unsigned i = 0; i < addr_count; i++)
		dial->addrs[i] = xstrdup(addrs[i]);
	loop_defer(loop, &dial->step);
	return dial;
}

void dial_next(struct dial *dial)
{
	loop_defer(dial->loop, &dial->step);
}

unsigned dial_index(const struct dial *dial)
{
	return dial->next_addr ? dial->next_addr - 1 : 0;
}

void dial_free(struct dial *dial)
{
	if (!dial)
		return;
	loop_cancel(dial->loop, &dial->step);
	lookup_cancel(dial->lookup);
	clear_event(dial);
	if (dial->fd >= 0)
		close(dial->fd);
	for (unsigned i = 0; i < dial->addr_count; i++)
		free(dial->addrs[i]);
	free(dial->addrs);
	/* The caller may be one of our own callbacks. */
	loop_free_later(dial->loop, free, dial);
}
