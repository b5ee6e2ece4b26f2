/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One DialNode call to a peer, from the first frame to the end of its stream.
 *
 *   DIALING --ConnectionEstablished--> ANSWERED --client_join()--> JOINED --> .
 *      \--status, deadline, client_cancel()--> ENDING --> .
 *
 * All on the loop's thread but the joined stream.
 */

#include "peerd/channel.h"
#include "peerd/request.h"
#include "peerd/stream.h"
#include "proto/ipc.h"
#include "ipc.pb-c.h"

struct client_call;

struct client_answer {
	Peerway__Ipc__DialCode code; /* NONE: connected */
	const char *text;	     /* why not, in the reference's words */
	const char *trace; /* trace_report.h, not parsed; NULL: none */
};

struct client_dial {
	const struct request_fields *fields; /* borrowed for client_dial() */
	const uint8_t *connection_id;	     /* likewise */
	const char *user;		     /* likewise */
	uint32_t deadline_ms;		     /* of the dial phase */
	/* Once, in a later turn, unless cancelled before. When connected,
	 * client_join() or client_cancel() within it; else the call is gone. */
	void (*on_answer)(void *arg, const struct client_answer *answer);
	void *arg;
};

/* Gives a call that is the caller's until on_answer said no, client_cancel(),
 * or the stream's on_end. */
struct client_call *client_dial(
	struct channel *channel, const struct client_dial *dial);
/* Takes fd. on_end(arg) once, as stream.h says; then the call is gone. */
struct stream *client_join(struct client_call *call, int fd, bool raw,
	void (*on_end)(void *arg, const struct stream_result *result),
	void *arg);
/* No callback follows. Not after client_join(). */
void client_cancel(struct client_call *call);
