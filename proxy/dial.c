/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dials for this worker's clients. Talks to the tunnel's stream, or to peerd by
 * IPC_DIAL with one end of a socketpair (TLS ends here, and its state cannot
 * travel). Owns the stream or the other end of the pair until the join.
 *
 * What a newcomer gets wrong: a stream's callbacks outlive dial_cancel() (the
 * reset has to go out first), so a canceled dial stays until its stream's end.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proxy/answer.h"
#include "proxy/dial.h"
#include "proxy/registry.h"
#include "proxy/stream.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/relay.h"

#define ATTEMPTS_TEXT_MAX 1024
#define PEERD_GRACE_MS 1000

enum dial_state {
	DIAL_LOCAL,
	DIAL_ASKED,
	DIAL_ANSWERED,
	DIAL_JOINED,
	DIAL_DEAD
};

struct dial {
	LIST_ENTRY(dial) entry; /* in worker->dials while ASKED */
	struct worker *worker;
	uint64_t id;
	enum dial_state state;
	const struct session *session;
	const struct user_identity *user;
	bool local_only;
	const struct dial_ops *ops;
	void *arg;

	struct timer *deadline;
	int64_t deadline_at;
	int64_t began_us;
	struct tunnel_stream *stream; /* NULL: none, or ended */
	int refused;		      /* the agent's status, if not 200 */
	int lost;	   /* the stream ended before it could be joined */
	struct chan *chan; /* our end of the pair */
	struct relay *relay;
	struct loop_task task; /* what cannot be said within a call */
	char attempts[ATTEMPTS_TEXT_MAX];
};

/* Finer than the loop's clock: dials at home take less than a millisecond. */
static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void free_dial(void *arg)
{
	free(arg);
}

/* The only way to DEAD. A stream that has not ended keeps the dial. */
static void dial_drop(struct dial *dial)
{
	if (dial->state == DIAL_ASKED)
		LIST_REMOVE(dial, entry);
	dial->state = DIAL_DEAD;
	loop_cancel(dial->worker->loop, &dial->task);
	timer_free(dial->deadline);
	dial->deadline = NULL;
	chan_free(dial->chan);
	dial->chan = NULL;
	if (dial->relay)
		relay_free(dial->relay);
	dial->relay = NULL;
	if (dial->stream)
		tunnel_stream_reset(dial->stream);
	else
		loop_free_later(dial->worker->loop, free_dial, dial);
}

static uint32_t time_left(const struct dial *dial)
{
	int64_t left = dial->deadline_at - loop_now(dial->worker->loop);

	return left > 0 ? (uint32_t)left : 1;
}

