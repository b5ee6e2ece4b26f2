/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A stream from the inside, for stream.c (life and end), stream_tx.c (from the
 * descriptor into the call) and stream_rx.c (from the call to the descriptor)
 * alone.
 */

#include "peerd/backlog.h"
#include "peerd/ext.h"
#include "peerd/half.h"
#include "peerd/stream.h"
#include "shared/rpc.h"

struct stream {
	struct stream_hub *hub;
	struct stream_setup setup;
	grpc_call *call;
	struct rpc_meter *meter;
	struct edge edge;
	int fd;
	atomic_uint refs;

	/* from the descriptor into the call; tx's holder's */
	struct half tx;
	struct rpc_tag send_tag;
	grpc_byte_buffer *sending;
	size_t sending_len; /* of Data */
	size_t read_size;   /* of the next read */
	uint64_t sent;
	bool blocked_said; /* since the last Credit of the far side */
	bool tx_eof;	   /* Eof is sent: nothing but Credit follows */
	bool read_all;	   /* the descriptor has ended, in order */
	/* for tx's holder, set by others */
	_Atomic int64_t allowed; /* Data that may be sent */
	_Atomic int64_t grant;	 /* Credit to be sent */

	/* from the call to the descriptor; the message and tag are the
	 * receiving completion's, the rest rx's holder's */
	struct half rx;
	struct rpc_tag receive_tag;
	grpc_byte_buffer *message;
	grpc_byte_buffer *writing; /* of it, from offset on, left bytes */
	size_t offset;
	size_t left;
	struct backlog backlog; /* behind it */
	struct credit credit;
	size_t held; /* counted in METER_BYTES_HELD */
	/* for rx's holder, set by the receiving completion */
	atomic_bool receive_due; /* the next message may be asked for */
	atomic_bool far_blocked;
	_Atomic int rx_end; /* enum rx_end */
	/* for tx's holder, set by rx's */
	atomic_bool told_end; /* the descriptor is told that no more comes */
	atomic_bool rx_over;  /* all is delivered that will ever come */
	atomic_bool discard;  /* the descriptor takes nothing any more */
	_Atomic uint64_t received;
	uint64_t arrived;	   /* the receiving completion's */
	_Atomic uint64_t arrivals; /* that we have allowed */

	/* the end */
	struct rpc_tag finish_tag;
	atomic_bool status_sent;
	atomic_bool noted; /* clean and why are set, by who set this */
	bool clean;
	char why[160];
	_Atomic(const char *) first_end; /* who closed first */
	struct loop_task guard_task;
	atomic_bool guard_posted;
	struct loop_task end_task;

	/* the loop's thread only */
	struct timer *guard;
	uint64_t received_at_guard;
	bool call_over;
};

/* Why nothing more will be received. */
enum rx_end {
	RX_OPEN,
	RX_EOF,	   /* the far side's direction has ended */
	RX_CLOSED, /* callee: the far side has closed its half of the call */
	RX_GONE,   /* the call is over, or broken */
};

#define STREAM_OF(ptr, field) \
	((struct stream *)((char *)(ptr)-offsetof(struct stream, field)))

/* ---- stream.c ---- */

void stream_ref(struct stream *s);
/* The last one posts the end to the loop. */
void stream_unref(struct stream *s);
/* The holder's last act on a direction; drops the direction's reference. */
void stream_half_done(struct stream *s, struct half *half);
/* One operation; tag holds no reference by itself. */
void stream_start(struct stream *s, const grpc_op *op, struct rpc_tag *tag);

/* The first reason is the one that is reported. */
void stream_note_end(struct stream *s, bool clean, const char *why);
/* Callee: the last word to the far side; the first one counts. */
void stream_send_status(
	struct stream *s, grpc_status_code status, const char *text);
/* Caller: no more from us. The far side ends the call in answer. */
void stream_send_close(struct stream *s);
/* From now on the end of the call has a deadline. */
void stream_expect_end(struct stream *s);
/* One direction has ended in order; the first one is remembered. */
void stream_note_eof(struct stream *s, const char *who);
/* The call cannot go on; its end will tell the directions. */
void stream_cut(struct stream *s, const char *why);

static inline bool stream_has(const struct stream *s, enum ext ext)
{
	return s->setup.ext & ext;
}

/* ---- the directions: pumps are run by whoever holds the half ---- */

void stream_tx_init(struct stream *s);
void stream_tx_pump(struct stream *s);
void stream_rx_init(struct stream *s);
void stream_rx_deinit(struct stream *s);
void stream_rx_pump(struct stream *s);
/* Asks for the next message; it has a reference of its own. */
void stream_rx_receive(struct stream *s);

/* ---- by anyone ---- */

/* Tells the direction to stop and, if it waits, runs it to its end. The caller
 * has a reference of its own. */
void stream_tx_stop(struct stream *s);
/* Something that the direction waits for has come. */
void stream_tx_wake(struct stream *s);
void stream_rx_stop(struct stream *s);
