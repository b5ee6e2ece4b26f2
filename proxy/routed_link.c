/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What routed may say to a worker. What a newcomer gets wrong: while routed is
 * away nothing here changes; cache and certificate on disk are what they were.
 */
#include <stdlib.h>

#include "proxy/agent_tunnel.h"
#include "proxy/announce.h"
#include "proxy/routed_link.h"
#include "proxy/warmup.h"
#include "proxy/web.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

static void handle_cache(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__Cache *cache =
		(const Peerway__Ipc__Cache *)msg->payload;

	struct worker *worker = arg;

	worker_use_cache(worker, cache->path, cache->proxies_changed);
	if (cache->strategy_decided)
		warmup_cache_is_current(worker->warmup);
}

static void handle_identity(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	worker_load_identity(
		arg, ((Peerway__Ipc__Identity *)msg->payload)->directory);
}

static void handle_move(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelMove *move =
		(const Peerway__Ipc__TunnelMove *)msg->payload;

	agent_tunnel_move(arg, move->tunnel_id, move->to);
}

/* What routed may say to us. Anything else drops the link. */
static const struct ipc_handlers from_routed[] = {
	{IPC_CACHE, handle_cache},
	{IPC_IDENTITY, handle_identity},
	{IPC_TUNNEL_MOVE, handle_move},
	{IPC_JOIN_REPLY, web_handle_join_reply},
	{0, NULL},
};

static void on_up(struct ipc_link *link, void *arg)
{
	struct worker *worker = arg;

	log_info("linked to routed");
	metric_set(&worker->metrics, PROXY_LINK_ROUTED, 1);
	announce_all(worker, link);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct worker *worker = arg;

	log_warn("link to routed lost: %s", reason);
	metric_set(&worker->metrics, PROXY_LINK_ROUTED, 0);
	web_routed_lost(worker);
}

static const struct ipc_link_ops link_ops = {
	.handlers = from_routed,
	.on_up = on_up,
	.on_down = on_down,
};

void routed_link_start(struct worker *worker, const struct ipc_self *self)
{
	char *path = xasprintf("%s/routed.sock", worker->conf->run_dir);

	worker->routed =
		ipc_link_connect(worker->loop, path, self, &link_ops, worker);
	free(path);
}
