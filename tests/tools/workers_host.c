/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One host: the link to its routed, the tunnels reported there, the cache that
 * routed announces. Owns all of them.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/log.h"
#include "tests/tools/workers.h"

#define SYNC_PART 150 /* tunnels in a message; each is about 200 bytes */
#define HOLDERS_MAX 8

static uint64_t number_of(const struct host *host, unsigned tunnel)
{
	return (uint64_t)host->number * host->workers->tunnels + tunnel;
}

/* ---- reporting ---- */

static void fill(const struct host *host, unsigned tunnel,
	Peerway__Ipc__Tunnel *out, struct workers_record *record)
{
	workers_record(record, number_of(host, tunnel), host->since[tunnel]);
	peerway__ipc__tunnel__init(out);
	out->tunnel_id = tunnel + 1;
	out->remote_addr = (char *)"192.0.2.1:1";
	out->record = &record->record;
}

static void sync_part(struct host *host, unsigned from, unsigned to)
{
	Peerway__Ipc__Tunnel tunnels[SYNC_PART], *list[SYNC_PART];
	struct workers_record records[SYNC_PART];
	Peerway__Ipc__TunnelSync sync = PEERWAY__IPC__TUNNEL_SYNC__INIT;

	sync.first = from == 0;
	sync.last = to == host->workers->tunnels;
	sync.tunnels = list;
	for (unsigned t = from; t < to; t++) {
		size_t n = sync.n_tunnels;

		if (!host->since[t])
			continue;
		fill(host, t, &tunnels[n], &records[n]);
		list[sync.n_tunnels++] = &tunnels[n];
	}
	ipc_link_send(host->link, IPC_TUNNEL_SYNC, &sync.base, -1);
}

static void on_up(struct ipc_link *link, void *arg)
{
	struct host *host = arg;
	unsigned end = host->workers->tunnels;
	unsigned from = 0;

	do {
		unsigned to = end - from > SYNC_PART ? from + SYNC_PART : end;

		sync_part(host, from, to);
		from = to;
	} while (from < end);
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct host *host = arg;

	changes_host_gone(host->workers->changes, host);
}

void host_report(struct host *host, unsigned tunnel, uint64_t since)
{
	Peerway__Ipc__TunnelDown down = PEERWAY__IPC__TUNNEL_DOWN__INIT;
	Peerway__Ipc__TunnelUp up = PEERWAY__IPC__TUNNEL_UP__INIT;
	Peerway__Ipc__Tunnel message;
	struct workers_record record;

	host->since[tunnel] = since;
	if (since) {
		fill(host, tunnel, &message, &record);
		up.tunnel = &message;
		ipc_link_send(host->link, IPC_TUNNEL_UP, &up.base, -1);
	} else {
		down.tunnel_id = tunnel + 1;
		down.reason = (char *)"test";
		ipc_link_send(host->link, IPC_TUNNEL_DOWN, &down.base, -1);
	}
}

/* ---- the cache ---- */

static void open_cache(struct host *host, const char *path)
{
	char *error = NULL;

	cache_close(host->cache);
	free(host->path);
	host->path = xstrdup(path);
	host->cache = cache_open(path, &error);
	if (!host->cache)
		die("%s", error);
}

bool host_has(struct host *host, const struct host *of, unsigned tunnel,
	uint64_t since)
{
	Peerway__Record__TunnelRecord *found[HOLDERS_MAX];
	char agent_id[37];
	int count;
	bool equal;

	if (!host->cache)
		return false;
	workers_agent_id(number_of(of, tunnel), agent_id);
	count = cache_tunnels(host->cache, agent_id, found, HOLDERS_MAX);
	if (count < 0)
		die("%s cannot be read", host->path);
	equal = since ? count == 1 && found[0]->since_ms == since : count == 0;
	while (count > 0)
		peerway__record__tunnel_record__free_unpacked(
			found[--count], NULL);
	return equal;
}

static void on_look(struct loop_task *task)
{
	struct host *host =
		(void *)((char *)task - offsetof(struct host, look));

	changes_look(host->workers->changes, host);
}

static void handle_cache(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__Cache *cache = (const void *)msg->payload;
	struct host *host = arg;

	if (!host->path || strcmp(host->path, cache->path) != 0)
		open_cache(host, cache->path);
	host->commits++;
	loop_defer(host->workers->loop, &host->look);
}

static void ignore(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
}

static const struct ipc_handlers handlers[] = {
	{IPC_CACHE, handle_cache},
	{IPC_IDENTITY, ignore},
	{IPC_TUNNEL_MOVE, ignore},
	{0, NULL},
};

static const struct ipc_link_ops ops = {handlers, on_up, on_down};

/* ---- the whole ---- */

void host_start(struct host *host, struct workers *workers, unsigned number,
	const char *socket)
{
	static const struct ipc_self self = {
		.peer = PEERWAY__IPC__PEER__PEER_WORKER, .workers = 1};

	host->workers = workers;
	host->number = number;
	host->look.run = on_look;
	host->since = xcalloc(workers->tunnels + 1, sizeof(*host->since));
	for (unsigned t = 0; t < workers->tunnels; t++)
		host->since[t] = ++workers->since;
	host->link = ipc_link_connect(workers->loop, socket, &self, &ops, host);
}

void host_stop(struct host *host)
{
	ipc_link_free(host->link);
	loop_cancel(host->workers->loop, &host->look);
	cache_close(host->cache);
	free(host->path);
	free(host->since);
}
