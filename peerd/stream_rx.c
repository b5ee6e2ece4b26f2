/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream's way from the call to the descriptor: one message is received,
 * written out whole, and only then is the next one asked for.
 *
 * A newcomer's trap: when the descriptor takes nothing any more, messages are
 * still received, and thrown away, because the other direction may have bytes
 * that its reader wrote before it stopped reading.
 */
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <sys/socket.h>

#include "peerd/frame.h"
#include "peerd/message.h"
#include "peerd/meters.h"
#include "peerd/stream_private.h"

void stream_rx_receive(struct stream *s)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &s->message};

	stream_start(s, &op, &s->receive_tag);
}

static void drop_message(struct stream *s)
{
	grpc_byte_buffer_destroy(s->message);
	s->message = NULL;
	s->left = 0;
}

static ssize_t write_some(struct stream *s)
{
	struct iovec pieces[MESSAGE_PIECES_MAX];
	size_t count = message_pieces(&s->message, pieces);
	struct msghdr message = {.msg_iov = pieces,
		.msg_iovlen = message_trim(pieces, count, s->offset, s->left)};

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

void stream_rx_pump(struct stream *s)
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
		stream_half_done(s, &s->rx);
	else
		stream_rx_receive(s);
}

/* No more from the far side: its end, or the call's. */
static void rx_ended(struct stream *s, bool ok)
{
	if (ok && s->setup.side == STREAM_CALLEE) {
		stream_note_end(s, true, "client closed");
		stream_send_status(s, GRPC_STATUS_OK, "");
	}
	stream_half_done(s, &s->rx);
}

/* NULL, or why the message at hand ends the stream (the reference's texts). */
static const char *take_frame(struct stream *s)
{
	struct iovec pieces[MESSAGE_PIECES_MAX];
	struct frame frame;

	if (s->message->data.raw.compression != GRPC_COMPRESS_NONE)
		return "failed to receive from source: received invalid frame";
	frame = frame_parse(pieces, message_pieces(&s->message, pieces));
	if (frame.kind != FRAME_DATA)
		return "failed to receive from source: received invalid frame";
	if (frame.len == 0)
		return "received invalid data from source";
	rpc_meter_received(s->meter, frame.offset + frame.len);
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
		stream_tx_stop(s);
		stream_unref(s);
		return;
	}
	why = take_frame(s);
	if (!why) {
		stream_rx_pump(s);
		return;
	}
	drop_message(s);
	stream_ref(s);
	stream_cut(s, why);
	stream_half_done(s, &s->rx);
	stream_tx_stop(s);
	stream_unref(s);
}

void stream_rx_stop(struct stream *s)
{
	if (half_stop(&s->rx))
		stream_rx_pump(s);
}

void stream_rx_init(struct stream *s)
{
	s->receive_tag =
		(struct rpc_tag){.where = RPC_INLINE, .run = on_received};
}
