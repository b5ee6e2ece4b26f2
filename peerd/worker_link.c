/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The links of peerd.sock: receives and sends, decides nothing. What workers
 * say goes to the switchboard; peerctl's questions go to control.c. Owns the
 * listening socket and a small object for each link.
 *
 * A newcomer's trap: a worker that dies and comes back is a new link. Answers
 * to the old one find nothing, which is as it should be.
 */
#include "peerd/worker_link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#include "peerd/connection_id.h"
#include "peerd/idmap.h"
#include "peerd/meters.h"
#include "peerd/switchboard.h"
#include "shared/alloc.h"
#include "shared/ctl.h"
#include "shared/ipc_link.h"
#include "shared/log.h"

struct worker {
	TAILQ_ENTRY(worker) entry;
	struct worker_links *links;
	struct ipc_link *link;
	uint64_t id; /* 0: peerctl's */
	bool draining;
};

struct worker_links {
	struct peerd *peerd;
	struct ipc_server *server;
	struct idmap *workers;	  /* by id */
	TAILQ_HEAD(, worker) all; /* peerctl's too */
};

/* ---- from workers ---- */

/* NULL, and the link dropped, when this is none. */
static struct worker *worker_of(struct ipc_link *link, void *arg)
{
	if (ipc_link_hello(link)->peer == PEERWAY__IPC__PEER__PEER_WORKER)
		return arg;
	ipc_link_drop(link, "only workers may say this");
	return NULL;
}

static void handle_tunnel_sync(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelSync *sync = (void *)msg->payload;
	struct worker *worker = worker_of(link, arg);

	if (!worker)
		return;
	worker->draining = sync->draining;
	switchboard_tunnel_sync(
		worker->links->peerd->switchboard, worker->id, sync);
}

static void handle_tunnel_up(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__TunnelUp *up = (void *)msg->payload;
	struct worker *worker = worker_of(link, arg);

	if (worker && up->tunnel)
		switchboard_tunnel_up(worker->links->peerd->switchboard,
			worker->id, up->tunnel);
}

static void handle_tunnel_down(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__TunnelDown *down = (void *)msg->payload;
	struct worker *worker = worker_of(link, arg);

	if (worker)
		switchboard_tunnel_down(worker->links->peerd->switchboard,
			worker->id, down->tunnel_id);
}

static void handle_dial(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__Dial *dial = (void *)msg->payload;
	struct worker *worker = worker_of(link, arg);

	if (!worker)
		return;
	if (dial->connection_id.len != CONNECTION_ID_SIZE) {
		ipc_link_drop(link, "dial with a bad connection id");
		return;
	}
	switchboard_dial(worker->links->peerd->switchboard, worker->id, dial,
		ipc_take_fd(msg));
}

static void handle_dial_cancel(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__DialCancel *cancel = (void *)msg->payload;
	struct worker *worker = worker_of(link, arg);

	if (worker)
		switchboard_dial_cancel(worker->links->peerd->switchboard,
			worker->id, cancel->id);
}

static void handle_dial_ok(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct worker *worker = worker_of(link, arg);

	if (worker)
		switchboard_dial_ok(worker->links->peerd->switchboard,
			worker->id, (void *)msg->payload);
}

static void handle_dial_failed(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct worker *worker = worker_of(link, arg);

	if (worker)
		switchboard_dial_failed(worker->links->peerd->switchboard,
			worker->id, (void *)msg->payload);
}

/* What workers and peerctl may say to us. Anything else drops the link. */
static const struct ipc_handlers handlers[] = {
	{IPC_TUNNEL_SYNC, handle_tunnel_sync},
	{IPC_TUNNEL_UP, handle_tunnel_up},
	{IPC_TUNNEL_DOWN, handle_tunnel_down},
	{IPC_DIAL, handle_dial},
	{IPC_DIAL_CANCEL, handle_dial_cancel},
	{IPC_DIAL_OK, handle_dial_ok},
	{IPC_DIAL_FAILED, handle_dial_failed},
	{IPC_CTL_REQUEST, ctl_handle_request},
	{0, NULL},
};

/* ---- links ---- */

