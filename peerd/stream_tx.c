/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream's way from the descriptor into the call: read, wrap, send, and read
 * again when the send has completed, on whichever thread that is.
 *
 * A newcomer's trap: after a send is started the half stays held, by nobody's
 * stack but by the completion to come.
 */
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "peerd/frame.h"
#include "peerd/meters.h"
#include "peerd/stream_private.h"

/* Below this a copy of the exact size is better than pinning a whole page. */
#define COPY_BELOW 4096

static void tx_ended(struct stream *s)
{
	stream_note_end(s, true,
		s->setup.side == STREAM_CALLER ? "client closed"
					       : "agent closed");
	if (s->setup.side == STREAM_CALLER)
		stream_send_close(s);
	else
		stream_send_status(s, GRPC_STATUS_OK, "");
	stream_half_done(s, &s->tx);
}

static void tx_failed(struct stream *s, int error)
{
	char why[120];

	snprintf(why, sizeof(why), "failed to read from the %s: %s",
		s->setup.side == STREAM_CALLER ? "client" : "agent",
		strerror(error));
	stream_cut(s, why);
	stream_half_done(s, &s->tx);
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
	rpc_meter_sent(s->meter, header_len + len);
	s->sending = grpc_raw_byte_buffer_create(slices, 2);
	grpc_slice_unref(slices[0]);
	grpc_slice_unref(slices[1]);
	op.data.send_message.send_message = s->sending;
	stream_start(s, &op, &s->send_tag);
}

/* The reset of a UNIX socket only says that the worker's end was closed before
 * it had read all; what it wrote has been read by now. */
static bool is_end(const struct stream *s, ssize_t n)
{
	return n == 0 ||
	       (errno == ECONNRESET && s->setup.side == STREAM_CALLEE);
}

void stream_tx_pump(struct stream *s)
{
	for (;;) {
		grpc_slice slice;
		ssize_t n;

		if (atomic_load(&s->tx.stop)) {
			stream_half_done(s, &s->tx);
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
		stream_half_done(s, &s->tx);
		return;
	}
	s->sent += s->sending_len;
	metric_add(s->hub->metrics, METER_BYTES_SENT, (int64_t)s->sending_len);
	if (s->setup.totals)
		atomic_fetch_add(&s->setup.totals->sent, s->sending_len);
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
}
