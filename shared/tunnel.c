/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnels and the hub they share: life of a tunnel from the finished handshake
 * to its end, goodbye, PINGs. Talks to chan.c and, through tunnel_session.c, to
 * nghttp2; owns channel and session.
 *
 * What a newcomer gets wrong: a tunnel never ends on the spot. tunnel_drop()
 * only notes it; tunnel_io_task() destroys it at the end of a turn, because we
 * may be inside a callback of the session that would be deleted.
 */
#include "shared/tunnel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "shared/alloc.h"
#include "shared/sock.h"
#include "shared/tunnel_internal.h"

int64_t tunnel_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

/* One timer walks all tunnels; a quarter interval is precise enough. */
static int64_t tick_ms(const struct tunnel_hub *hub)
{
	int64_t ms = hub->settings.ping_interval_ms / 4;

	return ms < 10 ? 10 : ms > 1000 ? 1000 : ms;
}

static void send_ping(struct tunnel *tunnel, enum tunnel_ping_kind kind)
{
	uint8_t opaque[8] = {(uint8_t)kind};

	if (nghttp2_submit_ping(tunnel->session, 0, opaque) < 0)
		return;
	tunnel->ping_sent_us[kind] = tunnel_clock_us();
	tunnel_wake(tunnel);
}

static void check_alive(struct tunnel *tunnel, int64_t now)
{
	const struct tunnel_settings *settings = &tunnel->hub->settings;
	int64_t silent = now - tunnel->last_heard;
	int64_t limit =
		(int64_t)settings->ping_interval_ms * settings->ping_count_max;

	if (tunnel->state == TUNNEL_DEAD || tunnel->state == TUNNEL_CLOSING)
		return;
	if (silent >= limit)
		tunnel_drop(
			tunnel, "nothing heard for %lld ms", (long long)silent);
	else if (silent >= settings->ping_interval_ms &&
		 !tunnel->ping_sent_us[TUNNEL_PING_LIVENESS])
		send_ping(tunnel, TUNNEL_PING_LIVENESS);
}

static void maybe_trim(struct tunnel *tunnel, int64_t now)
{
	if (tunnel->trimmed || !tunnel->quiet || tunnel->held_len > 0 ||
		now - tunnel->last_sent < TUNNEL_IDLE_MS)
		return;
	tunnel_mem_trim(&tunnel->mem_user);
	tunnel->trimmed = true;
}

static void on_tick(void *arg)
{
	struct tunnel_hub *hub = arg;
	int64_t now = loop_now(hub->loop);
	struct tunnel *tunnel;

	TAILQ_FOREACH (tunnel, &hub->tunnels, entry) {
		check_alive(tunnel, now);
		maybe_trim(tunnel, now);
	}
	tunnel_stream_free_orphans(hub, now);
	tunnel_linger_expire(hub, now);
	if (!TAILQ_EMPTY(&hub->tunnels) || !TAILQ_EMPTY(&hub->orphans) ||
		!TAILQ_EMPTY(&hub->lingers))
		timer_set(hub->tick, tick_ms(hub));
}

void tunnel_hub_watch_time(struct tunnel_hub *hub)
{
	if (!timer_is_set(hub->tick))
		timer_set(hub->tick, tick_ms(hub));
}

struct tunnel_hub *tunnel_hub_new(
	struct loop *loop, const struct tunnel_settings *settings)
{
	struct tunnel_hub *hub = xcalloc(1, sizeof(*hub));

	hub->loop = loop;
	TAILQ_INIT(&hub->tunnels);
	TAILQ_INIT(&hub->orphans);
	TAILQ_INIT(&hub->lingers);
	hub->tick = timer_new(loop, on_tick, hub);
	hub->read_buf = xcalloc(TUNNEL_PASS_RECORDS, TUNNEL_RECORD);
	hub->gather = xcalloc(1, TUNNEL_RECORD);
	hub->pieces = xcalloc(TUNNEL_PASS_PIECES, sizeof(*hub->pieces));
	hub->rekey_bytes = TUNNEL_REKEY_BYTES;
	tunnel_hub_configure(hub, settings);
	tunnel_session_setup(hub);
	return hub;
}

