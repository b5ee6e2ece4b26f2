/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of routed.sock: who is connected, what they may say, what each is
 * told when it comes. Owns the links; asks nothing and decides nothing itself.
 *
 * What is easily got wrong: answers come later, from authd, when the link that
 * asked may be gone and its memory another's. So everything outside this file
 * knows links by ids, which are never used twice.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "routed/apply.h"
#include "routed/links.h"
#include "shared/alloc.h"
#include "shared/ctl.h"
#include "shared/log.h"

#define WORKERS_MAX 256

/* One connected process. */
struct peer {
	LIST_ENTRY(peer) entry;
	struct links *links;
	struct ipc_link *link;
	uint64_t id;
	Peerway__Ipc__Peer kind;
	uint32_t worker;
	bool draining; /* a worker that will end */
};

struct links {
	struct ipc_server *server;
	const struct links_ops *ops;
	void *arg;
	LIST_HEAD(, peer) peers;
	uint64_t last_id;
	unsigned workers;
	bool synced[WORKERS_MAX]; /* by worker number */
	bool all_synced;
	bool draining; /* all workers are, or were when the last one went */
	Peerway__Ipc__Cache *cache; /* last told; NULL: nothing yet */
	Peerway__Ipc__Identity *identity;
};

/* ---- telling ---- */

static bool is_told(const struct peer *peer)
{
	return peer->kind == PEERWAY__IPC__PEER__PEER_WORKER ||
	       peer->kind == PEERWAY__IPC__PEER__PEER_PROXY ||
	       peer->kind == PEERWAY__IPC__PEER__PEER_PEERD;
}

static void tell_all(struct links *links, enum ipc_type type,
	const ProtobufCMessage *payload)
{
	struct peer *peer;

	LIST_FOREACH (peer, &links->peers, entry) {
		if (is_told(peer))
			ipc_link_send(peer->link, type, payload, -1);
	}
}

/* A deep copy, through bytes. */
static void *copy_message(const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = xcalloc(1, size + 1);
	void *copy;

	protobuf_c_message_pack(message, bytes);
	copy = protobuf_c_message_unpack(
		message->descriptor, NULL, size, bytes);
	free(bytes);
	return copy;
}

static void forget(void *message)
{
	if (message)
		protobuf_c_message_free_unpacked(message, NULL);
}

void links_tell_cache(struct links *links, const Peerway__Ipc__Cache *cache)
{
	forget(links->cache);
	links->cache = copy_message(&cache->base);
	/* whoever comes later has seen no proxies yet */
	links->cache->proxies_changed = true;
	tell_all(links, IPC_CACHE, &cache->base);
}

void links_tell_identity(
	struct links *links, const Peerway__Ipc__Identity *identity)
{
	forget(links->identity);
	links->identity = copy_message(&identity->base);
	tell_all(links, IPC_IDENTITY, &identity->base);
}

int links_send(struct links *links, uint64_t id, enum ipc_type type,
	const ProtobufCMessage *payload)
{
	struct peer *peer;

	LIST_FOREACH (peer, &links->peers, entry) {
		if (peer->id == id)
			return ipc_link_send(peer->link, type, payload, -1);
	}
	return -ENOTCONN;
}

bool links_are_draining(const struct links *links)
{
	return links->draining;
}

unsigned links_workers(const struct links *links)
{
	return links->workers;
}

/* ---- coming and going ---- */

/* The host drains when all its workers do. When they have gone, what they said
 * last holds until one comes again. */
static void note_draining(struct links *links)
{
	bool draining = true;
	struct peer *peer;

	if (links->workers == 0)
		return;
	LIST_FOREACH (peer, &links->peers, entry) {
		if (peer->kind == PEERWAY__IPC__PEER__PEER_WORKER)
			draining = draining && peer->draining;
	}
	if (draining == links->draining)
		return;
	links->draining = draining;
	links->ops->on_draining(links->arg, draining);
}

static const char *kind_name(Peerway__Ipc__Peer kind)
{
	switch (kind) {
	case PEERWAY__IPC__PEER__PEER_WORKER:
		return "worker";
	case PEERWAY__IPC__PEER__PEER_PROXY:
		return "proxy";
	case PEERWAY__IPC__PEER__PEER_PEERD:
		return "peerd";
	case PEERWAY__IPC__PEER__PEER_CTL:
		return "peerctl";
	default:
		return "other";
	}
}

static void on_up(struct ipc_link *link, void *arg)
{
	const Peerway__Ipc__Hello *hello = ipc_link_hello(link);
	struct links *links = arg;
	struct peer *peer = xcalloc(1, sizeof(*peer));

	peer->links = links;
	peer->link = link;
	peer->id = ++links->last_id;
	peer->kind = hello->peer;
	peer->worker = hello->worker;
	LIST_INSERT_HEAD(&links->peers, peer, entry);
	ipc_link_set_arg(link, peer);
	if (peer->kind == PEERWAY__IPC__PEER__PEER_WORKER)
		links->workers++;
	log_debug("link up: peer=%s worker=%u pid=%u", kind_name(peer->kind),
		peer->worker, hello->pid);
	if (!is_told(peer))
		return;
	if (links->identity)
		ipc_link_send(link, IPC_IDENTITY, &links->identity->base, -1);
	if (links->cache)
		ipc_link_send(link, IPC_CACHE, &links->cache->base, -1);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct peer *peer = arg;
	struct links *links = peer->links;

	ctl_link_gone(link);
	LIST_REMOVE(peer, entry);
	if (peer->kind == PEERWAY__IPC__PEER__PEER_WORKER) {
		log_info("worker has gone, its tunnels are withdrawn: %s "
			 "worker=%u",
			reason, peer->worker);
		links->workers--;
		links->ops->on_worker_gone(links->arg, peer->id);
		note_draining(links);
		if (links->workers == 0)
			links->ops->on_no_workers(links->arg);
	} else {
		log_debug(
			"link down: %s peer=%s", reason, kind_name(peer->kind));
	}
	free(peer);
}

