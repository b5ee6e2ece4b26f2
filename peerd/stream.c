/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes between a call and a descriptor: see stream.h for the states. Owns the
 * descriptor; the call belongs to server.c or client.c.
 *
 * Runs on the loop's thread and on gRPC's completion thread, without locks.
 * The parts that only one thread may touch are marked. References: one for each
 * direction, one for receiving, one for the call's end, one for each batch or
 * posted task beside them; the last one posts the end to the loop.
 *
 * A newcomer's trap: RECV_STATUS and RECV_CLOSE say that the call is over, not
 * that what it brought has been written to the descriptor. Only the receiving
 * direction knows that.
 */
#include "peerd/stream.h"

#include <assert.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "peerd/meters.h"
#include "peerd/stream_private.h"
#include "shared/alloc.h"
#include "shared/sock.h"

/* ---- references ---- */

void stream_ref(struct stream *s)
{
	atomic_fetch_add(&s->refs, 1);
}

void stream_unref(struct stream *s)
{
	if (atomic_fetch_sub(&s->refs, 1) == 1)
		loop_post(s->hub->loop, &s->end_task);
}

void stream_half_done(struct stream *s, struct half *half)
{
	half_finish(half);
	stream_unref(s);
}

/* ---- the end ---- */

void stream_note_end(struct stream *s, bool clean, const char *why)
{
	if (atomic_exchange(&s->noted, true))
		return;
	s->clean = clean;
	snprintf(s->why, sizeof(s->why), "%s", why);
}

void stream_start(struct stream *s, const grpc_op *op, struct rpc_tag *tag)
{
	grpc_call_error error =
		grpc_call_start_batch(s->call, op, 1, tag, NULL);

	assert(error == GRPC_CALL_OK); /* else ops contradict each other */
	(void)error;
}

void stream_note_eof(struct stream *s, const char *who)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&s->first_end, &none, who);
}

void stream_expect_end(struct stream *s)
{
	if (atomic_exchange(&s->guard_posted, true))
		return;
	stream_ref(s);
	loop_post(s->hub->loop, &s->guard_task);
}

void stream_send_status(
	struct stream *s, grpc_status_code status, const char *text)
{
	grpc_slice details = grpc_slice_from_copied_string(text);
	grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};

	if (!atomic_exchange(&s->status_sent, true)) {
		op.data.send_status_from_server.status = status;
		op.data.send_status_from_server.status_details = &details;
		stream_ref(s);
		stream_start(s, &op, &s->finish_tag);
		stream_expect_end(s);
	}
	grpc_slice_unref(details);
}

void stream_send_close(struct stream *s)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	stream_ref(s);
	stream_start(s, &op, &s->finish_tag);
	stream_expect_end(s);
}

static void on_finished(struct rpc_tag *tag, bool ok)
{
	stream_unref(STREAM_OF(tag, finish_tag));
}

void stream_cut(struct stream *s, const char *why)
{
	stream_note_end(s, false, why);
	if (s->setup.side == STREAM_CALLEE)
		stream_send_status(s, GRPC_STATUS_UNAVAILABLE, why);
	else
		grpc_call_cancel(s->call, NULL);
}

/* ---- on the loop's thread ---- */

static void on_edge(struct edge *edge)
{
	struct stream *s = STREAM_OF(edge, edge);

	stream_ref(s);
	if (half_wake(&s->rx))
		stream_rx_pump(s);
	if (half_wake(&s->tx))
		stream_tx_pump(s);
	stream_unref(s);
}

static void on_guard(void *arg)
{
	struct stream *s = arg;
	uint64_t received = atomic_load(&s->received);

	if (!s->call_over) {
		stream_note_end(s, false, "the far end did not end the stream");
		grpc_call_cancel(s->call, NULL);
	} else if (received != s->received_at_guard) {
		s->received_at_guard = received;
		timer_set(s->guard, STREAM_END_MS);
	} else {
		stream_ref(s);
		stream_rx_stop(s);
		stream_unref(s);
	}
}