static void on_up(struct ipc_link *link, void *arg)
{
	const Peerway__Ipc__Hello *hello = ipc_link_hello(link);
	struct worker_links *links = arg;
	struct worker *worker;

	if (hello->peer != PEERWAY__IPC__PEER__PEER_WORKER &&
		hello->peer != PEERWAY__IPC__PEER__PEER_CTL) {
		ipc_link_drop(link, "this is peerd's socket for workers");
		return;
	}
	worker = xcalloc(1, sizeof(*worker));
	worker->links = links;
	worker->link = link;
	TAILQ_INSERT_TAIL(&links->all, worker, entry);
	ipc_link_set_arg(link, worker);
	if (hello->peer != PEERWAY__IPC__PEER__PEER_WORKER)
		return;
	worker->id = idmap_add(links->workers, worker);
	metric_add(&links->peerd->metrics, METER_WORKERS, 1);
	log_info("worker linked: worker=%u pid=%u", hello->worker, hello->pid);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	const Peerway__Ipc__Hello *hello = ipc_link_hello(link);
	struct worker *worker = arg;
	struct worker_links *links;

	ctl_link_gone(link);
	/* refused in on_up(): arg is still the server's */
	if (hello && hello->peer != PEERWAY__IPC__PEER__PEER_WORKER &&
		hello->peer != PEERWAY__IPC__PEER__PEER_CTL)
		return;
	links = worker->links;
	if (worker->id) {
		idmap_remove(links->workers, worker->id);
		metric_add(&links->peerd->metrics, METER_WORKERS, -1);
		log_info("worker gone: %s tunnels=%zu", reason,
			switchboard_tunnel_count(
				links->peerd->switchboard, worker->id));
		switchboard_worker_gone(links->peerd->switchboard, worker->id);
	}
	TAILQ_REMOVE(&links->all, worker, entry);
	loop_free_later(links->peerd->loop, free, worker);
}

static const struct ipc_link_ops link_ops = {
	.handlers = handlers,
	.on_up = on_up,
	.on_down = on_down,
};

struct worker_links *worker_links_new(struct peerd *peerd, const char *path)
{
	const struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_PEERD};
	struct worker_links *links = xcalloc(1, sizeof(*links));

	links->peerd = peerd;
	links->workers = idmap_new();
	TAILQ_INIT(&links->all);
	links->server = ipc_server_new(
		peerd->loop, path, 0660, &self, &link_ops, links);
	if (!links->server) {
		idmap_free(links->workers);
		free(links);
		return NULL;
	}
	return links;
}

void worker_links_free(struct worker_links *links)
{
	struct worker *worker;

	if (!links)
		return;
	ipc_server_free(links->server);
	while ((worker = TAILQ_FIRST(&links->all))) {
		TAILQ_REMOVE(&links->all, worker, entry);
		if (worker->id)
			idmap_remove(links->workers, worker->id);
		free(worker);
	}
	idmap_free(links->workers);
	free(links);
}

int worker_links_send(struct worker_links *links, uint64_t link,
	enum ipc_type type, const ProtobufCMessage *payload, int fd)
{
	struct worker *worker = idmap_find(links->workers, link);

	if (worker)
		return ipc_link_send(worker->link, type, payload, fd);
	if (fd >= 0)
		close(fd);
	return -ENOTCONN;
}

uint32_t worker_links_number(const struct worker_links *links, uint64_t link)
{
	const struct worker *worker = idmap_find(links->workers, link);

	return worker ? ipc_link_hello(worker->link)->worker : 0;
}

bool worker_links_draining(const struct worker_links *links)
{
	const struct worker *worker;

	TAILQ_FOREACH (worker, &links->all, entry) {
		if (worker->id && worker->draining)
			return true;
	}
	return false;
}

size_t worker_links_count(const struct worker_links *links)
{
	return idmap_count(links->workers);
}

struct walk {
	void (*fn)(void *arg, uint64_t link, const Peerway__Ipc__Hello *hello);
	void *arg;
};

static void visit(void *arg, void *object)
{
	const struct walk *walk = arg;
	struct worker *worker = object;

	walk->fn(walk->arg, worker->id, ipc_link_hello(worker->link));
}

void worker_links_each(struct worker_links *links,
	void (*fn)(void *arg, uint64_t link, const Peerway__Ipc__Hello *hello),
	void *arg)
{
	struct walk walk = {.fn = fn, .arg = arg};

	idmap_each(links->workers, visit, &walk);
}
