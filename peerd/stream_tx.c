/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream's way from the descriptor into the call: read, wrap, send, and read
 * again when the send has completed, on whichever thread that is. Credit for
 * the far side travels the same way, because a call sends one message at a
 * time.
 *
 * A newcomer's trap: after a send is started the half stays held, by nobody's
 * stack but by the completion to come.
 */
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peerd/frame.h"
#include "peerd/message.h"
#include "peerd/meters.h"
#include "peerd/stream_private.h"
#include "shared/sock.h"

/* Below this a copy of the exact size is better than pinning a whole page. */
#define COPY_BELOW 4096

/* What one look came to. */
enum step {
	STEP_SENDING, /* the completion goes on */
	STEP_AGAIN,
	STEP_NOTHING, /* to be woken */
	STEP_OVER,
};

/* Takes the message. */
static enum step send_message(
	struct stream *s, grpc_byte_buffer *message, size_t len)
{
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};

	rpc_meter_sent(s->meter, grpc_byte_buffer_length(message));
	s->sending_len = len;
	s->sending = message;
	op.data.send_message.send_message = message;
	stream_start(s, &op, &s->send_tag);
	return STEP_SENDING;
}

/* ---- Data ---- */

/* Takes slice, of which len bytes are filled. */
static enum step send_data(struct stream *s, grpc_slice slice, size_t len)
{
	uint8_t header[FRAME_HEADER_MAX];
	size_t header_len = frame_data_header(header, len);
	grpc_byte_buffer *message;
	grpc_slice slices[2];

	slices[0] = grpc_slice_from_copied_buffer((char *)header, header_len);
	if (len < COPY_BELOW) {
		slices[1] = grpc_slice_from_copied_buffer(
			(char *)GRPC_SLICE_START_PTR(slice), len);
		grpc_slice_unref(slice);
	} else {
		slices[1] = grpc_slice_sub_no_ref(slice, 0, len);
	}
	message = grpc_raw_byte_buffer_create(slices, 2);
	grpc_slice_unref(slices[0]);
	grpc_slice_unref(slices[1]);
	atomic_fetch_sub(&s->allowed, (int64_t)len);
	return send_message(s, message, len);
}

/* Larger frames for streams that fill them. */
static void adapt_read_size(struct stream *s, size_t asked, size_t got)
{
	if (!stream_has(s, EXT_FRAME64K))
		return;
	if (got == asked && asked >= FRAME_DATA_MAX)
		s->read_size = FRAME_DATA_64K;
	else if (got < asked && got < FRAME_DATA_MAX)
		s->read_size = FRAME_DATA_MAX;
}

/* ---- the end of what the descriptor gives ---- */

static enum step send_eof(struct stream *s)
{
	uint8_t frame[FRAME_CONTROL_MAX];
	size_t len = frame_eof(frame);

	s->tx_eof = true;
	return send_message(s, message_of(frame, len), 0);
}

static enum step ended(struct stream *s)
{
	bool caller = s->setup.side == STREAM_CALLER;
	const char *who = caller ? "client closed" : "agent closed";

	s->read_all = true;
	stream_note_eof(s, who);
	if (stream_has(s, EXT_EOF))
		return send_eof(s);
	stream_note_end(s, true, who);
	if (caller)
		stream_send_close(s);
	else
		stream_send_status(s, GRPC_STATUS_OK, "");
	return STEP_OVER;
}

/* Our direction has ended; the stream ends when nothing more can reach the
 * descriptor either. */
static enum step after_eof(struct stream *s)
{
	bool caller = s->setup.side == STREAM_CALLER;
	bool over = atomic_load(&s->rx_over);

	if (!over && !atomic_load(&s->discard))
		return STEP_NOTHING;
	if (!caller) {
		stream_note_end(s, true, atomic_load(&s->first_end));
		stream_send_status(s, GRPC_STATUS_OK, "");
		return STEP_OVER;
	}
	if (!over) {
		stream_note_end(s, true, "client closed");
		grpc_call_cancel(s->call, NULL);
	}
	stream_expect_end(s); /* it is the callee that ends the call */
	return STEP_OVER;
}

