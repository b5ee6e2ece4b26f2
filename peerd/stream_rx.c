/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream's way from the call to the descriptor. Two work on it: the receiving
 * completion, which reads what a message says, and the holder of rx, who writes
 * to the descriptor. The completion is the holder too when nobody else is, and
 * then a message goes out straight from gRPC's memory; what is left over is
 * copied into the backlog.
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

static void destroy(grpc_byte_buffer **message)
{
	if (*message)
		grpc_byte_buffer_destroy(*message);
	*message = NULL;
}

/* ---- rx's holder: to the descriptor ---- */

static size_t next_pieces(struct stream *s, struct iovec *pieces)
{
	size_t count;

	if (!s->writing)
		return backlog_peek(&s->backlog, pieces, MESSAGE_PIECES_MAX);
	count = message_pieces(&s->writing, pieces);
	return message_trim(pieces, count, s->offset, s->left);
}

static size_t waiting(struct stream *s)
{
	return s->left + backlog_len(&s->backlog);
}

static size_t total(const struct iovec *pieces, size_t count)
{
	size_t len = 0;

	for (size_t i = 0; i < count; i++)
		len += pieces[i].iov_len;
	return len;
}

static void grant(struct stream *s, int64_t bytes)
{
	if (bytes <= 0)
		return;
	atomic_fetch_add(&s->arrivals, (uint64_t)bytes);
	atomic_fetch_add(&s->grant, bytes);
	stream_tx_wake(s);
}

/* len bytes of what next_pieces() gave are done with. */
static void took(struct stream *s, size_t len)
{
	if (s->writing) {
		s->offset += len;
		s->left -= len;
		if (s->left == 0)
			destroy(&s->writing);
	} else {
		backlog_drop(&s->backlog, len);
	}
	atomic_fetch_add(&s->received, len);
	metric_add(s->hub->metrics, METER_BYTES_RECEIVED, (int64_t)len);
	if (s->setup.totals)
		atomic_fetch_add(&s->setup.totals->received, len);
	if (stream_has(s, EXT_CREDIT))
		grant(s, credit_taken(
				 &s->credit, &s->hub->credit, (int64_t)len));
}

/* Counts what waits for a reader that does not read. */
static void hold(struct stream *s, size_t len)
{
	if (len == s->held)
		return;
	if (!len != !s->held)
		metric_add(
			s->hub->metrics, METER_STREAMS_BLOCKED, len ? 1 : -1);
	metric_add(s->hub->metrics, METER_BYTES_HELD,
		(int64_t)len - (int64_t)s->held);
	s->held = len;
}

/* Writes what there is; false: the descriptor takes no more now. */
static bool drain(struct stream *s)
{
	struct iovec pieces[MESSAGE_PIECES_MAX];
	struct msghdr message = {.msg_iov = pieces};
	ssize_t n;

	for (;;) {
		message.msg_iovlen = next_pieces(s, pieces);
		if (message.msg_iovlen == 0)
			return true;
		if (atomic_load(&s->discard)) {
			took(s, total(pieces, message.msg_iovlen));
			continue;
		}
		n = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			took(s, (size_t)n);
		} else if (errno == EAGAIN) {
			return false;
		} else if (errno != EINTR) {
			/* Nobody reads any more. What the reader still has to
			 * say goes on until it ends too. */
			atomic_store(&s->discard, true);
			stream_tx_wake(s);
		}
	}
}

/* What is left of gRPC's memory, into ours. */
static void stash(struct stream *s)
{
	struct iovec pieces[MESSAGE_PIECES_MAX];

	if (!s->writing)
		return;
	backlog_put(&s->backlog, pieces, next_pieces(s, pieces));
	destroy(&s->writing);
	s->left = 0;
}

/* Without credit: by rx's holder when it has written all, or by whoever finds
 * that it has finished; the call's end is learnt by receiving alone. */
static void receive_if_due(struct stream *s)
{
	if (atomic_exchange(&s->receive_due, false))
		stream_rx_receive(s);
}

/* All is delivered that will ever come. */
static void finish(struct stream *s, enum rx_end end)
{
	hold(s, 0);
	if (end == RX_EOF) {
		stream_note_eof(s, s->setup.side == STREAM_CALLER
					   ? "agent closed"
					   : "client closed");
		/* first: the worker may close its end at once */
		atomic_store(&s->told_end, true);
		shutdown(s->fd, SHUT_WR);
	} else if (end == RX_CLOSED && stream_has(s, EXT_EOF)) {
		stream_cut(s, "the peer ended the call without an Eof");
	} else if (end == RX_CLOSED) {
		stream_note_end(s, true, "client closed");
		stream_send_status(s, GRPC_STATUS_OK, "");
	}
	atomic_store(&s->rx_over, true);
	receive_if_due(s);
	if (end == RX_EOF)
		stream_tx_wake(s);
	else
		stream_tx_stop(s);
	stream_half_done(s, &s->rx);
}

/* The far side has said that it may send nothing more. */
static void consider_credit(struct stream *s)
{
	if (atomic_exchange(&s->far_blocked, false))
		grant(s, credit_blocked(&s->credit, &s->hub->credit,
				 (int64_t)waiting(s)));
}

