/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registry entries as messages. Owns nothing: a message is built, sent and
 * freed within one call.
 *
 * What a newcomer gets wrong: one tunnel's record can be nearly as large as a
 * message may be (256 services), so the full list goes out in parts by size.
 */
#include <stdlib.h>

#include "proxy/announce.h"
#include "proxy/drain.h"
#include "proxy/registry.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/ipc_link.h"

#define PART_BYTES 60000
#define PART_TUNNELS 512

/* A tunnel's message with the arrays it points to; its text is the entry's. */
struct record {
	Peerway__Ipc__Tunnel tunnel;
	Peerway__Record__TunnelRecord record;
	Peerway__Record__Label *labels;
	Peerway__Record__Label **label_ptrs;
	Peerway__Record__Service *services;
	Peerway__Record__Service **service_ptrs;
};

static void add_labels(struct record *out, const struct registration *from)
{
	out->labels = xcalloc(from->label_count + 1, sizeof(*out->labels));
	out->label_ptrs =
		xcalloc(from->label_count + 1, sizeof(*out->label_ptrs));
	for (size_t i = 0; i < from->label_count; i++) {
		peerway__record__label__init(&out->labels[i]);
		out->labels[i].name = from->labels[i].name;
		out->labels[i].value = from->labels[i].value;
		out->label_ptrs[i] = &out->labels[i];
	}
	out->record.n_labels = from->label_count;
	out->record.labels = out->label_ptrs;
}

static void add_services(struct record *out, const struct registration *from)
{
	out->services =
		xcalloc(from->service_count + 1, sizeof(*out->services));
	out->service_ptrs =
		xcalloc(from->service_count + 1, sizeof(*out->service_ptrs));
	for (size_t i = 0; i < from->service_count; i++) {
		peerway__record__service__init(&out->services[i]);
		out->services[i].name = from->services[i].name;
		out->services[i].type = from->services[i].type;
		out->services[i].port = from->services[i].port;
		out->service_ptrs[i] = &out->services[i];
	}
	out->record.n_services = from->service_count;
	out->record.services = out->service_ptrs;
}

static struct record *record_new(
	struct worker *worker, const struct registry_entry *entry)
{
	struct record *out = xcalloc(1, sizeof(*out));
	struct registration *registration = entry->registration;

	peerway__ipc__tunnel__init(&out->tunnel);
	peerway__record__tunnel_record__init(&out->record);
	out->tunnel.tunnel_id = entry->tunnel_id;
	out->tunnel.remote_addr = entry->remote_addr;
	out->tunnel.record = &out->record;
	out->record.agent_id = registration->agent_id;
	out->record.proxy_id = worker->proxy_id;
	out->record.name = registration->name;
	out->record.since_ms = entry->since_ms;
	add_labels(out, registration);
	add_services(out, registration);
	return out;
}

static void record_free(struct record *record)
{
	free(record->labels);
	free(record->label_ptrs);
	free(record->services);
	free(record->service_ptrs);
	free(record);
}

/* One TUNNEL_SYNC under way. */
struct sync {
	struct ipc_link *link;
	Peerway__Ipc__TunnelSync message;
	struct record *records[PART_TUNNELS];
	Peerway__Ipc__Tunnel *tunnels[PART_TUNNELS];
	size_t bytes;
};

static void send_part(struct sync *sync, bool last)
{
	sync->message.last = last;
	sync->message.tunnels = sync->tunnels;
	ipc_link_send(sync->link, IPC_TUNNEL_SYNC, &sync->message.base, -1);
	for (size_t i = 0; i < sync->message.n_tunnels; i++)
		record_free(sync->records[i]);
	sync->message.n_tunnels = 0;
	sync->message.first = false;
	sync->bytes = 0;
}

void announce_all(struct worker *worker, struct ipc_link *link)
{
	struct sync sync = {.link = link};
	struct registry_entry *entry = NULL;

	peerway__ipc__tunnel_sync__init(&sync.message);
	sync.message.first = true;
	sync.message.draining = drain_is_on(worker->drain);
	while ((entry = registry_next(worker->registry, entry))) {
		struct record *record = record_new(worker, entry);
		size_t bytes = 8 + peerway__ipc__tunnel__get_packed_size(
					   &record->tunnel);
		size_t n = sync.message.n_tunnels;

		if (n == PART_TUNNELS ||
			(n && sync.bytes + bytes > PART_BYTES)) {
			send_part(&sync, false);
			n = 0;
		}
		sync.records[n] = record;
		sync.tunnels[n] = &record->tunnel;
		sync.message.n_tunnels = n + 1;
		sync.bytes += bytes;
	}
	send_part(&sync, true);
}

void announce_draining(struct worker *worker)
{
	Peerway__Ipc__TunnelSync message = PEERWAY__IPC__TUNNEL_SYNC__INIT;

	announce_all(worker, worker->routed);
	message.last = true;
	message.draining = drain_is_on(worker->drain);
	ipc_link_send(worker->peerd, IPC_TUNNEL_SYNC, &message.base, -1);
}

void announce_up(struct worker *worker, const struct registry_entry *entry)
{
	Peerway__Ipc__TunnelUp message = PEERWAY__IPC__TUNNEL_UP__INIT;
	struct record *record = record_new(worker, entry);

	message.tunnel = &record->tunnel;
	ipc_link_send(worker->peerd, IPC_TUNNEL_UP, &message.base, -1);
	ipc_link_send(worker->routed, IPC_TUNNEL_UP, &message.base, -1);
	record_free(record);
}

void announce_down(struct worker *worker, const struct registry_entry *entry,
	const char *reason)
{
	Peerway__Ipc__TunnelDown message = PEERWAY__IPC__TUNNEL_DOWN__INIT;

	message.tunnel_id = entry->tunnel_id;
	message.reason = (char *)reason;
	ipc_link_send(worker->peerd, IPC_TUNNEL_DOWN, &message.base, -1);
	ipc_link_send(worker->routed, IPC_TUNNEL_DOWN, &message.base, -1);
}
