/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes between a call and a descriptor: see stream.h for the states. Owns the
 * descriptor; the call belongs to server.c or client.c.
 *
 * Runs on the loop's thread and on gRPC's completion thread, without locks.
 * The parts that only one thread may touch are marked. References: one for each
 * direction, one for the call's end, one for each batch or posted task beside
 * them; the last one posts the end to the loop.
 *
 * A newcomer's trap: RECV_STATUS and RECV_CLOSE say that the call is over, not
 * that what it brought has been written to the descriptor. Only the receiving
 * direction knows that.
 */
#include "peerd/stream.h"

#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peerd/frame.h"
#include "peerd/meters.h"
#include "shared/alloc.h"
#include "shared/rpc.h"
#include "shared/sock.h"

/* A message in more pieces is gathered into one first. */
#define PIECES_MAX 64
/* Below this a copy of the exact size is better than pinning a whole page. */
#define COPY_BELOW 4096

enum half_state { BUSY, WAITING, SIGNALLED, DONE };

struct half {
	_Atomic int state;
	atomic_bool stop; /* set before the half is woken */
};

struct stream {
	struct stream_hub *hub;
	struct stream_setup setup;
	grpc_call *call;
	struct edge edge;
	int fd;
	atomic_uint refs;

	/* from the descriptor into the call; tx's holder's */
	struct half tx;
	struct rpc_tag send_tag;
	grpc_byte_buffer *sending;
	size_t sending_len;
	uint64_t sent;

	/* from the call to the descriptor; rx's holder's */
	struct half rx;
	struct rpc_tag receive_tag;
	grpc_byte_buffer *message;
	size_t offset; /* into message, of what is still to be written */
	size_t left;
	size_t held;  /* counted in METER_BYTES_HELD */
	bool discard; /* the descriptor takes nothing any more */
	_Atomic uint64_t received;

	/* the end */
	struct rpc_tag finish_tag;
	atomic_bool status_sent;
	atomic_bool noted; /* clean and why are set, by who set this */
	bool clean;
	char why[160];
	struct loop_task guard_task;
	atomic_bool guard_posted;
	struct loop_task end_task;

	/* the loop's thread only */
	struct timer *guard;
	uint64_t received_at_guard;
	bool call_over;
};

#define STREAM_OF(ptr, field) \
	((struct stream *)((char *)(ptr)-offsetof(struct stream, field)))

static void tx_pump(struct stream *s);
static void rx_pump(struct stream *s);

/* ---- a direction's state ---- */

/* True: left waiting, whoever wakes it goes on. False: go on, still BUSY. */
static bool half_park(struct half *half)
{
	int expected = BUSY;

	if (!atomic_compare_exchange_strong(&half->state, &expected, WAITING)) {
		atomic_store(&half->state, BUSY); /* was SIGNALLED */
		return false;
	}
	if (!atomic_load(&half->stop))
		return true;
	/* Told to stop between our last look and parking: take it back,
	 * unless the one who told us has. */
	expected = WAITING;
	return !atomic_compare_exchange_strong(&half->state, &expected, BUSY);
}

/* True: it was waiting and is the caller's now. */
static bool half_wake(struct half *half)
{
	int state = atomic_load(&half->state);

	while (state == WAITING || state == BUSY) {
		int next = state == WAITING ? BUSY : SIGNALLED;

		if (atomic_compare_exchange_weak(&half->state, &state, next))
			return next == BUSY;
	}
	return false;
}

static void stream_ref(struct stream *s)
{
	atomic_fetch_add(&s->refs, 1);
}

static void stream_unref(struct stream *s)
{
	if (atomic_fetch_sub(&s->refs, 1) == 1)
		loop_post(s->hub->loop, &s->end_task);
}

static void half_done(struct stream *s, struct half *half)
{
	atomic_store(&half->state, DONE);
	stream_unref(s);
}

static void stop_tx(struct stream *s)
{
	atomic_store(&s->tx.stop, true);
	if (half_wake(&s->tx))
		tx_pump(s);
}

static void stop_rx(struct stream *s)
{
	atomic_store(&s->rx.stop, true);
	if (half_wake(&s->rx))
		rx_pump(s);
}

/* ---- the end ---- */

