/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a stream: from its opening to the one call of on_end. Submits to
 * nghttp2; owns the channel from tunnel_stream_join() on (tunnel_flow.c moves
 * the bytes).
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

static void free_stream(struct tunnel_stream *stream)
{
	/* The last flush of a dead tunnel can still close streams in the
	 * session: by a reset, or an end, that had been queued. */
	if (stream->tunnel && stream->tunnel->state == TUNNEL_DEAD)
		nghttp2_session_set_stream_user_data(
			stream->tunnel->session, stream->id, NULL);
	stream->hub->window_sum -= stream->window.size;
	tunnel_flow_drop_held(stream);
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

static void close_channel(struct tunnel_stream *stream, int error)
{
	struct chan *chan = stream->chan;

	stream->chan = NULL;
	if (!chan)
		return;
	if (stream->in_shut && error == -EPIPE) {
		tunnel_linger(stream->hub, chan);
		return;
	}
	/* A torn stream must not look like a whole one. */
	if (error && !stream->in_shut)
		chan_abort(chan);
	chan_free(chan);
}

void tunnel_stream_finish(struct tunnel_stream *stream, int error)
{
	if (stream->ended)
		return;
	stream->ended = true;
	stream->result.error = error;
	tunnel_flow_drop_held(stream);
	tunnel_queue_clear(&stream->out);
	timer_free(stream->timer);
	stream->timer = NULL;
	close_channel(stream, error);
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
	tunnel_flow_start(stream);
}

void tunnel_stream_set_ops(struct tunnel_stream *stream,
	const struct tunnel_stream_ops *ops, void *arg)
{
	stream->ops = ops;
	stream->arg = arg;
}

void tunnel_stream_counts(const struct tunnel_stream *stream,
	uint64_t *sent_out, uint64_t *received_out)
{
	*sent_out = stream->result.sent;
	*received_out = stream->result.received;
}

void tunnel_stream_reset(struct tunnel_stream *stream)
{
	tunnel_stream_finish(stream, -ECANCELED);
}
