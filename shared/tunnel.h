/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One reverse tunnel: HTTP/2 on nghttp2 with roles reversed, over one TLS
 * connection. The proxy (TLS server) is the HTTP/2 client and the only one
 * that opens streams; the agent (TLS client) is the HTTP/2 server.
 *
 *   HANDSHAKEN --peer's SETTINGS--> READY --goaway--> ENDING --> DEAD
 *
 * The hub holds what the tunnels of a process share: one read buffer, one
 * coalescing buffer, the frame allocator, memory bounds, one liveness timer.
 * Reasons and figures: docs/architecture.md "The tunnel".
 *
 * All callbacks run in the loop's turn; every function here may be called from
 * them. Nothing is freed before the end of the turn.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/chan.h"
#include "shared/loop.h"

enum tunnel_role {
	TUNNEL_PROXY, /* opens streams */
	TUNNEL_AGENT, /* answers them */
};

struct tunnel_settings {
	uint32_t max_streams;	   /* agent: MAX_CONCURRENT_STREAMS, 10000 */
	uint32_t ping_interval_ms; /* PING when nothing came for so long */
	uint32_t ping_count_max;   /* silent for interval * this: dead */
	/* bytes held for one stalled stream; at least 64 KiB */
	uint64_t stream_buffer_max;
	/* bytes held for all streams of the hub; who exceeds it is reset */
	uint64_t buffer_max;
};

struct tunnel_hub;
struct tunnel_hub *tunnel_hub_new(
	struct loop *loop, const struct tunnel_settings *settings);
/* All tunnels must be gone. */
void tunnel_hub_free(struct tunnel_hub *hub);
/* New values hold for new windows and for the next liveness check. */
void tunnel_hub_configure(
	struct tunnel_hub *hub, const struct tunnel_settings *settings);

struct tunnel_hub_stats {
	uint64_t tunnels;
	uint64_t streams;
	uint64_t
		bytes_held; /* received, not yet written to a stalled channel */
	uint64_t bytes_in;
	uint64_t bytes_out;
};
void tunnel_hub_stats(
	const struct tunnel_hub *hub, struct tunnel_hub_stats *out);

struct tunnel;
struct tunnel_stream;

struct tunnel_header {
	const char *name; /* lower case */
	const char *value;
};

/* A request as the agent sees it; borrowed for the call. */
struct tunnel_request {
	const char *method;    /* GET, POST, CONNECT */
	const char *path;      /* empty for CONNECT */
	const char *authority; /* "<service>:<port>" for CONNECT */
	const struct tunnel_header *headers; /* regular ones, at most 16 */
	size_t header_count;
};

struct tunnel_ops {
	/* The peer's SETTINGS have come. */
	void (*on_ready)(struct tunnel *tunnel, void *arg);
	/* Agent: a stream was opened. Answer it, now or later, with exactly one
	 * of tunnel_stream_join(), _reply(), _reply_open(), _refuse(). For a
	 * POST this comes when its whole body (at most TUNNEL_BODY_MAX) is
	 * here. */
	void (*on_request)(struct tunnel *tunnel, void *arg,
		struct tunnel_stream *stream,
		const struct tunnel_request *request, const uint8_t *body,
		size_t body_len);
	/* The peer has said goodbye: no new streams, those there are go on. Not
	 * called after tunnel_close(). May be NULL. */
	void (*on_ending)(struct tunnel *tunnel, void *arg);
	/* Last call. Its streams have had their on_end before. */
	void (*on_end)(struct tunnel *tunnel, void *arg, const char *reason);
};

#define TUNNEL_BODY_MAX (1u << 20)

/* chan: TLS, the handshake finished, ALPN checked. Takes it. Borrows ops and
 * arg until on_end. */
struct tunnel *tunnel_new(struct tunnel_hub *hub, enum tunnel_role role,
	struct chan *chan, const struct tunnel_ops *ops, void *arg);
/* GOAWAY, then wait at most linger_ms for the streams, then close. 0: at once.
 * on_end follows in a later turn. */
void tunnel_close(
	struct tunnel *tunnel, uint32_t linger_ms, const char *reason);

