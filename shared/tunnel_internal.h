/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the tunnel share; nobody else includes this.
 *
 *   tunnel.c          hub, life of a tunnel, liveness
 *   tunnel_io.c       bytes between TLS and the HTTP/2 session
 *   tunnel_session.c  settings and callbacks of nghttp2
 *   tunnel_stream.c   life of a stream
 *   tunnel_flow.c     bytes between a stream and its channel
 *   tunnel_linger.c   channels that are closed with patience
 *   tunnel_message.c  heads of requests and answers, small bodies
 *   tunnel_window.c, tunnel_queue.c, tunnel_mem.c   parts without a view
 *
 * nghttp2 must not be entered from its own callbacks (mem_send, mem_recv, del):
 * there we only submit, take notes and defer. tunnel_io_task(), which runs at
 * the end of a turn, does the rest, and only from there are on_end calls made.
 */

#include <nghttp2/nghttp2.h>
#include <sys/queue.h>

#include "shared/tunnel.h"
#include "shared/tunnel_mem.h"
#include "shared/tunnel_queue.h"
#include "shared/tunnel_window.h"

/* Frame header (9) and payload fill one TLS record: with 16384 each frame would
 * spill into a second record and cost a third more on both sides. */
#define TUNNEL_RECORD 16384u
#define TUNNEL_PAYLOAD (TUNNEL_RECORD - 9)
/* The same in four records, for streams that have filled several frames in a
 * row: a quarter of the calls. Others wait a little longer behind them. */
#define TUNNEL_LARGE_FRAME (4 * TUNNEL_RECORD)
#define TUNNEL_LARGE_PAYLOAD (TUNNEL_LARGE_FRAME - 9)
#define TUNNEL_LARGE_AFTER 8

/* Records read per tunnel and pass, then others get their turn. */
#define TUNNEL_PASS_RECORDS 8
/* Pieces of DATA noted per pass before they are written out early. */
#define TUNNEL_PASS_PIECES 1024

#define TUNNEL_STREAM_WINDOW_MIN (64u << 10) /* before it is joined */
#define TUNNEL_STREAM_WINDOW (256u << 10)    /* joined, before it grows */
#define TUNNEL_CONNECTION_WINDOW (1u << 20)  /* at start */
#define TUNNEL_CONNECTION_WINDOW_MAX (32u << 20)

#define TUNNEL_HEADER_MAX 16	  /* regular headers of one request */
#define TUNNEL_HEAD_BYTES 8192	  /* names and values of one head */
#define TUNNEL_REASON_MAX 256	  /* peerway-reason */
#define TUNNEL_EXCHANGE_MS 30000  /* answer to tunnel_exchange() */
#define TUNNEL_CLOSE_WAIT_MS 1000 /* for the peer's end after ours */
#define TUNNEL_ORPHAN_MS 60000	  /* last bytes of a lost tunnel's stream */
#define TUNNEL_LINGER_MS 5000	  /* input of a channel that has got its end */
#define TUNNEL_IDLE_MS 1000	  /* then memory between frames is given back */
/* Tunnels whose session memory comes from slots; 1.6 GB of address space. */
#define TUNNEL_PROXY_SLOTS 16384
#define TUNNEL_AGENT_SLOTS 64
#define TUNNEL_REKEY_BYTES 64000000000ull /* records per key are limited */

TAILQ_HEAD(tunnel_list, tunnel);
TAILQ_HEAD(tunnel_stream_list, tunnel_stream);
TAILQ_HEAD(tunnel_linger_list, tunnel_linger);

/* DATA that lies in the hub's read buffer; pieces of a stream are chained. */
struct tunnel_piece {
	const uint8_t *data;
	uint32_t len;
	int32_t next; /* -1: last */
};

struct tunnel_hub {
	struct loop *loop;
	struct tunnel_settings settings;
	struct tunnel_list tunnels;
	struct tunnel_stream_list orphans;
	struct tunnel_linger_list lingers;
	struct timer *tick; /* liveness of all tunnels */
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *options[2]; /* by role */
	struct tunnel_mem *mem;	    /* NULL: malloc */
	bool mem_tried;

	/* one pass over one tunnel */
	uint8_t *read_buf; /* TUNNEL_PASS_RECORDS records */
	uint8_t *gather;   /* small frames, sent as one record */
	size_t gather_len; /* 0 outside of a flush */
	struct tunnel_piece *pieces;
	unsigned piece_count; /* 0 outside of a pass */
	int64_t now_us;

