/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes between a tunnel's TLS channel and its HTTP/2 session.
 *
 * Inward: a pass reads up to TUNNEL_PASS_RECORDS records into the hub's buffer
 * and feeds the session; DATA is noted by pointer and written to the streams'
 * channels before the buffer is used again.
 * Outward: once a turn. Small frames are gathered into one record; large ones
 * go to TLS from nghttp2's own memory.
 *
 * What a newcomer gets wrong: a blocked TLS write must be repeated with at
 * least the same bytes, else OpenSSL ends the connection. So what is blocked is
 * held (pointer and length), and the session is not asked for anything new
 * before it has gone. Nothing is ever planned anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/tls.h"
#include "shared/tunnel_internal.h"

/* A frame of at most this many bytes is worth a copy to save a record. */
#define SMALL_FRAME 4096
/* What one tunnel may send per turn before others get theirs. */
#define FLUSH_BYTES (1u << 20)

enum sent { SENT, SENT_BLOCKED, SENT_FAILED };

static enum sent send_bytes(struct tunnel *tunnel, const uint8_t *data,
	size_t len, size_t *done_out)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = chan_write(tunnel->chan, data + done, len - done);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			tunnel->io_failed = true;
			tunnel_drop(tunnel, "cannot send: %s",
				n == -EPROTO ? "TLS failed"
					     : strerror((int)-n));
			return SENT_FAILED;
		}
		done += (size_t)n;
	}
	tunnel->written += done;
	*done_out = done;
	return done < len ? SENT_BLOCKED : SENT;
}

static enum sent hold_copy(
	struct tunnel *tunnel, const uint8_t *data, size_t len)
{
	if (tunnel_queue_append(&tunnel->held_copy, data, len) == 0)
		return SENT_BLOCKED;
	tunnel->io_failed = true;
	tunnel_drop(tunnel, "cannot send: out of memory");
	return SENT_FAILED;
}

static enum sent send_held(struct tunnel *tunnel)
{
	struct tunnel_queue *copy = &tunnel->held_copy;
	enum sent ret = SENT;
	size_t done = 0;

	if (copy->len > 0) {
		ret = send_bytes(
			tunnel, tunnel_queue_head(copy), copy->len, &done);
		if (ret != SENT_FAILED)
			tunnel_queue_drop(copy, done);
	}
	if (ret == SENT && tunnel->held_len > 0) {
		ret = send_bytes(tunnel, tunnel->held, tunnel->held_len, &done);
		if (ret == SENT_FAILED)
			return ret;
		tunnel->held += done;
		tunnel->held_len -= done;
	}
	return ret;
}

/* The buffer is the hub's: what does not go out is copied. */
static enum sent send_gathered(struct tunnel *tunnel)
{
	struct tunnel_hub *hub = tunnel->hub;
	size_t len = hub->gather_len;
	size_t done;
	enum sent ret;

	if (len == 0)
		return SENT;
	hub->gather_len = 0;
	ret = send_bytes(tunnel, hub->gather, len, &done);
	if (ret == SENT_BLOCKED)
		ret = hold_copy(tunnel, hub->gather + done, len - done);
	return ret;
}

static enum sent send_frame(
	struct tunnel *tunnel, const uint8_t *frame, size_t len)
{
	struct tunnel_hub *hub = tunnel->hub;
	enum sent ret = SENT;
	size_t done;

	if (len > SMALL_FRAME || hub->gather_len + len > TUNNEL_RECORD)
		ret = send_gathered(tunnel);
	if (ret == SENT_FAILED)
		return ret;
	if (len <= SMALL_FRAME && ret == SENT) {
		memcpy(hub->gather + hub->gather_len, frame, len);
		hub->gather_len += len;
		return SENT;
	}
	if (ret == SENT) {
		ret = send_bytes(tunnel, frame, len, &done);
		if (ret != SENT_BLOCKED)
			return ret;
		frame += done;
		len -= done;
	}
	tunnel->held = frame;
	tunnel->held_len = len;
	return SENT_BLOCKED;
}

/* New keys long before the limit of records per key; OpenSSL never does it by
 * itself, and refuses while a write is blocked. */
