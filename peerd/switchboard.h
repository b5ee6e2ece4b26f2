/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What this host's workers report and ask: which tunnels end where, and who
 * gets a client's descriptor. The authority inside the host. A tunnel's owner
 * is in tunnels.h, a worker's dial in dial.h, a peer's in serve.h, and what is
 * asked of a worker in ask.h; this joins them.
 */

#include "peerd/ask.h"
#include "peerd/dial.h"
#include "peerd/peerd.h"
#include "peerd/serve.h"
#include "peerd/tunnels.h"
#include "ipc.pb-c.h"

struct switchboard {
	struct peerd *peerd;
	struct tunnels *tunnels;
	struct asks *asks;
	struct dials *dials;
	struct serves *serves;
};

struct switchboard *switchboard_new(struct peerd *peerd);
/* Nothing may be under way. */
void switchboard_free(struct switchboard *board);

/* From worker_link.c; messages are borrowed. */
void switchboard_tunnel_sync(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__TunnelSync *sync);
void switchboard_tunnel_up(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__Tunnel *tunnel);
void switchboard_tunnel_down(
	struct switchboard *board, uint64_t link, uint64_t tunnel_id);
/* Takes fd. */
void switchboard_dial(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__Dial *dial, int fd);
void switchboard_dial_cancel(
	struct switchboard *board, uint64_t link, uint64_t id);
void switchboard_dial_ok(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__DialOk *ok);
void switchboard_dial_failed(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__DialFailed *failed);
void switchboard_worker_gone(struct switchboard *board, uint64_t link);

size_t switchboard_tunnel_count(struct switchboard *board, uint64_t link);