/* The first reason is the one that is reported. */
static void note_end(struct stream *s, bool clean, const char *why)
{
	if (atomic_exchange(&s->noted, true))
		return;
	s->clean = clean;
	snprintf(s->why, sizeof(s->why), "%s", why);
}

static void start(struct stream *s, const grpc_op *op, struct rpc_tag *tag)
{
	grpc_call_error error =
		grpc_call_start_batch(s->call, op, 1, tag, NULL);

	assert(error == GRPC_CALL_OK); /* else ops contradict each other */
	(void)error;
}

/* From now on the end has a deadline. */
static void post_guard(struct stream *s)
{
	if (atomic_exchange(&s->guard_posted, true))
		return;
	stream_ref(s);
	loop_post(s->hub->loop, &s->guard_task);
}

/* Callee: the last word to the far side. */
static void send_status(
	struct stream *s, grpc_status_code status, const char *text)
{
	grpc_slice details = grpc_slice_from_copied_string(text);
	grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};

	if (!atomic_exchange(&s->status_sent, true)) {
		op.data.send_status_from_server.status = status;
		op.data.send_status_from_server.status_details = &details;
		stream_ref(s);
		start(s, &op, &s->finish_tag);
		post_guard(s);
	}
	grpc_slice_unref(details);
}

/* Caller: no more from us. The far side ends the call in answer. */
static void send_close(struct stream *s)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	stream_ref(s);
	start(s, &op, &s->finish_tag);
	post_guard(s);
}

static void on_finished(struct rpc_tag *tag, bool ok)
{
	stream_unref(STREAM_OF(tag, finish_tag));
}

/* The call cannot go on; its end will tell the directions. */
static void cut(struct stream *s, const char *why)
{
	note_end(s, false, why);
	if (s->setup.side == STREAM_CALLEE)
		send_status(s, GRPC_STATUS_UNAVAILABLE, why);
	else
		grpc_call_cancel(s->call, NULL);
}

/* ---- from the descriptor into the call ---- */

static void tx_ended(struct stream *s)
{
	note_end(s, true,
		s->setup.side == STREAM_CALLER ? "client closed"
					       : "agent closed");
	if (s->setup.side == STREAM_CALLER)
		send_close(s);
	else
		send_status(s, GRPC_STATUS_OK, "");
	half_done(s, &s->tx);
}

static void tx_failed(struct stream *s, int error)
{
	char why[120];

	snprintf(why, sizeof(why), "failed to read from the %s: %s",
		s->setup.side == STREAM_CALLER ? "client" : "agent",
		strerror(error));
	cut(s, why);
	half_done(s, &s->tx);
}

/* Takes slice, of which len bytes are filled. */
static void tx_send(struct stream *s, grpc_slice slice, size_t len)
{
	uint8_t header[FRAME_HEADER_MAX];
	size_t header_len = frame_data_header(header, len);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	grpc_slice slices[2];

	slices[0] = grpc_slice_from_copied_buffer((char *)header, header_len);
	if (len < COPY_BELOW) {
		slices[1] = grpc_slice_from_copied_buffer(
			(char *)GRPC_SLICE_START_PTR(slice), len);
		grpc_slice_unref(slice);
	} else {
		slices[1] = grpc_slice_sub_no_ref(slice, 0, len);
	}
	s->sending_len = len;
	s->sending = grpc_raw_byte_buffer_create(slices, 2);
	grpc_slice_unref(slices[0]);
	grpc_slice_unref(slices[1]);
	op.data.send_message.send_message = s->sending;
	start(s, &op, &s->send_tag);
}

/* The reset of a UNIX socket only says that the worker's end was closed before
 * it had read all; what it wrote has been read by now. */
static bool is_end(const struct stream *s, ssize_t n)
{
	return n == 0 ||
	       (errno == ECONNRESET && s->setup.side == STREAM_CALLEE);
}

static void tx_pump(struct stream *s)
{
	for (;;) {
		grpc_slice slice;
		ssize_t n;

		if (atomic_load(&s->tx.stop)) {
			half_done(s, &s->tx);
			return;
		}
		slice = grpc_slice_malloc(FRAME_DATA_MAX);
		n = read(s->fd, GRPC_SLICE_START_PTR(slice), FRAME_DATA_MAX);
		if (n > 0) {
			tx_send(s, slice, (size_t)n);
			return;
		}
		grpc_slice_unref(slice);
		if (is_end(s, n)) {
			tx_ended(s);
			return;
		}
		if (errno != EAGAIN && errno != EINTR) {
			tx_failed(s, errno);
			return;
		}
		if (errno == EAGAIN && half_park(&s->tx))
			return;
	}
}

