/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes between a joined stream and its channel. Talks to chan.c, submits
 * credit to nghttp2, owns what is held for a channel that does not take it.
 *
 *   into the tunnel:  nghttp2 asks when it has window -> chan_read() straight
 *                     into its frame; nothing there: deferred until an edge
 *   from the tunnel:  pieces of the read buffer -> one writev() per pass; what
 *                     the channel does not take is held, and its credit too
 *
 * What a newcomer gets wrong: nobody polls. After -EAGAIN the channel's edge
 * comes; a deferred provider must then be resumed, and credit that is submitted
 * outside of a pass must wake the tunnel or it lies there.
 */
#include <errno.h>
#include <string.h>

#include "shared/sock.h"
#include "shared/tunnel_internal.h"

#define WRITE_IOVS 64

void tunnel_flow_drop_held(struct tunnel_stream *stream)
{
	stream->hub->bytes_held -= stream->held.len;
	tunnel_queue_clear(&stream->held);
}

/* The channel takes nothing more. What it still gives is sent first: a service
 * that answered and left has done its work. */
static void write_failed(struct tunnel_stream *stream, int error)
{
	stream->in_broken = true;
	stream->result.error = error;
	tunnel_flow_drop_held(stream);
	if (stream->out_ended || stream->closed)
		tunnel_stream_finish(stream, error);
	else
		tunnel_stream_resume(stream);
}

static ssize_t fill_from_channel(
	struct tunnel_stream *stream, uint8_t *buf, size_t len)
{
	ssize_t n = chan_read(stream->chan, buf, len);

	if (n >= 0)
		return n;
	if (n == -EAGAIN && !stream->in_broken)
		return NGHTTP2_ERR_DEFERRED;
	tunnel_stream_finish(
		stream, n == -EAGAIN ? stream->result.error : (int)n);
	return NGHTTP2_ERR_DEFERRED;
}

static ssize_t fill_from_queue(
	struct tunnel_stream *stream, uint8_t *buf, size_t len)
{
	size_t n = stream->out.len < len ? stream->out.len : len;

	memcpy(buf, tunnel_queue_head(&stream->out), n);
	tunnel_queue_drop(&stream->out, n);
	return (ssize_t)n;
}

size_t tunnel_flow_payload(const struct tunnel_stream *stream)
{
	return stream->full_frames < TUNNEL_LARGE_AFTER ? TUNNEL_PAYLOAD
							: TUNNEL_LARGE_PAYLOAD;
}

ssize_t tunnel_flow_fill(
	struct tunnel_stream *stream, uint8_t *buf, size_t len, uint32_t *flags)
{
	ssize_t n = 0;

	if (len > tunnel_flow_payload(stream))
		len = tunnel_flow_payload(stream);
	if (stream->out.len > 0)
		n = fill_from_queue(stream, buf, len);
	else if (stream->chan)
		n = fill_from_channel(stream, buf, len);
	else if (!stream->out_final)
		n = NGHTTP2_ERR_DEFERRED;
	stream->deferred = n < 0;
	if (n < (ssize_t)TUNNEL_PAYLOAD)
		stream->full_frames = 0;
	else
		stream->full_frames++;
	if (n < 0)
		return n;
	stream->result.sent += (uint64_t)n;
	stream->hub->bytes_out += (uint64_t)n;
	if (n == 0 || (stream->out_final && stream->out.len == 0)) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		stream->out_ended = true;
		if (stream->in_broken && stream->chan)
			tunnel_stream_finish(stream, stream->result.error);
	}
	return n;
}

static void announce(struct tunnel_stream *stream, uint32_t increment)
{
	if (increment == 0)
		return;
	nghttp2_submit_window_update(stream->tunnel->session, NGHTTP2_FLAG_NONE,
		stream->id, (int32_t)increment);
	tunnel_wake(stream->tunnel);
}

void tunnel_flow_credit(struct tunnel_stream *stream, size_t len)
{
	struct tunnel_hub *hub = stream->hub;
	const struct tunnel_settings *settings = &hub->settings;
	uint32_t before = stream->window.size;
	struct tunnel_window_facts facts = {.drains = stream->held.len == 0};
	uint32_t increment;

	if (len == 0 || stream->closed || stream->in_ended || stream->ended)
		return;
	facts.now_us = hub->now_us;
	/* Below a millisecond our own turns count, not the line. */
	facts.rtt_us = stream->tunnel->rtt_min_us;
	if (facts.rtt_us > 0 && facts.rtt_us < 1000)
		facts.rtt_us = 1000;
	facts.max = settings->stream_buffer_max < INT32_MAX
			    ? (uint32_t)settings->stream_buffer_max
			    : INT32_MAX;
	if (settings->buffer_max > hub->window_sum)
		facts.room = settings->buffer_max - hub->window_sum;
	increment =
		tunnel_window_credit(&stream->window, (uint32_t)len, &facts);
	hub->window_sum += stream->window.size - before;
	announce(stream, increment);
}

/* Until it is joined a stream gets a small window: that much may be sent
 * before anybody reads. */
static void widen_window(struct tunnel_stream *stream)
{
	struct tunnel_hub *hub = stream->hub;
	const struct tunnel_settings *settings = &hub->settings;
	uint32_t size = TUNNEL_STREAM_WINDOW;
	uint64_t room = 0;
	uint32_t growth;

	if (stream->in_ended || stream->closed)
		return;
	if (size > settings->stream_buffer_max)
		size = (uint32_t)settings->stream_buffer_max;
	/* The last half of the memory is kept for streams to come. */
	if (settings->buffer_max / 2 > hub->window_sum)
		room = settings->buffer_max / 2 - hub->window_sum;
	growth = tunnel_window_widen(&stream->window, size, room);
	hub->window_sum += growth;
	announce(stream, growth);
}

