/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last of a channel whose far end has got everything but still sends: a
 * client that goes on uploading to a service which has answered and left.
 * Closing with unread input makes the kernel send RST and drop what is in the
 * send queue, here the end of that answer. So input is read and forgotten until
 * it ends, for at most TUNNEL_LINGER_MS. Owns the channel.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "shared/alloc.h"
#include "shared/tunnel_internal.h"

/* Reads per turn, so that a fast sender does not keep the loop. */
#define LINGER_READS 16

struct tunnel_linger {
	TAILQ_ENTRY(tunnel_linger) entry; /* in hub->lingers */
	struct tunnel_hub *hub;
	struct chan *chan;
	struct loop_task again;
	int64_t until;
};

static void end_linger(struct tunnel_linger *linger)
{
	struct tunnel_hub *hub = linger->hub;

	TAILQ_REMOVE(&hub->lingers, linger, entry);
	loop_cancel(hub->loop, &linger->again);
	chan_free(linger->chan);
	loop_free_later(hub->loop, free, linger);
}

static void on_ready(void *arg)
{
	struct tunnel_linger *linger = arg;
	ssize_t n = 1;

	/* The read buffer is free between passes. */
	for (int i = 0; n > 0 && i < LINGER_READS; i++)
		n = chan_read(
			linger->chan, linger->hub->read_buf, TUNNEL_RECORD);
	if (n > 0)
		loop_defer(linger->hub->loop, &linger->again);
	else if (n != -EAGAIN)
		end_linger(linger);
}

static void on_again(struct loop_task *task)
{
	on_ready((char *)task - offsetof(struct tunnel_linger, again));
}

void tunnel_linger(struct tunnel_hub *hub, struct chan *chan)
{
	struct tunnel_linger *linger = xcalloc(1, sizeof(*linger));

	linger->hub = hub;
	linger->chan = chan;
	linger->again.run = on_again;
	linger->until = loop_now(hub->loop) + TUNNEL_LINGER_MS;
	TAILQ_INSERT_TAIL(&hub->lingers, linger, entry);
	chan_watch(chan, on_ready, linger);
	tunnel_hub_watch_time(hub);
}

void tunnel_linger_expire(struct tunnel_hub *hub, int64_t now)
{
	struct tunnel_linger *linger;

	while ((linger = TAILQ_FIRST(&hub->lingers)) && linger->until <= now)
		end_linger(linger);
}