void tunnel_hub_configure(
	struct tunnel_hub *hub, const struct tunnel_settings *settings)
{
	hub->settings = *settings;
}

void tunnel_hub_free(struct tunnel_hub *hub)
{
	if (!hub)
		return;
	tunnel_stream_free_orphans(hub, INT64_MAX);
	tunnel_linger_expire(hub, INT64_MAX);
	nghttp2_session_callbacks_del(hub->callbacks);
	nghttp2_option_del(hub->options[TUNNEL_PROXY]);
	nghttp2_option_del(hub->options[TUNNEL_AGENT]);
	tunnel_mem_free(hub->mem);
	timer_free(hub->tick);
	free(hub->read_buf);
	free(hub->gather);
	free(hub->pieces);
	free(hub);
}

void tunnel_hub_stats(
	const struct tunnel_hub *hub, struct tunnel_hub_stats *out)
{
	*out = (struct tunnel_hub_stats){
		.tunnels = hub->tunnel_count,
		.streams = hub->stream_count,
		.bytes_held = hub->bytes_held,
		.bytes_in = hub->bytes_in,
		.bytes_out = hub->bytes_out,
	};
}

/* The kernel gives up on a silent peer when we would. */
static void prepare_socket(struct tunnel *tunnel)
{
	const struct tunnel_settings *settings = &tunnel->hub->settings;
	int fd = chan_fd(tunnel->chan);

	sock_nodelay(fd);
	sock_user_timeout(
		fd, settings->ping_interval_ms * settings->ping_count_max);
}

struct tunnel *tunnel_new(struct tunnel_hub *hub, enum tunnel_role role,
	struct chan *chan, const struct tunnel_ops *ops, void *arg)
{
	struct tunnel *tunnel = xcalloc(1, sizeof(*tunnel));

	tunnel->hub = hub;
	tunnel->role = role;
	tunnel->chan = chan;
	tunnel->ops = ops;
	tunnel->arg = arg;
	tunnel->task.run = tunnel_io_task;
	tunnel->last_heard = loop_now(hub->loop);
	tunnel->window.size = TUNNEL_CONNECTION_WINDOW;
	TAILQ_INIT(&tunnel->streams);
	TAILQ_INIT(&tunnel->touched);
	TAILQ_INIT(&tunnel->ended);
	TAILQ_INIT(&tunnel->zombies);
	TAILQ_INSERT_TAIL(&hub->tunnels, tunnel, entry);
	hub->tunnel_count++;
	tunnel_hub_watch_time(hub);
	prepare_socket(tunnel);
	if (tunnel_session_start(tunnel) < 0)
		tunnel_drop(tunnel, "cannot start HTTP/2: out of memory");
	else
		chan_watch(chan, tunnel_io_ready, tunnel);
	tunnel_wake(tunnel);
	return tunnel;
}

void tunnel_wake(struct tunnel *tunnel)
{
	loop_defer(tunnel->hub->loop, &tunnel->task);
}

void tunnel_drop(struct tunnel *tunnel, const char *format, ...)
{
	va_list ap;

	if (tunnel->state == TUNNEL_DEAD)
		return;
	tunnel->state = TUNNEL_DEAD;
	chan_watch(tunnel->chan, NULL, NULL);
	if (!tunnel->reason) { /* who began the goodbye knows better */
		va_start(ap, format);
		tunnel->reason = xvasprintf(format, ap);
		va_end(ap);
	}
	tunnel_wake(tunnel);
}

static void free_now(void *arg)
{
	struct tunnel *tunnel = arg;

	free(tunnel->reason);
	free(tunnel);
}