static void note_attempt(struct dial *dial, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void note_attempt(struct dial *dial, const char *format, ...)
{
	size_t used = strlen(dial->attempts);
	va_list ap;

	if (used)
		used += (size_t)snprintf(dial->attempts + used,
			sizeof(dial->attempts) - used, "; ");
	if (used >= sizeof(dial->attempts))
		return;
	va_start(ap, format);
	vsnprintf(dial->attempts + used, sizeof(dial->attempts) - used, format,
		ap);
	va_end(ap);
}

/* One that peerd has asked, and what it said. */
static void note_tried(struct dial *dial, const Peerway__Ipc__Attempt *attempt)
{
	const char *name =
		attempt->hostname[0] ? attempt->hostname : attempt->proxy_id;

	if (attempt->route == PEERWAY__IPC__ROUTE__ROUTE_SIBLING)
		name = "on this host";
	note_attempt(dial, "%s %s: %s (%u ms)",
		answer_route_name(attempt->route), name, attempt->error,
		(unsigned)attempt->ms);
}

static void succeed(struct dial *dial, Peerway__Ipc__Route route,
	const char *proxy_id, int64_t tunnel_worker)
{
	struct dial_answer answer = {
		.ok = true,
		.route = route,
		.proxy_id = proxy_id,
		.tunnel_worker = tunnel_worker,
	};

	if (dial->state == DIAL_ASKED)
		LIST_REMOVE(dial, entry);
	dial->state = DIAL_ANSWERED;
	timer_free(dial->deadline);
	dial->deadline = NULL;
	metric_add(&dial->worker->metrics, proxy_metric_of_route(route), 1);
	metric_observe(&dial->worker->metrics, proxy_metric_of_time(route),
		(uint64_t)(now_us() - dial->began_us));
	dial->ops->on_answer(dial->arg, &answer);
}

static void fail(struct dial *dial, Peerway__Ipc__DialCode code)
{
	struct dial_answer answer = {.code = code, .text = dial->attempts};
	const struct dial_ops *ops = dial->ops;

	/* What an agent or a peer said may hold anything; it is one line. */
	for (char *c = dial->attempts; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	}
	if (!dial->local_only)
		metric_add(
			&dial->worker->metrics, proxy_metric_of_code(code), 1);
	dial_drop(dial);
	ops->on_answer(dial->arg, &answer);
}

static void on_deadline(void *arg)
{
	struct dial *dial = arg;
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;

	note_attempt(dial, "%s: no answer within %u ms",
		dial->state == DIAL_LOCAL ? "local" : "peerd",
		(unsigned)dial->worker->conf->proxy.dial_timeout);
	cancel.id = dial->id;
	if (dial->state == DIAL_ASKED)
		ipc_link_send(
			dial->worker->peerd, IPC_DIAL_CANCEL, &cancel.base, -1);
	fail(dial, PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT);
}

/* --- through peerd --- */

void dial_describe(const struct session *session,
	const struct user_identity *user, char *groups[IDENTITY_GROUPS_MAX],
	Peerway__Ipc__Dial *out)
{
	peerway__ipc__dial__init(out);
	out->connection_id.data = (uint8_t *)session->id;
	out->connection_id.len = sizeof(session->id);
	out->agent_id = (char *)session->match.agent_id;
	out->service = (char *)session->match.service;
	out->port = session->match.port;
	out->type = (char *)session->match.type;
	out->source = (char *)session->source;
	out->user = (char *)(session->user ? session->user : "");
	for (unsigned i = 0; user && i < user->group_count; i++)
		groups[i] = (char *)user->groups[i];
	out->n_groups = user ? user->group_count : 0;
	out->groups = groups;
}

static void ask_peerd(struct dial *dial)
{
	struct worker *worker = dial->worker;
	char *groups[IDENTITY_GROUPS_MAX];
	Peerway__Ipc__Dial message;
	int fds[2];
	int ret;

	ret = sock_pair(fds);
	if (ret) {
		note_attempt(dial, "socketpair: %s", strerror(-ret));
		fail(dial, PEERWAY__IPC__DIAL_CODE__DIAL_INTERNAL);
		return;
	}
	dial->chan = chan_new_fd(worker->loop, fds[0]);
	dial_describe(dial->session, dial->user, groups, &message);
	message.id = dial->id;
	message.deadline_ms = time_left(dial);
	ret = ipc_link_send(worker->peerd, IPC_DIAL, &message.base, fds[1]);
	if (ret) {
		note_attempt(dial, "peerd is not reachable");
		fail(dial, PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE);
		return;
	}
	dial->state = DIAL_ASKED;
	/* peerd's own deadline comes first: it knows what was tried. */
	timer_set(dial->deadline, message.deadline_ms + PEERD_GRACE_MS);
	LIST_INSERT_HEAD(&worker->dials, dial, entry);
}

static struct dial *find_asked(struct worker *worker, uint64_t id)
{
	struct dial *dial;

	LIST_FOREACH (dial, &worker->dials, entry) {
		if (dial->id == id)
			return dial;
	}
	return NULL;
}

void dial_handle_ok(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__DialOk *ok = (Peerway__Ipc__DialOk *)msg->payload;
	struct dial *dial = find_asked(arg, ok->id);
	bool worker_known = ok->route != PEERWAY__IPC__ROUTE__ROUTE_PEER;

	if (dial)
		succeed(dial, ok->route, ok->proxy_id,
			worker_known ? (int64_t)ok->worker : -1);
}

void dial_handle_failed(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__DialFailed *failed =
		(Peerway__Ipc__DialFailed *)msg->payload;
	struct dial *dial = find_asked(arg, failed->id);

	if (!dial)
		return;
	note_attempt(dial, "%s", failed->message);
	for (size_t i = 0; i < failed->n_attempts; i++)
		note_tried(dial, failed->attempts[i]);
	fail(dial, failed->code);
}

void dial_peerd_lost(struct worker *worker)
{
	struct dial *dial;

	while ((dial = LIST_FIRST(&worker->dials))) {
		note_attempt(dial, "the link to peerd was lost");
		fail(dial, PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE);
	}
}

/* --- on a tunnel of this worker --- */

static void report_end(
	struct dial *dial, int error, uint64_t sent, uint64_t received)
{
	const struct dial_ops *ops = dial->ops;

	dial_drop(dial);
	ops->on_end(dial->arg, error, sent, received);
}

static void try_elsewhere(struct dial *dial)
{
	if (dial->local_only)
		fail(dial, PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE);
	else
		ask_peerd(dial);
}

static void local_failed(struct dial *dial, int error)
{
	if (dial->refused) {
		fail(dial, dial->refused == 404
				   ? PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND
				   : PEERWAY__IPC__DIAL_CODE__DIAL_REFUSED);
		return;
	}
	note_attempt(dial, "local: %s", session_error_text(error));
	if (error == -ETIMEDOUT)
		fail(dial, PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT);
	else
		try_elsewhere(dial);
}

static void on_response(
	struct tunnel_stream *stream, void *arg, int status, const char *text)
{
	struct dial *dial = arg;

	if (dial->state != DIAL_LOCAL)
		return;
	if (status == 200) {
		succeed(dial, PEERWAY__IPC__ROUTE__ROUTE_LOCAL,
			dial->worker->proxy_id, dial->worker->number);
		return;
	}
	dial->refused = status;
	note_attempt(dial, "the agent refused: %s",
		text && *text ? text : "no reason given");
}

static void on_stream_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	struct dial *dial = arg;

	dial->stream = NULL;
	switch (dial->state) {
	case DIAL_LOCAL:
		local_failed(dial, result->error);
		break;
	case DIAL_ANSWERED:
		dial->lost = result->error ? result->error : -ECONNRESET;
		break;
	case DIAL_JOINED:
		report_end(dial, result->error, result->sent, result->received);
		break;
	case DIAL_ASKED:
	case DIAL_DEAD:
		loop_free_later(dial->worker->loop, free_dial, dial);
		break;
	}
}

