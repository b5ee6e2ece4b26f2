/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tunnel's side of sibling and peer routes. Owns the descriptor until it is
 * joined; afterwards the tunnel does, and peerd may die without harm.
 *
 * What a newcomer gets wrong: a raw descriptor that is not joined is closed
 * here without a reset. Resetting is a property of the socket, not of the
 * descriptor, and peerd may still have it and another way to try.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/registry.h"
#include "proxy/serve_dial.h"
#include "proxy/session.h"
#include "proxy/stream.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define REASON_MAX 512

struct served {
	LIST_ENTRY(served) entry; /* in worker->served while waiting */
	struct worker *worker;
	uint64_t id; /* peerd's */
	enum { SERVED_WAITING, SERVED_JOINED, SERVED_DEAD } state;
	int fd;			      /* -1: joined or closed */
	struct tunnel_stream *stream; /* NULL: none, or ended */
	struct session session;
	Peerway__Ipc__DialCode code; /* why it was refused */
	char reason[REASON_MAX];
};

static void free_served(void *arg)
{
	struct served *served = arg;

	session_deinit(&served->session);
	free(served);
}

/* Stops waiting; a stream that has not ended keeps the object. */
static void give_up(struct served *served)
{
	LIST_REMOVE(served, entry);
	served->state = SERVED_DEAD;
	if (served->fd >= 0)
		close(served->fd);
	served->fd = -1;
	if (served->stream)
		tunnel_stream_reset(served->stream);
	else
		loop_free_later(served->worker->loop, free_served, served);
}

static void answer_failed(struct served *served)
{
	Peerway__Ipc__DialFailed failed = PEERWAY__IPC__DIAL_FAILED__INIT;

	failed.id = served->id;
	failed.code = served->code;
	failed.message = served->reason;
	ipc_link_send(served->worker->peerd, IPC_DIAL_FAILED, &failed.base, -1);
	metric_add(&served->worker->metrics, PROXY_SERVED_FAILED, 1);
	log_limited(LOG_INFO,
		"dial for peerd failed: %s agent=%s service=%s source=%s "
		"conn=%s",
		served->reason, served->session.match.agent_id,
		served->session.match.service, served->session.source,
		served->session.id_text);
	give_up(served);
}

static void refuse(
	struct served *served, Peerway__Ipc__DialCode code, const char *reason)
{
	served->code = code;
	snprintf(served->reason, sizeof(served->reason), "%s", reason);
	answer_failed(served);
}

static void answer_ok(struct served *served)
{
	struct worker *worker = served->worker;
	Peerway__Ipc__DialOk ok = PEERWAY__IPC__DIAL_OK__INIT;

	ok.id = served->id;
	ok.route = served->session.route;
	ok.proxy_id = worker->proxy_id;
	ok.worker = worker->number;
	ipc_link_send(worker->peerd, IPC_DIAL_OK, &ok.base, -1);
	metric_add(&worker->metrics, PROXY_SERVED_OK, 1);
}

static void on_response(
	struct tunnel_stream *stream, void *arg, int status, const char *text)
{
	struct served *served = arg;
	struct chan *chan;

	if (served->state != SERVED_WAITING)
		return;
	if (status != 200) {
		served->code = status == 404
				       ? PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND
				       : PEERWAY__IPC__DIAL_CODE__DIAL_REFUSED;
		snprintf(served->reason, sizeof(served->reason),
			"the agent refused: %s",
			text && *text ? text : "no reason given");
		return;
	}
	answer_ok(served);
	LIST_REMOVE(served, entry);
	served->state = SERVED_JOINED;
	worker_session_begins(served->worker);
	chan = chan_new_fd(served->worker->loop, served->fd);
	served->fd = -1;
	tunnel_stream_join(stream, chan, NULL, 0);
}

static void on_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	struct served *served = arg;
	struct worker *worker = served->worker;

	served->stream = NULL;
	if (served->state == SERVED_JOINED) {
		worker_session_ends(worker, result->sent, result->received);
		session_log_end(&served->session, "stream ended",
			loop_now(worker->loop), result->error, result->sent,
			result->received);
	}
	if (served->state != SERVED_WAITING) {
		loop_free_later(worker->loop, free_served, served);
		return;
	}
	if (!served->code) {
		served->code = result->error == -ETIMEDOUT
				       ? PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT
				       : PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE;
		snprintf(served->reason, sizeof(served->reason), "%s",
			session_error_text(result->error));
	}
	answer_failed(served);
}

