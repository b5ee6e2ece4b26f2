/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers' messages to whom they concern: see switchboard.h. Owns the table of
 * tunnels and the three kinds of work in progress.
 *
 * A newcomer's trap: order matters when a worker goes. Its tunnels leave the
 * table first, so that whatever is retried does not choose it again.
 */
#include "peerd/switchboard.h"

#include <stdlib.h>

#include "peerd/meters.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"
#include "shared/log.h"

struct switchboard *switchboard_new(struct peerd *peerd)
{
	struct switchboard *board = xcalloc(1, sizeof(*board));

	board->peerd = peerd;
	board->tunnels = tunnels_new();
	board->asks = asks_new(peerd);
	board->dials = dials_new(peerd);
	board->serves = serves_new(peerd);
	return board;
}

void switchboard_free(struct switchboard *board)
{
	if (!board)
		return;
	serves_free(board->serves);
	dials_free(board->dials);
	asks_free(board->asks);
	tunnels_free(board->tunnels);
	free(board);
}

static void count_tunnels(struct switchboard *board)
{
	metric_set(&board->peerd->metrics, METER_TUNNELS,
		(int64_t)tunnels_count(board->tunnels, 0));
}

static void put(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__Tunnel *tunnel)
{
	Peerway__Ipc__TunnelClose close = PEERWAY__IPC__TUNNEL_CLOSE__INIT;
	struct tunnel_ref loser;

	if (!tunnel->record || !tunnel->record->agent_id[0]) {
		log_warn("tunnel ignored: it names no agent");
		return;
	}
	if (!tunnels_put(board->tunnels, link, tunnel->tunnel_id,
		    tunnel->record, tunnel->remote_addr, &loser))
		return;
	log_info("tunnel superseded: the agent has a newer one on this host "
		 "agent=%s",
		tunnel->record->agent_id);
	close.tunnel_id = loser.tunnel_id;
	close.reason = (char *)"superseded by a newer tunnel of this agent";
	worker_links_send(board->peerd->workers, loser.link, IPC_TUNNEL_CLOSE,
		&close.base, -1);
}

void switchboard_tunnel_sync(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__TunnelSync *sync)
{
	if (sync->first)
		tunnels_remove_link(board->tunnels, link);
	for (size_t i = 0; i < sync->n_tunnels; i++)
		put(board, link, sync->tunnels[i]);
	count_tunnels(board);
}

void switchboard_tunnel_up(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__Tunnel *tunnel)
{
	put(board, link, tunnel);
	count_tunnels(board);
}

void switchboard_tunnel_down(
	struct switchboard *board, uint64_t link, uint64_t tunnel_id)
{
	tunnels_remove(board->tunnels, link, tunnel_id);
	count_tunnels(board);
}

void switchboard_dial(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__Dial *dial, int fd)
{
	dials_begin(board->dials, link, dial, fd);
}

void switchboard_dial_cancel(
	struct switchboard *board, uint64_t link, uint64_t id)
{
	dials_cancel(board->dials, link, id);
}

void switchboard_dial_ok(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__DialOk *ok)
{
	asks_answer(board->asks, link, ok->id,
		PEERWAY__IPC__DIAL_CODE__DIAL_CODE_NONE, "");
}

void switchboard_dial_failed(struct switchboard *board, uint64_t link,
	const Peerway__Ipc__DialFailed *failed)
{
	Peerway__Ipc__DialCode code = failed->code;

	if (code == PEERWAY__IPC__DIAL_CODE__DIAL_CODE_NONE)
		code = PEERWAY__IPC__DIAL_CODE__DIAL_INTERNAL;
	asks_answer(board->asks, link, failed->id, code, failed->message);
}

void switchboard_worker_gone(struct switchboard *board, uint64_t link)
{
	tunnels_remove_link(board->tunnels, link);
	count_tunnels(board);
	dials_worker_gone(board->dials, link);
	asks_worker_gone(board->asks, link);
}

size_t switchboard_tunnel_count(struct switchboard *board, uint64_t link)
{
	return tunnels_count(board->tunnels, link);
}
