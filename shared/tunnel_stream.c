/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: their life, and the bytes between a stream and its channel. Talks to
 * chan.c and submits to nghttp2; owns the channel from tunnel_stream_join() on.
 *
 *   into the tunnel:  nghttp2 asks when it has window -> chan_read() straight
 *                     into its frame; nothing there: deferred until an edge
 *   from the tunnel:  pieces of the read buffer -> one writev() per pass; what
 *                     the channel does not take is held, and its credit too
 *
 * What a newcomer gets wrong: a stream has three ends. `closed`: HTTP/2 is done
 * with it, perhaps while bytes still wait for the channel. `ended`: the result
 * is final. `told`: on_end was called. It is freed when closed and told.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/sock.h"
#include "shared/tunnel_internal.h"

#define WRITE_IOVS 64

struct tunnel_stream *tunnel_stream_new(struct tunnel *tunnel, int32_t id)
{
	struct tunnel_stream *stream = xcalloc(1, sizeof(*stream));

	stream->tunnel = tunnel;
	stream->hub = tunnel->hub;
	stream->id = id;
	stream->first_piece = stream->last_piece = -1;
	stream->window.size = TUNNEL_STREAM_WINDOW_MIN;
	tunnel->hub->window_sum += stream->window.size;
	tunnel->hub->stream_count++;
	tunnel->stream_count++;
	tunnel->open_count++;
	TAILQ_INSERT_TAIL(&tunnel->streams, stream, entry);
	return stream;
}

static void drop_held(struct tunnel_stream *stream)
{
	stream->hub->bytes_held -= stream->held.len;
	tunnel_queue_clear(&stream->held);
}

static void free_stream(struct tunnel_stream *stream)
{
	/* The last flush of a dead tunnel can still close streams in the
	 * session: by a reset, or an end, that had been queued. */
	if (stream->tunnel && stream->tunnel->state == TUNNEL_DEAD)
		nghttp2_session_set_stream_user_data(
			stream->tunnel->session, stream->id, NULL);
	stream->hub->window_sum -= stream->window.size;
	drop_held(stream);
	tunnel_queue_clear(&stream->out);
	tunnel_queue_clear(&stream->body);
	free(stream->head);
	timer_free(stream->timer);
	chan_free(stream->chan);
	free(stream->exchange);
	free(stream->reason);
	loop_free_later(stream->hub->loop, free, stream);
}

static void untouch(struct tunnel_stream *stream)
{
	stream->first_piece = stream->last_piece = -1;
	if (stream->is_touched)
		TAILQ_REMOVE(&stream->tunnel->touched, stream, touch);
	stream->is_touched = false;
}

void tunnel_stream_touch(struct tunnel_stream *stream)
{
	if (!stream->is_touched)
		TAILQ_INSERT_TAIL(&stream->tunnel->touched, stream, touch);
	stream->is_touched = true;
	tunnel_wake(stream->tunnel);
}

void tunnel_stream_resume(struct tunnel_stream *stream)
{
	if (stream->deferred && !stream->closed)
		nghttp2_session_resume_data(
			stream->tunnel->session, stream->id);
	stream->deferred = false;
	tunnel_wake(stream->tunnel);
}

static void end_in_session(struct tunnel_stream *stream, int error)
{
	uint32_t code = NGHTTP2_CANCEL;

	if (error == -ECONNREFUSED && stream->in_ended && !stream->out_ended) {
		/* Refused in order: an ordinary end costs the peer less. */
		stream->out_final = true;
		tunnel_stream_resume(stream);
		return;
	}
	/* "Stop sending" must not make the peer drop what it still holds. */
	if (stream->in_broken && stream->out_ended)
		code = NGHTTP2_NO_ERROR;
	nghttp2_submit_rst_stream(
		stream->tunnel->session, NGHTTP2_FLAG_NONE, stream->id, code);
}

void tunnel_stream_finish(struct tunnel_stream *stream, int error)
{
	if (stream->ended)
		return;
	stream->ended = true;
	stream->result.error = error;
	drop_held(stream);
	tunnel_queue_clear(&stream->out);
	timer_free(stream->timer);
	stream->timer = NULL;
	/* A torn stream must not look like a whole one. */
	if (stream->chan && error && !stream->in_shut)
		chan_abort(stream->chan);
	chan_free(stream->chan);
	stream->chan = NULL;
	if (!stream->tunnel) {
		TAILQ_REMOVE(&stream->hub->orphans, stream, entry);
		free_stream(stream);
		return;
	}
	untouch(stream);
	if (!stream->closed)
		end_in_session(stream, error);
	TAILQ_REMOVE(&stream->tunnel->streams, stream, entry);
	TAILQ_INSERT_TAIL(&stream->tunnel->ended, stream, entry);
	tunnel_wake(stream->tunnel);
}

static void tell(struct tunnel_stream *stream)
{
	stream->told = true;
	stream->tunnel->stream_count--;
	stream->hub->stream_count--;
	tunnel_message_lost(stream);
	if (stream->ops && stream->ops->on_end)
		stream->ops->on_end(stream, stream->arg, &stream->result);
	stream->ops = NULL;
}

void tunnel_stream_tell_ended(struct tunnel *tunnel)
{
	struct tunnel_stream *stream;

	while ((stream = TAILQ_FIRST(&tunnel->ended))) {
		TAILQ_REMOVE(&tunnel->ended, stream, entry);
		tell(stream);
		if (stream->closed)
			free_stream(stream);
		else
			TAILQ_INSERT_TAIL(&tunnel->zombies, stream, entry);
	}
}

/* Everything has come; only the channel is slow. The result is known, the
 * bytes go on to the channel without the tunnel. */