	uint64_t tunnel_count;
	uint64_t stream_count;
	uint64_t window_sum; /* of all streams: what they may make us hold */
	uint64_t rekey_bytes;
	uint64_t bytes_held;
	uint64_t bytes_in;
	uint64_t bytes_out;
};

enum tunnel_state {
	TUNNEL_HANDSHAKEN, /* waiting for the peer's SETTINGS */
	TUNNEL_READY,
	TUNNEL_ENDING,	/* GOAWAY sent or received: no new streams */
	TUNNEL_CLOSING, /* our end sent, reading until the peer's */
	TUNNEL_DEAD,	/* freed by the next tunnel_io_task() */
};

/* Each has at most one PING under way; its number is in the opaque data. */
enum tunnel_ping_kind {
	TUNNEL_PING_LIVENESS,
	TUNNEL_PING_CALLER,
	TUNNEL_PING_GOAWAY, /* what was under way when we said goodbye has come
			     */
	TUNNEL_PING_KINDS,
};

struct tunnel {
	TAILQ_ENTRY(tunnel) entry; /* in hub->tunnels */
	struct tunnel_hub *hub;
	enum tunnel_role role;
	enum tunnel_state state;
	struct chan *chan;
	nghttp2_session *session;
	struct tunnel_mem_user mem_user;
	const struct tunnel_ops *ops;
	void *arg;
	char *reason; /* why it ends; NULL while it does not */

	struct loop_task task;
	bool more_input;     /* the last pass stopped before the end */
	bool io_failed;	     /* nothing can be sent any more */
	bool end_sent;	     /* close_notify and FIN */
	struct timer *timer; /* ENDING, CLOSING: when patience ends */

	/* sent next, in this order; no mem_send before they are gone */
	struct tunnel_queue held_copy;
	const uint8_t *held; /* nghttp2's, valid until the next mem_send */
	size_t held_len;
	uint64_t written; /* since the last key update */
	int64_t last_sent;
	bool quiet;   /* the session had nothing more to send */
	bool trimmed; /* its frame buffer has no pages */

	struct tunnel_stream_list streams; /* on_end not yet due */
	struct tunnel_stream_list touched; /* have pieces or an end to settle */
	struct tunnel_stream_list ended;   /* on_end due */
	struct tunnel_stream_list zombies; /* told; not yet closed in HTTP/2 */
	unsigned stream_count;		   /* streams + ended */
	unsigned open_count; /* in HTTP/2: against MAX_CONCURRENT_STREAMS */

	struct tunnel_window window; /* of the connection */
	int64_t last_heard;
	uint32_t rtt_us;     /* last */
	uint32_t rtt_min_us; /* least: what the line takes without queues */
	int64_t ping_sent_us[TUNNEL_PING_KINDS]; /* 0: none under way */
	void (*ping_fn)(void *arg, uint32_t rtt_us);
	void *ping_arg;
};

/* Agent: the head of a request while it comes. */
struct tunnel_head {
	char text[TUNNEL_HEAD_BYTES];
	size_t text_len;
	const char *method;
	const char *path;
	const char *authority;
	struct tunnel_header headers[TUNNEL_HEADER_MAX];
	size_t header_count;
};

struct tunnel_stream {
	TAILQ_ENTRY(tunnel_stream)
	entry; /* in one list of tunnel, or orphans */
	TAILQ_ENTRY(tunnel_stream) touch; /* in tunnel->touched */
	struct tunnel *tunnel;		  /* NULL: orphan */
	struct tunnel_hub *hub;
	int32_t id;
	struct chan *chan; /* NULL: not joined */
	const struct tunnel_stream_ops *ops;
	void *arg;
	struct tunnel_head *head;	  /* agent: until on_request */
	struct tunnel_exchange *exchange; /* proxy: tunnel_exchange() */
	struct timer *timer;		  /* wait for the answer */
	char *reason;			  /* proxy: peerway-reason */
	int64_t orphan_until;
	struct tunnel_stream_result result;

	/* into the tunnel: first what is queued, then the channel, or the end
	 */
	struct tunnel_queue out;
	/* from the tunnel: what the channel did not take */
	struct tunnel_queue held;
	/* from the tunnel: a request's body, an answer's body or lines */
	struct tunnel_queue body;
	struct tunnel_window window;
	uint32_t full_frames; /* sent in a row */
	int32_t first_piece;  /* -1: none */
	int32_t last_piece;