/* READY and not ending. */
bool tunnel_is_ready(const struct tunnel *tunnel);
unsigned tunnel_stream_count(const struct tunnel *tunnel);
/* loop_now() of the last byte received. */
int64_t tunnel_last_heard(const struct tunnel *tunnel);
/* Round trip of the last PING in microseconds; 0: none yet. */
uint32_t tunnel_rtt_us(const struct tunnel *tunnel);
/* Sends a PING at once; fn(arg, rtt_us) when answered, not called when the
 * tunnel ends before. -EBUSY when one is under way. */
int tunnel_ping(struct tunnel *tunnel, void (*fn)(void *arg, uint32_t rtt_us),
	void *arg);

/* How a stream ended. */
struct tunnel_stream_result {
	/*
	 * 0: both directions ended.
	 * -ECONNREFUSED: the agent refused; on_response said why.
	 * -ECONNRESET: reset by the other end.
	 * -ENOTCONN: the tunnel ended, or never took the stream.
	 * -ETIMEDOUT: no answer in time.
	 * -ECANCELED: tunnel_stream_reset().
	 * -ENOBUFS: the hub's buffer_max was reached.
	 * -EPIPE and others: the joined channel failed.
	 */
	int error;
	uint64_t sent; /* into the tunnel */
	uint64_t received;
};

struct tunnel_stream_ops {
	/* Proxy: the agent's answer to CONNECT. 200: join a channel now. Else
	 * text is the reason in its `peerway-reason` header (may be empty), and
	 * on_end follows. */
	void (*on_response)(struct tunnel_stream *stream, void *arg, int status,
		const char *text);
	/* Last call for the stream, joined or not. */
	void (*on_end)(struct tunnel_stream *stream, void *arg,
		const struct tunnel_stream_result *result);
};

/*
 * Proxy: opens CONNECT authority. *stream_out, or -ENOTCONN (not ready),
 * -EAGAIN (MAX_CONCURRENT_STREAMS reached). Borrows ops and arg until on_end.
 * deadline_ms bounds the wait for on_response (-ETIMEDOUT in on_end).
 */
int tunnel_connect(struct tunnel *tunnel, const char *authority,
	const struct tunnel_header *headers, size_t header_count,
	uint32_t deadline_ms, const struct tunnel_stream_ops *ops, void *arg,
	struct tunnel_stream **stream_out);

/* Agent: sets who hears of the stream's end. */
void tunnel_stream_set_ops(struct tunnel_stream *stream,
	const struct tunnel_stream_ops *ops, void *arg);

/*
 * Joins stream and channel (takes it): from here bytes move both ways until
 * both directions have ended. Half-close is carried over; a channel that is
 * not read stops the far sender. On the agent this answers 200 first. first of
 * len bytes (copied) go into the tunnel before what the channel gives.
 */
void tunnel_stream_join(struct tunnel_stream *stream, struct chan *chan,
	const void *first, size_t len);
/* What has gone so far each way, as in the result. */
void tunnel_stream_counts(const struct tunnel_stream *stream,
	uint64_t *sent_out, uint64_t *received_out);
/* Gives up: RST_STREAM CANCEL; on_end follows with -ECANCELED. */
void tunnel_stream_reset(struct tunnel_stream *stream);

/* Agent: a whole small answer; a refusal with a reason (header
 * `peerway-reason`); an answer that stays open for tunnel_stream_push(). */
void tunnel_stream_reply(struct tunnel_stream *stream, int status,
	const char *content_type, const void *body, size_t len);
void tunnel_stream_refuse(
	struct tunnel_stream *stream, int status, const char *reason);
void tunnel_stream_reply_open(
	struct tunnel_stream *stream, const char *content_type);
/* Copies; at most TUNNEL_BODY_MAX may wait: -ENOBUFS. */
int tunnel_stream_push(
	struct tunnel_stream *stream, const void *data, size_t len);

/*
 * Proxy: GET or POST with a small body. on_data is called with the whole body
 * when it has ended (end = true; at most TUNNEL_BODY_MAX); with stream_lines
 * set, with each complete line as it comes. status 0: the tunnel or the stream
 * ended first, or 30 s passed before the answer; then it is the last call.
 */
struct tunnel_exchange {
	const char *method;
	const char *path;
	const void *body;
	size_t len;
	bool stream_lines;
	void (*on_data)(void *arg, int status, const uint8_t *data, size_t len,
		bool end);
	void *arg;
};
int tunnel_exchange(
	struct tunnel *tunnel, const struct tunnel_exchange *exchange);