static const struct tunnel_stream_ops stream_ops = {
	.on_response = on_response,
	.on_end = on_stream_end,
};

/* --- */

static void on_begin(struct loop_task *task)
{
	struct dial *dial =
		(struct dial *)((char *)task - offsetof(struct dial, task));
	struct worker *worker = dial->worker;
	struct registry_entry *entry =
		stream_find(worker->registry, &dial->session->match);
	int ret;

	if (!entry) {
		try_elsewhere(dial);
		return;
	}
	ret = stream_open(entry->tunnel, dial->session, time_left(dial),
		&stream_ops, dial, &dial->stream);
	if (!ret)
		return;
	note_attempt(dial, "local: %s",
		ret == -EAGAIN ? "too many streams" : "the tunnel is ending");
	try_elsewhere(dial);
}

struct dial *dial_start(struct worker *worker, const struct dial_ask *ask,
	const struct dial_ops *ops, void *arg)
{
	struct dial *dial = xcalloc(1, sizeof(*dial));

	dial->worker = worker;
	dial->id = ++worker->last_id;
	dial->state = DIAL_LOCAL;
	dial->session = ask->session;
	dial->user = ask->user;
	dial->local_only = ask->local_only;
	dial->ops = ops;
	dial->arg = arg;
	dial->began_us = now_us();
	dial->deadline_at =
		loop_now(worker->loop) + worker->conf->proxy.dial_timeout;
	dial->deadline = timer_new(worker->loop, on_deadline, dial);
	timer_set(dial->deadline, worker->conf->proxy.dial_timeout);
	dial->task.run = on_begin;
	loop_defer(worker->loop, &dial->task);
	return dial;
}

void dial_counts(
	const struct dial *dial, uint64_t *sent_out, uint64_t *received_out)
{
	*sent_out = 0;
	*received_out = 0;
	if (dial->relay)
		relay_counts(dial->relay, sent_out, received_out);
	else if (dial->stream)
		tunnel_stream_counts(dial->stream, sent_out, received_out);
}

static void on_relay_end(void *arg, const struct relay_result *result)
{
	struct dial *dial = arg;

	dial->relay = NULL;
	report_end(dial, result->error, result->a_to_b, result->b_to_a);
}

static void on_lost(struct loop_task *task)
{
	struct dial *dial =
		(struct dial *)((char *)task - offsetof(struct dial, task));

	report_end(dial, dial->lost, 0, 0);
}

void dial_join(
	struct dial *dial, struct chan *chan, const void *first, size_t len)
{
	struct worker *worker = dial->worker;

	dial->state = DIAL_JOINED;
	if (dial->stream) {
		tunnel_stream_join(dial->stream, chan, first, len);
	} else if (dial->chan) {
		dial->relay = relay_new(worker->loop, chan, dial->chan, first,
			len, on_relay_end, dial);
		dial->chan = NULL;
	} else {
		chan_abort(chan);
		chan_free(chan);
		dial->task.run = on_lost;
		loop_defer(worker->loop, &dial->task);
	}
}

void dial_cancel(struct dial *dial)
{
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;

	cancel.id = dial->id;
	if (dial->state == DIAL_ASKED)
		ipc_link_send(
			dial->worker->peerd, IPC_DIAL_CANCEL, &cancel.base, -1);
	if (dial->state < DIAL_ANSWERED)
		metric_add(&dial->worker->metrics, PROXY_DIAL_CANCELED, 1);
	dial_drop(dial);
}