	int status;    /* proxy: of the answer; agent: given */
	bool answered; /* proxy: the head has come; agent: it has gone */
	bool pushing;  /* agent: tunnel_stream_reply_open() */
	bool is_touched;
	bool out_final;	 /* nothing follows what is in out */
	bool out_ended;	 /* END_STREAM has gone */
	bool deferred;	 /* nghttp2 waits for resume_data */
	bool wants_body; /* what comes is gathered in body */
	bool in_ended;	 /* END_STREAM has come */
	bool in_broken;	 /* the channel takes nothing more */
	bool in_shut;	 /* the channel has got its end */
	bool closed;	 /* no longer in the session */
	bool ended;	 /* result is final */
	bool told;	 /* on_end was called */
};

/* tunnel.c */
void tunnel_drop(struct tunnel *tunnel, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void tunnel_wake(struct tunnel *tunnel); /* run the task this turn */
void tunnel_peer_ready(struct tunnel *tunnel);
void tunnel_peer_goaway(struct tunnel *tunnel, uint32_t code);
void tunnel_pong(struct tunnel *tunnel, const uint8_t opaque[8]);
void tunnel_begin_closing(struct tunnel *tunnel);
void tunnel_destroy(struct tunnel *tunnel);
int64_t tunnel_clock_us(void);

/* The hub's timer runs while there is something to watch. */
void tunnel_hub_watch_time(struct tunnel_hub *hub);

/* tunnel_io.c */
void tunnel_io_ready(void *arg);
void tunnel_io_task(struct loop_task *task);
/* Sends what is there without waiting. */
void tunnel_io_flush(struct tunnel *tunnel);

/* tunnel_session.c */
void tunnel_session_setup(struct tunnel_hub *hub);
int tunnel_session_start(struct tunnel *tunnel);
/* The provider of every body that we send. */
extern const nghttp2_data_provider tunnel_session_provider;

/* tunnel_stream.c */
struct tunnel_stream *tunnel_stream_new(struct tunnel *tunnel, int32_t id);
void tunnel_stream_resume(struct tunnel_stream *stream);
void tunnel_stream_touch(struct tunnel_stream *stream);
void tunnel_stream_closed(struct tunnel_stream *stream, uint32_t code);
/* Makes the result final; resets it in HTTP/2 unless closed. */
void tunnel_stream_finish(struct tunnel_stream *stream, int error);
/* Calls on_end of all that ended. */
void tunnel_stream_tell_ended(struct tunnel *tunnel);
/* The tunnel is gone: all that is left of it ends. */
void tunnel_stream_lose_all(struct tunnel *tunnel);
/* Walked by the hub's timer. */
void tunnel_stream_free_orphans(struct tunnel_hub *hub, int64_t now);

/* tunnel_flow.c */
/* Bytes begin to move between the stream and its channel. */
void tunnel_flow_start(struct tunnel_stream *stream);
/* What read callbacks give nghttp2. */
ssize_t tunnel_flow_fill(struct tunnel_stream *stream, uint8_t *buf, size_t len,
	uint32_t *flags);
/* The connection's credit was given by the caller. */
void tunnel_flow_receive(
	struct tunnel_stream *stream, const uint8_t *data, size_t len);
/* How much of a frame it may fill. */
size_t tunnel_flow_payload(const struct tunnel_stream *stream);
/* len bytes have left for where they go: the sender may send as many. */
void tunnel_flow_credit(struct tunnel_stream *stream, size_t len);
/* Writes out the pieces of all touched streams and settles their ends. */
void tunnel_flow_settle(struct tunnel *tunnel);
void tunnel_flow_drop_held(struct tunnel_stream *stream);

/* tunnel_linger.c */
/* Takes chan, whose end was sent; closes it when its input has ended. */
void tunnel_linger(struct tunnel_hub *hub, struct chan *chan);
void tunnel_linger_expire(struct tunnel_hub *hub, int64_t now);

/* tunnel_message.c */
/* Agent: a head is about to come. */
void tunnel_message_begin(struct tunnel_stream *stream);
/* false: more than we take. */
bool tunnel_message_header(struct tunnel_stream *stream, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len);
void tunnel_message_head_ended(struct tunnel_stream *stream);
void tunnel_message_data(
	struct tunnel_stream *stream, const uint8_t *data, size_t len);
void tunnel_message_ended(struct tunnel_stream *stream);
/* The exchange ended without its answer's end. */
void tunnel_message_lost(struct tunnel_stream *stream);