/* The hub's bound holds whatever the windows promise: who cannot be held is
 * reset. */
static bool hold(struct tunnel_stream *stream, const uint8_t *data, size_t len)
{
	struct tunnel_hub *hub = stream->hub;

	if (hub->bytes_held + len > hub->settings.buffer_max ||
		tunnel_queue_append(&stream->held, data, len) < 0) {
		tunnel_stream_finish(stream, -ENOBUFS);
		return false;
	}
	hub->bytes_held += len;
	return true;
}

static void drain_held(struct tunnel_stream *stream)
{
	while (stream->held.len > 0) {
		ssize_t n = chan_write(stream->chan,
			tunnel_queue_head(&stream->held), stream->held.len);

		if (n == -EAGAIN)
			return;
		if (n < 0) {
			write_failed(stream, (int)n);
			return;
		}
		stream->hub->bytes_held -= (size_t)n;
		tunnel_queue_drop(&stream->held, (size_t)n);
		tunnel_flow_credit(stream, (size_t)n);
	}
}

/* Holds what is left of the chain from piece on, but for skip bytes. */
static void hold_pieces(
	struct tunnel_stream *stream, int32_t piece, size_t skip)
{
	const struct tunnel_piece *pieces = stream->hub->pieces;

	for (; piece >= 0; piece = pieces[piece].next) {
		size_t len = pieces[piece].len;
		size_t skipped = skip < len ? skip : len;

		skip -= skipped;
		if (len > skipped && !hold(stream, pieces[piece].data + skipped,
					     len - skipped))
			return;
	}
	/* An edge comes only after -EAGAIN, and that was perhaps a short
	 * write. */
	drain_held(stream);
}

static void write_pieces(struct tunnel_stream *stream)
{
	const struct tunnel_piece *pieces = stream->hub->pieces;
	int32_t piece = stream->first_piece;

	stream->first_piece = stream->last_piece = -1;
	while (piece >= 0) {
		struct iovec iov[WRITE_IOVS];
		int32_t first = piece;
		size_t total = 0;
		int count = 0;
		ssize_t n;

		for (; piece >= 0 && count < WRITE_IOVS;
			piece = pieces[piece].next) {
			iov[count].iov_base = (void *)pieces[piece].data;
			iov[count++].iov_len = pieces[piece].len;
			total += pieces[piece].len;
		}
		n = chan_writev(stream->chan, iov, count);
		if (n < 0 && n != -EAGAIN) {
			write_failed(stream, (int)n);
			return;
		}
		n = n < 0 ? 0 : n;
		if ((size_t)n < total) {
			hold_pieces(stream, first, (size_t)n);
			piece = -1;
		}
		tunnel_flow_credit(stream, (size_t)n);
	}
}

static void note_piece(
	struct tunnel_stream *stream, const uint8_t *data, size_t len)
{
	struct tunnel_hub *hub = stream->hub;
	int32_t index = (int32_t)hub->piece_count++;

	hub->pieces[index] = (struct tunnel_piece){data, (uint32_t)len, -1};
	if (stream->last_piece < 0)
		stream->first_piece = index;
	else
		hub->pieces[stream->last_piece].next = index;
	stream->last_piece = index;
	tunnel_stream_touch(stream);
}

void tunnel_flow_receive(
	struct tunnel_stream *stream, const uint8_t *data, size_t len)
{
	if (stream->hub->piece_count == TUNNEL_PASS_PIECES)
		tunnel_flow_settle(stream->tunnel);
	if (stream->ended || stream->in_broken)
		return;
	stream->result.received += len;
	if (stream->wants_body) {
		tunnel_message_data(stream, data, len);
		tunnel_flow_credit(stream, len);
	} else if (!stream->chan || stream->held.len > 0) {
		hold(stream, data, len);
	} else {
		note_piece(stream, data, len);
	}
}

/* Carries the far end over when all before it has been written. */
static void settle_end(struct tunnel_stream *stream)
{
	if (stream->ended || !stream->chan || !stream->in_ended ||
		stream->held.len > 0 || stream->in_broken)
		return;
	if (!stream->in_shut) {
		if (chan_shutdown(stream->chan) == -EAGAIN)
			return;
		/* Failing means that nobody is there; reading says so. */
		stream->in_shut = true;
	}
	if (stream->closed)
		tunnel_stream_finish(stream, stream->out_ended ? 0 : -EPIPE);
}

void tunnel_flow_settle(struct tunnel *tunnel)
{
	struct tunnel_stream *stream;

	while ((stream = TAILQ_FIRST(&tunnel->touched))) {
		int32_t first = stream->first_piece;

		TAILQ_REMOVE(&tunnel->touched, stream, touch);
		stream->is_touched = false;
		if (first >= 0)
			write_pieces(stream);
		settle_end(stream);
	}
	tunnel->hub->piece_count = 0;
}

static void on_chan_ready(void *arg)
{
	struct tunnel_stream *stream = arg;
	int error;

	stream->hub->now_us = tunnel_clock_us();
	drain_held(stream);
	settle_end(stream);
	if (stream->ended || stream->closed || stream->out_ended)
		return;
	if (stream->deferred) {
		tunnel_stream_resume(stream);
		return;
	}
	/* The sender waits for window, so nobody reads: a reset would go
	 * unnoticed as long as the far end stalls. */
	error = sock_error(chan_fd(stream->chan));
	if (error < 0)
		tunnel_stream_finish(stream, error);
}

void tunnel_flow_start(struct tunnel_stream *stream)
{
	widen_window(stream);
	chan_watch(stream->chan, on_chan_ready, stream);
	tunnel_wake(stream->tunnel);
}