static void maybe_rekey(struct tunnel *tunnel)
{
	if (tunnel->written < tunnel->hub->rekey_bytes)
		return;
	if (SSL_key_update(
		    chan_ssl(tunnel->chan), SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
		tunnel->written = 0;
}

void tunnel_io_flush(struct tunnel *tunnel)
{
	enum sent ret = send_held(tunnel);
	const uint8_t *frame;
	size_t bytes = 0;
	ssize_t len = 1;

	while (ret == SENT) {
		if (bytes >= FLUSH_BYTES) {
			tunnel_wake(tunnel);
			break;
		}
		len = nghttp2_session_mem_send(tunnel->session, &frame);
		if (len <= 0)
			break;
		tunnel->last_sent = loop_now(tunnel->hub->loop);
		tunnel->trimmed = false;
		bytes += (size_t)len;
		ret = send_frame(tunnel, frame, (size_t)len);
	}
	tunnel->quiet = len == 0;
	if (ret == SENT)
		ret = send_gathered(tunnel);
	if (ret == SENT)
		maybe_rekey(tunnel);
	if (len < 0)
		tunnel_drop(tunnel, "HTTP/2 failed: %s",
			nghttp2_strerror((int)len));
}

/* The peer's end, or a failure. Without a goodbye it is a loss. */
static void input_ended(struct tunnel *tunnel, int error)
{
	char text[256] = "";

	if (error == -EPROTO)
		tls_error_text(text, sizeof(text));
	if (error == -EPROTO)
		tunnel_drop(tunnel, "TLS failed: %s", text);
	else if (error == 0)
		tunnel_drop(tunnel, "closed by the peer");
	else
		tunnel_drop(tunnel, "connection lost: %s", strerror(-error));
	tunnel->io_failed = error != 0;
}

static void feed(struct tunnel *tunnel, const uint8_t *data, size_t len)
{
	ssize_t n;

	tunnel->last_heard = loop_now(tunnel->hub->loop);
	if (tunnel->state == TUNNEL_CLOSING)
		return;
	n = nghttp2_session_mem_recv(tunnel->session, data, len);
	if (n < 0)
		tunnel_drop(
			tunnel, "HTTP/2 failed: %s", nghttp2_strerror((int)n));
}

static void read_pass(struct tunnel *tunnel)
{
	uint8_t *buf = tunnel->hub->read_buf;
	ssize_t n = 0;

	tunnel->hub->now_us = tunnel_clock_us();
	tunnel->more_input = false;
	for (int i = 0; i < TUNNEL_PASS_RECORDS; i++) {
		if (tunnel->state == TUNNEL_DEAD)
			break;
		n = chan_read(tunnel->chan, buf, TUNNEL_RECORD);
		if (n <= 0)
			break;
		feed(tunnel, buf, (size_t)n);
		buf += n;
	}
	/* What has come is delivered also when the tunnel has just died. */
	tunnel_flow_settle(tunnel);
	if (n > 0)
		tunnel->more_input = true;
	else if (n != -EAGAIN)
		input_ended(tunnel, (int)n);
}

/* Sends our end; the peer's follows, or patience ends. */
static void closing_step(struct tunnel *tunnel)
{
	int ret;

	if (tunnel->end_sent || tunnel->held_len || tunnel->held_copy.len ||
		nghttp2_session_want_write(tunnel->session))
		return;
	ret = chan_shutdown(tunnel->chan);
	if (ret == -EAGAIN)
		return;
	tunnel->end_sent = true;
	shutdown(chan_fd(tunnel->chan), SHUT_WR);
}

/* A session that met a stranger reports no error; it just wants nothing. */
static void check_over(struct tunnel *tunnel)
{
	if (tunnel->state == TUNNEL_CLOSING) {
		closing_step(tunnel);
		return;
	}
	if (tunnel->held_len || tunnel->held_copy.len ||
		nghttp2_session_want_read(tunnel->session) ||
		nghttp2_session_want_write(tunnel->session))
		return;
	tunnel_begin_closing(tunnel);
	closing_step(tunnel);
}

void tunnel_io_ready(void *arg)
{
	struct tunnel *tunnel = arg;

	if (tunnel->state == TUNNEL_DEAD)
		return;
	read_pass(tunnel);
	tunnel_wake(tunnel);
}

void tunnel_io_task(struct loop_task *task)
{
	struct tunnel *tunnel =
		(struct tunnel *)((char *)task - offsetof(struct tunnel, task));

	if (tunnel->state != TUNNEL_DEAD && tunnel->more_input)
		read_pass(tunnel);
	if (tunnel->state != TUNNEL_DEAD)
		tunnel_io_flush(tunnel);
	/* Those whose last frame has just gone out: nothing else may come. */
	tunnel_flow_settle(tunnel);
	if (tunnel->state != TUNNEL_DEAD)
		check_over(tunnel);
	tunnel_stream_tell_ended(tunnel);
	if (tunnel->state == TUNNEL_DEAD)
		tunnel_destroy(tunnel);
	else if (tunnel->more_input)
		tunnel_wake(tunnel);
}