static void on_sent(struct rpc_tag *tag, bool ok)
{
	struct stream *s = STREAM_OF(tag, send_tag);

	grpc_byte_buffer_destroy(s->sending);
	s->sending = NULL;
	if (!ok) {
		half_done(s, &s->tx);
		return;
	}
	s->sent += s->sending_len;
	metric_add(s->hub->metrics, METER_BYTES_SENT, (int64_t)s->sending_len);
	if (s->setup.totals)
		atomic_fetch_add(&s->setup.totals->sent, s->sending_len);
	tx_pump(s);
}

/* ---- from the call to the descriptor ---- */

static void receive(struct stream *s)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &s->message};

	start(s, &op, &s->receive_tag);
}

static void drop_message(struct stream *s)
{
	grpc_byte_buffer_destroy(s->message);
	s->message = NULL;
	s->left = 0;
}

/* The message's pieces as they lie, made one when they are many. */
static size_t pieces_of(struct stream *s, struct iovec *out)
{
	grpc_slice_buffer *buffer = &s->message->data.raw.slice_buffer;

	if (buffer->count > PIECES_MAX) {
		grpc_byte_buffer_reader reader;
		grpc_slice whole;

		grpc_byte_buffer_reader_init(&reader, s->message);
		whole = grpc_byte_buffer_reader_readall(&reader);
		grpc_byte_buffer_reader_destroy(&reader);
		grpc_byte_buffer_destroy(s->message);
		s->message = grpc_raw_byte_buffer_create(&whole, 1);
		grpc_slice_unref(whole);
		buffer = &s->message->data.raw.slice_buffer;
	}
	for (size_t i = 0; i < buffer->count; i++) {
		out[i].iov_base = GRPC_SLICE_START_PTR(buffer->slices[i]);
		out[i].iov_len = GRPC_SLICE_LENGTH(buffer->slices[i]);
	}
	return buffer->count;
}

/* Keeps of the pieces what lies from offset on, len bytes. */
static size_t trim(
	struct iovec *pieces, size_t count, size_t offset, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < count && len > 0; i++) {
		struct iovec piece = pieces[i];

		if (offset >= piece.iov_len) {
			offset -= piece.iov_len;
			continue;
		}
		piece.iov_base = (char *)piece.iov_base + offset;
		piece.iov_len -= offset;
		offset = 0;
		if (piece.iov_len > len)
			piece.iov_len = len;
		len -= piece.iov_len;
		pieces[n++] = piece;
	}
	return n;
}

