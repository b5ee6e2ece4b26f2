/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What peerd may say to a worker, and what its coming and going mean. peerd is
 * told of all tunnels whenever the link comes up.
 *
 * What a newcomer gets wrong: losing peerd costs only dials under way. Joined
 * sessions hold descriptors of their own.
 */
#include <stdlib.h>

#include "proxy/agent_tunnel.h"
#include "proxy/announce.h"
#include "proxy/dial.h"
#include "proxy/peerd_link.h"
#include "proxy/serve_dial.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

static void handle_tunnel_close(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelClose *close =
		(const Peerway__Ipc__TunnelClose *)msg->payload;

	log_info("closing a tunnel for peerd: %s id=%llu", close->reason,
		(unsigned long long)close->tunnel_id);
	agent_tunnel_close(arg, close->tunnel_id, "closed for peerd");
}

/* What peerd may say to us. Anything else drops the link. */
static const struct ipc_handlers from_peerd[] = {
	{IPC_TUNNEL_CLOSE, handle_tunnel_close},
	{IPC_DIAL, serve_dial_handle},
	{IPC_DIAL_CANCEL, serve_dial_handle_cancel},
	{IPC_DIAL_OK, dial_handle_ok},
	{IPC_DIAL_FAILED, dial_handle_failed},
	{0, NULL},
};

static void on_up(struct ipc_link *link, void *arg)
{
	struct worker *worker = arg;

	log_info("linked to peerd");
	metric_set(&worker->metrics, PROXY_LINK_PEERD, 1);
	announce_all(worker, link);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct worker *worker = arg;

	log_warn("link to peerd lost: %s", reason);
	metric_set(&worker->metrics, PROXY_LINK_PEERD, 0);
	dial_peerd_lost(worker);
	serve_dial_peerd_lost(worker);
}

static const struct ipc_link_ops link_ops = {
	.handlers = from_peerd,
	.on_up = on_up,
	.on_down = on_down,
};

void peerd_link_start(struct worker *worker, const struct ipc_self *self)
{
	char *path = xasprintf("%s/peerd.sock", worker->conf->run_dir);

	worker->peerd =
		ipc_link_connect(worker->loop, path, self, &link_ops, worker);
	free(path);
}