void stream_rx_pump(struct stream *s)
{
	for (;;) {
		/* read before what it says is the last of is looked at */
		enum rx_end end = atomic_load(&s->rx_end);
		bool drained;

		if (atomic_load(&s->rx.stop)) {
			finish(s, RX_GONE);
			return;
		}
		drained = drain(s);
		if (drained && end != RX_OPEN) {
			finish(s, end);
			return;
		}
		if (drained)
			receive_if_due(s);
		stash(s);
		consider_credit(s);
		hold(s, drained ? 0 : waiting(s));
		if (half_park(&s->rx))
			return;
	}
}

static void wake(struct stream *s)
{
	if (half_wake(&s->rx))
		stream_rx_pump(s);
}

/* ---- the receiving completion ---- */

/* The message's Data to rx's holder, who we may become. The message is gone
 * from s->message before anyone may ask for the next one. */
static void deliver(struct stream *s, const struct frame *frame)
{
	struct iovec pieces[MESSAGE_PIECES_MAX];
	bool held = half_take(&s->rx);
	size_t count;

	if (held && backlog_len(&s->backlog) == 0) {
		s->writing = s->message;
		s->message = NULL;
		s->offset = frame->offset;
		s->left = frame->len;
	} else {
		count = message_pieces(&s->message, pieces);
		backlog_put(&s->backlog, pieces,
			message_trim(pieces, count, frame->offset, frame->len));
		destroy(&s->message);
	}
	if (!stream_has(s, EXT_CREDIT))
		atomic_store(&s->receive_due, true);
	if (held)
		stream_rx_pump(s);
	else
		wake(s);
}

static const char *take_data(struct stream *s, const struct frame *frame)
{
	if (frame->len == 0)
		return "received invalid data from source";
	if (atomic_load(&s->rx_end) != RX_OPEN)
		return "received data after its end";
	if (stream_has(s, EXT_CREDIT)) {
		s->arrived += frame->len;
		if (s->arrived > atomic_load(&s->arrivals))
			return "received more data than was allowed";
	}
	deliver(s, frame);
	if (atomic_load(&s->rx_over))
		receive_if_due(s);
	return NULL;
}

static const char *take_eof(struct stream *s)
{
	if (!stream_has(s, EXT_EOF) || atomic_load(&s->rx_end) != RX_OPEN)
		return "failed to receive from source: received invalid frame";
	atomic_store(&s->rx_end, RX_EOF);
	wake(s);
	return NULL;
}

static const char *take_credit(struct stream *s, const struct frame *frame)
{
	if (!stream_has(s, EXT_CREDIT) || frame->credit > CREDIT_MAX)
		return "failed to receive from source: received invalid frame";
	if (frame->credit) {
		int64_t before =
			atomic_fetch_add(&s->allowed, (int64_t)frame->credit);

		if (before > (int64_t)CREDIT_MAX)
			return "received more credit than there is";
		stream_tx_wake(s);
	}
	if (frame->blocked) {
		atomic_store(&s->far_blocked, true);
		wake(s);
	}
	return NULL;
}

/* NULL, or why the message at hand ends the stream (the reference's texts). */
static const char *take_message(struct stream *s)
{
	struct iovec pieces[MESSAGE_PIECES_MAX];
	struct frame frame = {.kind = FRAME_MALFORMED};

	if (s->message->data.raw.compression == GRPC_COMPRESS_NONE)
		frame = frame_parse(
			pieces, message_pieces(&s->message, pieces));
	if (frame.kind == FRAME_DATA)
		return take_data(s, &frame);
	destroy(&s->message);
	switch (frame.kind) {
	case FRAME_EOF:
		return take_eof(s);
	case FRAME_CREDIT:
		return take_credit(s, &frame);
	default:
		return "failed to receive from source: received invalid frame";
	}
}

/* No more from the far side; the receiving ends. */
static void end_receiving(struct stream *s, enum rx_end end)
{
	int open = RX_OPEN;

	atomic_compare_exchange_strong(&s->rx_end, &open, (int)end);
	wake(s);
	stream_unref(s);
}

static void on_received(struct rpc_tag *tag, bool ok)
{
	struct stream *s = STREAM_OF(tag, receive_tag);
	const char *why;

	if (!ok || !s->message) {
		end_receiving(s, ok && s->setup.side == STREAM_CALLEE
					 ? RX_CLOSED
					 : RX_GONE);
		return;
	}
	rpc_meter_received(s->meter, grpc_byte_buffer_length(s->message));
	why = take_message(s);
	if (why) {
		stream_cut(s, why);
		stream_rx_stop(s);
		end_receiving(s, RX_GONE);
	} else if (stream_has(s, EXT_CREDIT) ||
		   atomic_load(&s->rx_end) == RX_EOF) {
		stream_rx_receive(s);
	}
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
	s->credit = s->setup.credit;
	atomic_store(&s->arrivals, (uint64_t)s->credit.out);
	backlog_init(&s->backlog);
}

void stream_rx_deinit(struct stream *s)
{
	hold(s, 0);
	destroy(&s->writing);
	destroy(&s->message);
	backlog_deinit(&s->backlog);
	credit_end(&s->credit, &s->hub->credit);
}