static void set_guard(struct stream *s)
{
	if (!s->guard)
		s->guard = timer_new(s->hub->loop, on_guard, s);
	s->received_at_guard = atomic_load(&s->received);
	timer_set(s->guard, STREAM_END_MS);
}

static void run_guard(struct loop_task *task)
{
	struct stream *s = STREAM_OF(task, guard_task);

	if (!s->call_over)
		set_guard(s);
	stream_unref(s);
}

/* An end of a pair is closed at once only when it was torn, or when both
 * directions have ended: sock_pair(). */
static void close_fd(struct stream *s)
{
	edges_remove(s->hub->edges, s->fd);
	if (s->clean)
		sock_end_on_close(s->fd);
	if (s->clean && !(s->read_all && s->told_end))
		partings_close(s->hub->partings, s->fd);
	else
		close(s->fd);
}

static enum meter side_meter(const struct stream *s)
{
	return s->setup.side == STREAM_CALLER ? METER_STREAMS_CALLER
					      : METER_STREAMS_CALLEE;
}

static void run_end(struct loop_task *task)
{
	struct stream *s = STREAM_OF(task, end_task);
	struct stream_result result = {
		.clean = s->clean,
		.why = s->why,
		.sent = s->sent,
		.received = atomic_load(&s->received),
	};

	timer_free(s->guard);
	stream_rx_deinit(s);
	metric_add(s->hub->metrics, side_meter(s), -1);
	s->setup.on_end(s->setup.arg, &result);
	close_fd(s);
	loop_free_later(s->hub->loop, free, s);
}

struct stream *stream_new(
	struct stream_hub *hub, const struct stream_setup *setup)
{
	struct stream *s = xcalloc(1, sizeof(*s));

	s->hub = hub;
	s->setup = *setup;
	s->call = setup->call;
	s->fd = setup->fd;
	s->meter = rpc_meter(hub->rpc,
		setup->side == STREAM_CALLER ? RPC_CLIENT : RPC_SERVER,
		RPC_DIAL);
	s->edge.on_edge = on_edge;
	stream_tx_init(s);
	stream_rx_init(s);
	s->finish_tag =
		(struct rpc_tag){.where = RPC_INLINE, .run = on_finished};
	s->guard_task.run = run_guard;
	s->end_task.run = run_end;
	/* tx, rx, receiving, the call's end, and ours here */
	atomic_store(&s->refs, 5);
	metric_add(hub->metrics, side_meter(s), 1);
	/* If we were killed, the kernel would end a client's socket as if all
	 * had been said. */
	sock_reset_on_close(s->fd);
	if (edges_add(hub->edges, s->fd, &s->edge) < 0) {
		stream_cut(s, "descriptor cannot be watched");
		stream_half_done(s, &s->tx);
		stream_half_done(s, &s->rx);
		stream_unref(s); /* nothing is received */
	} else {
		stream_rx_receive(s);
		stream_rx_pump(s);
		stream_tx_pump(s);
	}
	stream_unref(s);
	return s;
}

void stream_call_over(
	struct stream *s, grpc_status_code status, const char *details)
{
	bool callee = s->setup.side == STREAM_CALLEE;
	const char *first_end = atomic_load(&s->first_end);

	s->call_over = true;
	/* Cancelling is how the reference's clients close. */
	if (callee && !stream_has(s, EXT_EOF))
		stream_note_end(s, true, details);
	stream_note_end(s, status == GRPC_STATUS_OK,
		status == GRPC_STATUS_OK && first_end ? first_end : details);
	stream_tx_stop(s);
	/* What has arrived is still written: all of it when the far end ended
	 * in order, and what is at hand when a caller hung up, which is how
	 * the reference's clients close. */
	if (status != GRPC_STATUS_OK && !callee)
		stream_rx_stop(s);
	set_guard(s);
	stream_unref(s);
}

void stream_abort(struct stream *s, const char *why)
{
	stream_ref(s);
	stream_note_end(s, false, why);
	grpc_call_cancel(s->call, NULL);
	stream_tx_stop(s);
	stream_rx_stop(s);
	stream_unref(s);
}