static enum step failed(struct stream *s, int error)
{
	char why[120];

	snprintf(why, sizeof(why), "failed to read from the %s: %s",
		s->setup.side == STREAM_CALLER ? "client" : "agent",
		strerror(error));
	stream_cut(s, why);
	return STEP_OVER;
}

static enum step without_bytes(struct stream *s, ssize_t n)
{
	if (n == 0 && !atomic_load(&s->told_end) && sock_pair_is_torn(s->fd))
		return failed(s, ECONNRESET);
	if (n == 0)
		return ended(s);
	if (errno == EINTR)
		return STEP_AGAIN;
	return errno == EAGAIN ? STEP_NOTHING : failed(s, errno);
}

/* ---- credit ---- */

static enum step send_credit(struct stream *s, uint64_t bytes, bool blocked)
{
	uint8_t frame[FRAME_CONTROL_MAX];
	size_t len = frame_credit(frame, bytes, blocked);

	return send_message(s, message_of(frame, len), 0);
}

/* Nothing may be sent: the far side is told, once, if there is something. */
static enum step out_of_credit(struct stream *s)
{
	ssize_t n;
	char byte;

	n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n <= 0)
		return without_bytes(s, n);
	if (s->blocked_said)
		return STEP_NOTHING;
	s->blocked_said = true;
	return send_credit(s, 0, true);
}

/* ---- the pump ---- */

static enum step read_and_send(struct stream *s, int64_t allowed)
{
	size_t size = s->read_size;
	grpc_slice slice;
	ssize_t n;

	if ((int64_t)size > allowed)
		size = (size_t)allowed;
	slice = grpc_slice_malloc(size);
	n = read(s->fd, GRPC_SLICE_START_PTR(slice), size);
	if (n > 0) {
		adapt_read_size(s, size, (size_t)n);
		s->blocked_said = false;
		return send_data(s, slice, (size_t)n);
	}
	grpc_slice_unref(slice);
	return without_bytes(s, n);
}

static enum step look(struct stream *s)
{
	int64_t grant = atomic_exchange(&s->grant, 0);
	int64_t allowed;

	if (grant > 0)
		return send_credit(s, (uint64_t)grant, false);
	if (s->tx_eof)
		return after_eof(s);
	allowed = atomic_load(&s->allowed);
	return allowed > 0 ? read_and_send(s, allowed) : out_of_credit(s);
}

void stream_tx_pump(struct stream *s)
{
	for (;;) {
		enum step step = STEP_OVER;

		if (!atomic_load(&s->tx.stop))
			step = look(s);
		if (step == STEP_SENDING ||
			(step == STEP_NOTHING && half_park(&s->tx)))
			return;
		if (step == STEP_OVER) {
			stream_half_done(s, &s->tx);
			return;
		}
	}
}

static void on_sent(struct rpc_tag *tag, bool ok)
{
	struct stream *s = STREAM_OF(tag, send_tag);

	grpc_byte_buffer_destroy(s->sending);
	s->sending = NULL;
	if (!ok) {
		stream_half_done(s, &s->tx);
		return;
	}
	s->sent += s->sending_len;
	metric_add(s->hub->metrics, METER_BYTES_SENT, (int64_t)s->sending_len);
	if (s->setup.totals)
		atomic_fetch_add(&s->setup.totals->sent, s->sending_len);
	stream_tx_pump(s);
}

void stream_tx_wake(struct stream *s)
{
	if (half_wake(&s->tx))
		stream_tx_pump(s);
}

void stream_tx_stop(struct stream *s)
{
	if (half_stop(&s->tx))
		stream_tx_pump(s);
}

void stream_tx_init(struct stream *s)
{
	s->send_tag = (struct rpc_tag){.where = RPC_INLINE, .run = on_sent};
	s->read_size = FRAME_DATA_MAX;
	atomic_store(&s->allowed, stream_has(s, EXT_CREDIT)
					  ? (int64_t)s->setup.allowed
					  : INT64_MAX);
}