static bool is_draining(const struct tunnel_stream *stream)
{
	return stream->closed && stream->in_ended && stream->chan &&
	       !stream->in_broken;
}

static void make_orphan(struct tunnel_stream *stream)
{
	struct tunnel_hub *hub = stream->hub;

	untouch(stream);
	TAILQ_REMOVE(&stream->tunnel->streams, stream, entry);
	stream->result.error = stream->out_ended ? 0 : -EPIPE;
	tell(stream);
	stream->tunnel = NULL;
	stream->orphan_until = loop_now(hub->loop) + TUNNEL_ORPHAN_MS;
	TAILQ_INSERT_TAIL(&hub->orphans, stream, entry);
}

void tunnel_stream_free_orphans(struct tunnel_hub *hub, int64_t now)
{
	struct tunnel_stream *stream;

	while ((stream = TAILQ_FIRST(&hub->orphans)) &&
		stream->orphan_until <= now)
		tunnel_stream_finish(stream, -ETIMEDOUT);
}

void tunnel_stream_lose_all(struct tunnel *tunnel)
{
	bool dead = tunnel->state == TUNNEL_DEAD;
	struct tunnel_stream *stream;
	struct tunnel_stream *next;

	for (stream = TAILQ_FIRST(&tunnel->streams); stream; stream = next) {
		next = TAILQ_NEXT(stream, entry);
		if (is_draining(stream)) {
			if (dead)
				make_orphan(stream);
			continue;
		}
		stream->closed |= dead; /* GOAWAY says it all: no RST each */
		tunnel_stream_finish(stream, -ENOTCONN);
	}
	tunnel_stream_tell_ended(tunnel);
	while (dead && (stream = TAILQ_FIRST(&tunnel->zombies))) {
		TAILQ_REMOVE(&tunnel->zombies, stream, entry);
		free_stream(stream);
	}
}

/* The channel takes nothing more. What it still gives is sent first: a service
 * that answered and left has done its work. */
static void write_failed(struct tunnel_stream *stream, int error)
{
	stream->in_broken = true;
	stream->result.error = error;
	drop_held(stream);
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

ssize_t tunnel_stream_fill(
	struct tunnel_stream *stream, uint8_t *buf, size_t len, uint32_t *flags)
{
	ssize_t n = 0;

	if (len > TUNNEL_PAYLOAD)
		len = TUNNEL_PAYLOAD;
	if (stream->out.len > 0)
		n = fill_from_queue(stream, buf, len);
	else if (stream->chan)
		n = fill_from_channel(stream, buf, len);
	else if (!stream->out_final)
		n = NGHTTP2_ERR_DEFERRED;
	stream->deferred = n < 0;
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

void tunnel_stream_credit(struct tunnel_stream *stream, size_t len)
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
		tunnel_stream_credit(stream, (size_t)n);
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
		tunnel_stream_credit(stream, (size_t)n);
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

void tunnel_stream_receive(
	struct tunnel_stream *stream, const uint8_t *data, size_t len)
{
	if (stream->hub->piece_count == TUNNEL_PASS_PIECES)
		tunnel_stream_settle_touched(stream->tunnel);
	if (stream->ended || stream->in_broken)
		return;
	stream->result.received += len;
	if (stream->wants_body) {
		tunnel_message_data(stream, data, len);
		tunnel_stream_credit(stream, len);
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

void tunnel_stream_settle_touched(struct tunnel *tunnel)
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

void tunnel_stream_closed(struct tunnel_stream *stream, uint32_t code)
{
	stream->closed = true;
	stream->deferred = false;
	stream->tunnel->open_count--;
	if (stream->told) {
		TAILQ_REMOVE(&stream->tunnel->zombies, stream, entry);
		free_stream(stream);
	} else if (stream->ended) {
		return; /* freed when told */
	} else if (code == NGHTTP2_REFUSED_STREAM) {
		tunnel_stream_finish(stream, -ENOTCONN); /* never looked at */
	} else if (code != NGHTTP2_NO_ERROR || !stream->in_ended) {
		tunnel_stream_finish(stream, -ECONNRESET);
	} else if (stream->chan && stream->in_broken) {
		tunnel_stream_finish(stream, stream->result.error);
	} else if (!stream->chan) {
		tunnel_stream_finish(stream, stream->out_ended ? 0 : -EPIPE);
	} else {
		tunnel_stream_touch(stream); /* bytes may wait for it */
	}
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

void tunnel_stream_join(struct tunnel_stream *stream, struct chan *chan,
	const void *first, size_t len)
{
	const nghttp2_nv ok = {.name = (uint8_t *)":status",
		.value = (uint8_t *)"200",
		.namelen = 7,
		.valuelen = 3};
	struct tunnel *tunnel = stream->tunnel;

	if (stream->ended) {
		chan_free(chan);
		return;
	}
	stream->chan = chan;
	if (tunnel_queue_append(&stream->out, first, len) < 0 ||
		(tunnel->role == TUNNEL_AGENT &&
			nghttp2_submit_response(tunnel->session, stream->id,
				&ok, 1, &tunnel_session_provider) < 0)) {
		tunnel_stream_finish(stream, -ENOMEM);
		return;
	}
	stream->answered = true;
	widen_window(stream);
	chan_watch(chan, on_chan_ready, stream);
	tunnel_wake(tunnel);
}

void tunnel_stream_set_ops(struct tunnel_stream *stream,
	const struct tunnel_stream_ops *ops, void *arg)
{
	stream->ops = ops;
	stream->arg = arg;
}

void tunnel_stream_reset(struct tunnel_stream *stream)
{
	tunnel_stream_finish(stream, -ECANCELED);
}