/* The end of a DEAD tunnel; only tunnel_io_task() calls it. */
void tunnel_destroy(struct tunnel *tunnel)
{
	struct tunnel_hub *hub = tunnel->hub;

	/* nghttp2_session_del() calls no on_stream_close: we walk our own. */
	tunnel_stream_lose_all(tunnel);
	if (tunnel->session && !tunnel->io_failed) {
		tunnel_io_flush(tunnel); /* the GOAWAY, if it fits */
		if (!tunnel->held_len && !tunnel->held_copy.len)
			chan_shutdown(tunnel->chan);
	}
	nghttp2_session_del(tunnel->session);
	tunnel->session = NULL;
	chan_free(tunnel->chan);
	timer_free(tunnel->timer);
	tunnel_queue_clear(&tunnel->held_copy);
	TAILQ_REMOVE(&hub->tunnels, tunnel, entry);
	hub->tunnel_count--;
	loop_cancel(hub->loop, &tunnel->task);
	tunnel->ops->on_end(tunnel, tunnel->arg, tunnel->reason);
	loop_free_later(hub->loop, free_now, tunnel);
}

void tunnel_peer_ready(struct tunnel *tunnel)
{
	if (tunnel->state != TUNNEL_HANDSHAKEN)
		return;
	tunnel->state = TUNNEL_READY;
	/* The first round trip, before there is traffic: what windows are
	 * measured against. */
	send_ping(tunnel, TUNNEL_PING_LIVENESS);
	if (tunnel->ops->on_ready)
		tunnel->ops->on_ready(tunnel, tunnel->arg);
}

/* Streams that stay open by their nature would outlive any goodbye. */
static void end_open_answers(struct tunnel *tunnel)
{
	struct tunnel_stream *stream;
	struct tunnel_stream *next;

	for (stream = TAILQ_FIRST(&tunnel->streams); stream; stream = next) {
		next = TAILQ_NEXT(stream, entry);
		if (stream->pushing) {
			stream->out_final = true;
			tunnel_stream_resume(stream);
		} else if (stream->exchange && stream->exchange->stream_lines) {
			tunnel_stream_finish(stream, -ECANCELED);
		}
	}
}

void tunnel_peer_goaway(struct tunnel *tunnel, uint32_t code)
{
	bool first = tunnel->state < TUNNEL_ENDING;

	if (tunnel->state > TUNNEL_ENDING)
		return;
	tunnel->state = TUNNEL_ENDING;
	if (!tunnel->reason)
		tunnel->reason =
			code == NGHTTP2_NO_ERROR
				? xstrdup("ended by the peer")
				: xasprintf("ended by the peer: %s",
					  nghttp2_http2_strerror(code));
	if (first && tunnel->ops->on_ending)
		tunnel->ops->on_ending(tunnel, tunnel->arg);
	end_open_answers(tunnel);
	tunnel_wake(tunnel);
}

static void on_patience_ended(void *arg);

static void set_patience(struct tunnel *tunnel, int64_t ms)
{
	if (!tunnel->timer)
		tunnel->timer =
			timer_new(tunnel->hub->loop, on_patience_ended, tunnel);
	timer_set(tunnel->timer, ms);
}

/* The session has nothing to say or hear: our end goes out, then we read until
 * the peer's, because closing with unread input would reset the connection and
 * might destroy the last frames. */
void tunnel_begin_closing(struct tunnel *tunnel)
{
	tunnel->state = TUNNEL_CLOSING;
	set_patience(tunnel, TUNNEL_CLOSE_WAIT_MS);
}

/* Patience ends: first with the streams, then with the peer's answer. */
static void on_patience_ended(void *arg)
{
	struct tunnel *tunnel = arg;

	if (tunnel->state != TUNNEL_ENDING) {
		tunnel_drop(tunnel, "closed");
		return;
	}
	nghttp2_session_terminate_session(tunnel->session, NGHTTP2_NO_ERROR);
	tunnel_begin_closing(tunnel);
	tunnel_stream_lose_all(tunnel);
	tunnel_wake(tunnel);
}

