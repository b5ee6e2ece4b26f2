/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A stream from the inside, for stream.c (life and end), stream_tx.c (from the
 * descriptor into the call) and stream_rx.c (from the call to the descriptor)
 * alone.
 */

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
	size_t sending_len;
	uint64_t sent;

	/* from the call to the descriptor; rx's holder's */
	struct half rx;
	struct rpc_tag receive_tag;
	grpc_byte_buffer *message;
	size_t offset; /* into message, of what is still to be written */
	size_t left;
	size_t held;  /* counted in METER_BYTES_HELD */
	bool discard; /* the descriptor takes nothing any more */
	_Atomic uint64_t received;

	/* the end */
	struct rpc_tag finish_tag;
	atomic_bool status_sent;
	atomic_bool noted; /* clean and why are set, by who set this */
	bool clean;
	char why[160];
	struct loop_task guard_task;
	atomic_bool guard_posted;
	struct loop_task end_task;

	/* the loop's thread only */
	struct timer *guard;
	uint64_t received_at_guard;
	bool call_over;
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
/* The call cannot go on; its end will tell the directions. */
void stream_cut(struct stream *s, const char *why);

/* ---- the directions: by whoever holds the half ---- */

void stream_tx_init(struct stream *s);
void stream_tx_pump(struct stream *s);
void stream_rx_init(struct stream *s);
void stream_rx_pump(struct stream *s);
/* Asks for the next message; rx stays held until it is here. */
void stream_rx_receive(struct stream *s);

/* ---- by anyone ---- */

/* Tells the direction to stop and, if it waits, runs it to its end. The caller
 * has a reference of its own. */
void stream_tx_stop(struct stream *s);
void stream_rx_stop(struct stream *s);