/* ---- what they say ---- */

/* NULL, after dropping the link, when that kind of process may not say it. */
static struct peer *check_kind(
	struct ipc_link *link, void *arg, Peerway__Ipc__Peer kind)
{
	struct peer *peer = arg;

	if (peer->kind == kind)
		return peer;
	ipc_link_drop(link, "a message that is not for it to send");
	return NULL;
}

static void report_tunnel(struct peer *peer, const Peerway__Ipc__Tunnel *tunnel)
{
	struct links *links = peer->links;
	Peerway__Record__TunnelRecord record;

	if (!tunnel || !tunnel->record)
		return;
	/* The worker need not know the proxy's id; publish.c sets it. */
	record = *tunnel->record;
	if (record.proxy_id[0] == '\0')
		record.proxy_id = record.agent_id;
	if (apply_tunnel_is_fit(&record))
		links->ops->on_tunnel(links->arg, peer->id, tunnel);
	else
		log_warn("tunnel is not published: its record is malformed "
			 "worker=%u agent=%s",
			peer->worker, record.agent_id);
}

/* The expected number comes with each worker's HELLO; it may change when the
 * proxy is started anew. */
static void note_synced(struct links *links, struct peer *peer)
{
	uint32_t expected = ipc_link_hello(peer->link)->workers;
	uint32_t count = 0;

	if (peer->worker < WORKERS_MAX)
		links->synced[peer->worker] = true;
	for (uint32_t i = 0; i < WORKERS_MAX; i++)
		count += links->synced[i];
	if (links->all_synced || count < expected)
		return;
	links->all_synced = true;
	links->ops->on_all_synced(links->arg);
}

static void handle_sync(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelSync *sync = (const void *)msg->payload;
	struct peer *peer =
		check_kind(link, arg, PEERWAY__IPC__PEER__PEER_WORKER);
	struct links *links;

	if (!peer)
		return;
	links = peer->links;
	peer->draining = sync->draining;
	note_draining(links);
	if (sync->first)
		links->ops->on_sync(links->arg, peer->id, true, false);
	for (size_t i = 0; i < sync->n_tunnels; i++)
		report_tunnel(peer, sync->tunnels[i]);
	if (sync->last) {
		links->ops->on_sync(links->arg, peer->id, false, true);
		note_synced(links, peer);
	}
}

static void handle_up(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelUp *up = (const void *)msg->payload;
	struct peer *peer =
		check_kind(link, arg, PEERWAY__IPC__PEER__PEER_WORKER);

	if (peer)
		report_tunnel(peer, up->tunnel);
}

static void handle_down(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelDown *down = (const void *)msg->payload;
	struct peer *peer =
		check_kind(link, arg, PEERWAY__IPC__PEER__PEER_WORKER);

	if (peer)
		peer->links->ops->on_tunnel_down(
			peer->links->arg, peer->id, down->tunnel_id);
}

static void handle_lookup(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct peer *peer =
		check_kind(link, arg, PEERWAY__IPC__PEER__PEER_PEERD);

	if (peer)
		peer->links->ops->on_lookup(
			peer->links->arg, peer->id, (const void *)msg->payload);
}

static void handle_join(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct peer *peer =
		check_kind(link, arg, PEERWAY__IPC__PEER__PEER_WORKER);

	if (peer)
		peer->links->ops->on_join(
			peer->links->arg, peer->id, (const void *)msg->payload);
}

/* What may be said to us. Anything else drops the link. */
static const struct ipc_handlers handlers[] = {
	{IPC_TUNNEL_SYNC, handle_sync},
	{IPC_TUNNEL_UP, handle_up},
	{IPC_TUNNEL_DOWN, handle_down},
	{IPC_LOOKUP, handle_lookup},
	{IPC_JOIN, handle_join},
	{IPC_CTL_REQUEST, ctl_handle_request},
	{0, NULL},
};

static const struct ipc_link_ops link_ops = {
	.handlers = handlers,
	.on_up = on_up,
	.on_down = on_down,
};

/* ---- the whole ---- */

struct links *links_new(struct loop *loop, const char *path,
	const struct links_ops *ops, void *arg, char **error_out)
{
	static const struct ipc_self self = {
		.peer = PEERWAY__IPC__PEER__PEER_ROUTED};
	struct links *links = xcalloc(1, sizeof(*links));

	links->ops = ops;
	links->arg = arg;
	LIST_INIT(&links->peers);
	links->server =
		ipc_server_new(loop, path, 0660, &self, &link_ops, links);
	if (!links->server) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
		free(links);
		return NULL;
	}
	return links;
}

void links_free(struct links *links)
{
	struct peer *peer;

	if (!links)
		return;
	ipc_server_free(links->server);
	while ((peer = LIST_FIRST(&links->peers))) {
		LIST_REMOVE(peer, entry);
		free(peer);
	}
	forget(links->cache);
	forget(links->identity);
	free(links);
}