static const struct tunnel_stream_ops stream_ops = {
	.on_response = on_response,
	.on_end = on_end,
};

/* The service that a dial without a name means: the only one of its type (and
 * of its port, if it has one). */
static const struct registration_service *only_service(
	const struct registration *registration, const Peerway__Ipc__Dial *dial)
{
	const struct registration_service *found = NULL;

	for (size_t i = 0; i < registration->service_count; i++) {
		const struct registration_service *service =
			&registration->services[i];

		if (*dial->type && strcmp(service->type, dial->type) != 0)
			continue;
		if (dial->port && service->port != dial->port)
			continue;
		if (found)
			return NULL;
		found = service;
	}
	return found;
}

/* Newest tunnel that is usable and has the service; fills the session. */
static struct registry_entry *find_tunnel(
	struct served *served, const Peerway__Ipc__Dial *dial)
{
	struct target_match *match = &served->session.match;
	struct registry_entry *entry =
		registry_newest(served->worker->registry, dial->agent_id);

	for (; entry; entry = registry_older(entry)) {
		const struct registration_service *service =
			*dial->service
				? registration_find(
					  entry->registration, dial->service)
				: only_service(entry->registration, dial);

		if (!service || !tunnel_is_ready(entry->tunnel))
			continue;
		memcpy(match->service, service->name, sizeof(match->service));
		memcpy(match->type, service->type, sizeof(match->type));
		match->port = service->port;
		return entry;
	}
	return NULL;
}

static struct served *served_new(
	struct worker *worker, const Peerway__Ipc__Dial *dial, int fd)
{
	struct served *served = xcalloc(1, sizeof(*served));
	struct session *session = &served->session;

	served->worker = worker;
	served->id = dial->id;
	served->fd = fd;
	served->state = SERVED_WAITING;
	LIST_INSERT_HEAD(&worker->served, served, entry);
	session_init_from(
		session, loop_now(worker->loop), dial->connection_id.data);
	session->route = dial->from_peer ? PEERWAY__IPC__ROUTE__ROUTE_PEER
					 : PEERWAY__IPC__ROUTE__ROUTE_SIBLING;
	if (*dial->user)
		session->user = xstrdup(dial->user);
	snprintf(session->source, sizeof(session->source), "%s", dial->source);
	snprintf(session->match.agent_id, sizeof(session->match.agent_id), "%s",
		dial->agent_id);
	snprintf(session->match.service, sizeof(session->match.service), "%s",
		dial->service);
	return served;
}

void serve_dial_handle(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct worker *worker = arg;
	const Peerway__Ipc__Dial *dial =
		(const Peerway__Ipc__Dial *)msg->payload;
	uint32_t deadline_ms = worker->conf->proxy.dial_timeout;
	struct served *served;
	struct registry_entry *entry;
	int ret;

	if (dial->connection_id.len != SESSION_ID_SIZE) {
		ipc_link_drop(link, "dial with a bad connection id");
		return;
	}
	served = served_new(worker, dial, ipc_take_fd(msg));
	entry = find_tunnel(served, dial);
	if (!entry) {
		bool known = registry_newest(worker->registry, dial->agent_id);

		refuse(served,
			known ? PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND
			      : PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE,
			known ? "the agent has no such service (or several)"
			      : "no tunnel of the agent is here");
		return;
	}
	if (dial->deadline_ms && dial->deadline_ms < deadline_ms)
		deadline_ms = dial->deadline_ms;
	ret = stream_open(entry->tunnel, &served->session, deadline_ms,
		&stream_ops, served, &served->stream);
	if (ret)
		refuse(served, PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE,
			ret == -EAGAIN ? "too many streams"
				       : "the tunnel is ending");
}

void serve_dial_handle_cancel(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct worker *worker = arg;
	uint64_t id = ((Peerway__Ipc__DialCancel *)msg->payload)->id;
	struct served *served;

	LIST_FOREACH (served, &worker->served, entry) {
		if (served->id == id) {
			give_up(served);
			return;
		}
	}
}

void serve_dial_peerd_lost(struct worker *worker)
{
	struct served *served;

	while ((served = LIST_FIRST(&worker->served)))
		give_up(served);
}