static void say_goodbye(struct tunnel *tunnel)
{
	if (tunnel->role == TUNNEL_PROXY) {
		/* Only we open streams, and we stop by state. */
		nghttp2_submit_goaway(tunnel->session, NGHTTP2_FLAG_NONE, 0,
			NGHTTP2_NO_ERROR, NULL, 0);
		return;
	}
	/* The last id is known one round trip after the notice. */
	nghttp2_submit_shutdown_notice(tunnel->session);
	send_ping(tunnel, TUNNEL_PING_GOAWAY);
}

void tunnel_close(struct tunnel *tunnel, uint32_t linger_ms, const char *reason)
{
	if (linger_ms == 0 && tunnel->state != TUNNEL_DEAD) {
		nghttp2_session_terminate_session(
			tunnel->session, NGHTTP2_NO_ERROR);
		tunnel_drop(tunnel, "%s", reason);
	}
	if (tunnel->state >= TUNNEL_CLOSING)
		return;
	if (!tunnel->reason)
		tunnel->reason = xstrdup(reason);
	if (tunnel->state != TUNNEL_ENDING)
		say_goodbye(tunnel);
	tunnel->state = TUNNEL_ENDING;
	end_open_answers(tunnel);
	set_patience(tunnel, linger_ms);
	tunnel_wake(tunnel);
}

void tunnel_pong(struct tunnel *tunnel, const uint8_t opaque[8])
{
	enum tunnel_ping_kind kind = opaque[0];
	void (*fn)(void *arg, uint32_t rtt_us) = tunnel->ping_fn;
	int64_t rtt;

	if (kind >= TUNNEL_PING_KINDS || !tunnel->ping_sent_us[kind])
		return; /* not ours */
	rtt = tunnel_clock_us() - tunnel->ping_sent_us[kind];
	tunnel->ping_sent_us[kind] = 0;
	tunnel->rtt_us = rtt < 1 ? 1 : rtt > INT32_MAX ? INT32_MAX : (int)rtt;
	if (!tunnel->rtt_min_us || tunnel->rtt_us < tunnel->rtt_min_us)
		tunnel->rtt_min_us = tunnel->rtt_us;
	if (kind == TUNNEL_PING_GOAWAY)
		nghttp2_submit_goaway(tunnel->session, NGHTTP2_FLAG_NONE,
			nghttp2_session_get_last_proc_stream_id(
				tunnel->session),
			NGHTTP2_NO_ERROR, NULL, 0);
	if (kind == TUNNEL_PING_CALLER) {
		tunnel->ping_fn = NULL;
		fn(tunnel->ping_arg, tunnel->rtt_us);
	}
}

int tunnel_ping(struct tunnel *tunnel, void (*fn)(void *arg, uint32_t rtt_us),
	void *arg)
{
	if (tunnel->state > TUNNEL_ENDING)
		return -ENOTCONN;
	if (tunnel->ping_fn)
		return -EBUSY;
	send_ping(tunnel, TUNNEL_PING_CALLER);
	if (!tunnel->ping_sent_us[TUNNEL_PING_CALLER])
		return -ENOMEM;
	tunnel->ping_fn = fn;
	tunnel->ping_arg = arg;
	return 0;
}

bool tunnel_is_ready(const struct tunnel *tunnel)
{
	return tunnel->state == TUNNEL_READY;
}

unsigned tunnel_stream_count(const struct tunnel *tunnel)
{
	return tunnel->stream_count;
}

int64_t tunnel_last_heard(const struct tunnel *tunnel)
{
	return tunnel->last_heard;
}

uint32_t tunnel_rtt_us(const struct tunnel *tunnel)
{
	return tunnel->rtt_us;
}