static ssize_t write_some(struct stream *s)
{
	struct iovec pieces[PIECES_MAX];
	size_t count = pieces_of(s, pieces);
	struct msghdr message = {.msg_iov = pieces,
		.msg_iovlen = trim(pieces, count, s->offset, s->left)};

	return sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void count_received(struct stream *s, size_t len)
{
	s->offset += len;
	s->left -= len;
	atomic_fetch_add(&s->received, len);
	metric_add(s->hub->metrics, METER_BYTES_RECEIVED, (int64_t)len);
	if (s->setup.totals)
		atomic_fetch_add(&s->setup.totals->received, len);
}

static void hold(struct stream *s, size_t len)
{
	metric_add(s->hub->metrics, METER_BYTES_HELD,
		(int64_t)len - (int64_t)s->held);
	s->held = len;
}

static void rx_pump(struct stream *s)
{
	for (;;) {
		ssize_t n;

		if (s->held)
			hold(s, 0);
		if (s->left == 0 || s->discard || atomic_load(&s->rx.stop))
			break;
		n = write_some(s);
		if (n >= 0) {
			count_received(s, (size_t)n);
			continue;
		}
		if (errno == EAGAIN) {
			hold(s, s->left);
			if (half_park(&s->rx))
				return;
		} else if (errno != EINTR) {
			/* Nobody reads any more. What the reader still has to
			 * say goes on until it ends too. */
			s->discard = true;
		}
	}
	drop_message(s);
	if (atomic_load(&s->rx.stop))
		half_done(s, &s->rx);
	else
		receive(s);
}

/* No more from the far side: its end, or the call's. */
static void rx_ended(struct stream *s, bool ok)
{
	if (ok && s->setup.side == STREAM_CALLEE) {
		note_end(s, true, "client closed");
		send_status(s, GRPC_STATUS_OK, "");
	}
	half_done(s, &s->rx);
}

/* NULL, or why the message at hand ends the stream (the reference's texts). */
static const char *take_frame(struct stream *s)
{
	struct iovec pieces[PIECES_MAX];
	struct frame frame;

	if (s->message->data.raw.compression != GRPC_COMPRESS_NONE)
		return "failed to receive from source: received invalid frame";
	frame = frame_parse(pieces, pieces_of(s, pieces));
	if (frame.kind != FRAME_DATA)
		return "failed to receive from source: received invalid frame";
	if (frame.len == 0)
		return "received invalid data from source";
	s->offset = frame.offset;
	s->left = frame.len;
	return NULL;
}

static void on_received(struct rpc_tag *tag, bool ok)
{
	struct stream *s = STREAM_OF(tag, receive_tag);
	const char *why;

	if (!ok || !s->message) {
		stream_ref(s); /* past rx's own */
		rx_ended(s, ok);
		stop_tx(s);
		stream_unref(s);
		return;
	}
	why = take_frame(s);
	if (!why) {
		rx_pump(s);
		return;
	}
	drop_message(s);
	stream_ref(s);
	cut(s, why);
	half_done(s, &s->rx);
	stop_tx(s);
	stream_unref(s);
}

/* ---- on the loop's thread ---- */

static void on_edge(struct edge *edge)
{
	struct stream *s = STREAM_OF(edge, edge);

	stream_ref(s);
	if (half_wake(&s->rx))
		rx_pump(s);
	if (half_wake(&s->tx))
		tx_pump(s);
	stream_unref(s);
}

static void on_guard(void *arg)
{
	struct stream *s = arg;
	uint64_t received = atomic_load(&s->received);

	if (!s->call_over) {
		note_end(s, false, "the far end did not end the stream");
		grpc_call_cancel(s->call, NULL);
	} else if (received != s->received_at_guard) {
		s->received_at_guard = received;
		timer_set(s->guard, STREAM_END_MS);
	} else {
		stream_ref(s);
		stop_rx(s);
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

static void close_fd(struct stream *s)
{
	edges_remove(s->hub->edges, s->fd);
	if (s->setup.raw && s->clean) {
		partings_close(s->hub->partings, s->fd);
		return;
	}
	if (s->setup.raw)
		sock_reset_on_close(s->fd);
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
	close_fd(s);
	metric_add(s->hub->metrics, side_meter(s), -1);
	s->setup.on_end(s->setup.arg, &result);
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
	s->edge.on_edge = on_edge;
	s->send_tag = (struct rpc_tag){.where = RPC_INLINE, .run = on_sent};
	s->receive_tag =
		(struct rpc_tag){.where = RPC_INLINE, .run = on_received};
	s->finish_tag =
		(struct rpc_tag){.where = RPC_INLINE, .run = on_finished};
	s->guard_task.run = run_guard;
	s->end_task.run = run_end;
	atomic_store(&s->refs, 4); /* tx, rx, the call's end, and ours here */
	metric_add(hub->metrics, side_meter(s), 1);
	if (edges_add(hub->edges, s->fd, &s->edge) < 0) {
		cut(s, "descriptor cannot be watched");
		half_done(s, &s->tx);
		half_done(s, &s->rx);
	} else {
		receive(s);
		tx_pump(s);
	}
	stream_unref(s);
	return s;
}

void stream_call_over(
	struct stream *s, grpc_status_code status, const char *details)
{
	bool callee = s->setup.side == STREAM_CALLEE;

	s->call_over = true;
	note_end(s, status == GRPC_STATUS_OK, details);
	stop_tx(s);
	/* What has arrived is still written: all of it when the far end ended
	 * in order, and what is at hand when a caller hung up, which is how
	 * the reference's clients close. */
	if (status != GRPC_STATUS_OK && !callee)
		stop_rx(s);
	set_guard(s);
	stream_unref(s);
}

void stream_abort(struct stream *s, const char *why)
{
	stream_ref(s);
	note_end(s, false, why);
	grpc_call_cancel(s->call, NULL);
	stop_tx(s);
	stop_rx(s);
	stream_unref(s);
}
