/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One TCP connection to a peer and what its pings say (health.h). A peer has
 * peer_connections of them, each pinged by itself: a path that drops packets
 * may swallow one connection and leave the next.
 */

#include "peerd/channel.h"
#include "peerd/health.h"

/* From best to worst. */
enum line_state {
	LINE_READY,
	LINE_DEGRADED, /* answers with errors or slowly */
	LINE_CONNECTING,
	LINE_UNREACHABLE, /* not connected, or silent */
};

struct line;

/* Starts connecting. on_change(arg) on the loop's thread after each ping and
 * each change of the connection, until line_close(). Borrows arg and tally. */
struct line *line_new(struct peerd *peerd, const char *peer_id,
	const char *addr, struct tally *tally, void (*on_change)(void *arg),
	void *arg);
/* Gives it up; streams on it go on. NULL is fine. */
void line_close(struct line *line);

enum line_state line_state(const struct line *line);
const char *line_state_name(enum line_state state);
const struct health *line_health(const struct line *line);
/* Borrowed until line_close(); with channel_hold() longer. */
struct channel *line_channel(const struct line *line);
