/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A gRPC call past its dial joined with a descriptor: bytes one way become Data
 * frames, Data frames the other way become bytes, until either side ends.
 *
 * Two threads run it: gRPC's completion thread and the loop. Each direction
 * belongs to whoever holds its half (half.h); nobody holds a lock while it
 * works.
 *
 * What the two peers announced (ext.h) decides two things.
 *
 *  - eof: the end of one direction is carried over and the other goes on. The
 *    stream ends when both have ended, or at once when it is torn. Without it
 *    the end of either side ends the stream, after what was on its way has been
 *    delivered, as the reference has it.
 *  - credit: messages are always received, so that what is said about one
 *    direction is not held up by the other; how much may wait for a reader is
 *    bounded by credit.h. Without it no message is received before the last one
 *    has been written, so a reader that stops makes gRPC's flow control stop
 *    the far writer.
 */

#include <grpc/grpc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "peerd/credit.h"
#include "peerd/edges.h"
#include "peerd/parting.h"
#include "peerd/rpc_meters.h"
#include "shared/loop.h"
#include "shared/metrics.h"

/* The other end must answer our end within this time, and a reader whose far
 * end has gone must take something in every such period. */
#define STREAM_END_MS 60000

/* What all streams share; borrowed by each. */
struct stream_hub {
	struct loop *loop;
	struct edges *edges;
	struct partings *partings;
	struct metrics *metrics; /* indices of peerd/meters.h */
	struct rpc_meters *rpc;
	struct credit_pool credit;
};

/* Bytes moved, kept up while streams run; read from any thread. */
struct stream_totals {
	_Atomic uint64_t sent;
	_Atomic uint64_t received;
};

enum stream_side {
	STREAM_CALLER, /* we dialed; the descriptor is the client's */
	STREAM_CALLEE, /* the descriptor leads to the agent's tunnel */
};

struct stream_result {
	bool clean; /* false: torn, one direction did not end in order */
	const char *why;
	uint64_t sent; /* into the mesh */
	uint64_t received;
};

struct stream_setup {
	enum stream_side side;
	grpc_call *call; /* borrowed until on_end */
	int fd;		 /* taken, in every case; non-blocking */
	bool raw;	 /* fd is a client's own TCP socket: RST on failure */
	unsigned ext;	 /* enum ext: in force */
	/* EXT_CREDIT: what the far side lets us send, and what we let it send
	 * (begun; the stream ends it) */
	uint64_t allowed;
	struct credit credit;
	struct stream_totals *totals; /* may be NULL; borrowed until on_end */
	/* Once, on the loop's thread, after stream_call_over(); result is
	 * borrowed for the call. The stream is gone afterwards. */
	void (*on_end)(void *arg, const struct stream_result *result);
	void *arg;
};

struct stream;

/* The call must have no message under way in either direction. */
struct stream *stream_new(
	struct stream_hub *hub, const struct stream_setup *setup);
/* The owner's RECV_STATUS or RECV_CLOSE batch has completed; exactly once.
 * details is borrowed. For a callee, status is not OK if the call was cut. */
void stream_call_over(
	struct stream *stream, grpc_status_code status, const char *details);
/* Ends it at once; on_end follows. */
void stream_abort(struct stream *stream, const char *why);
