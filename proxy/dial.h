/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One dial for a client of this worker: a stream of a tunnel that ends here,
 * else, or when that tunnel fails, through peerd.
 *
 *   LOCAL --tunnel failed--> ASKED      (peerd has one end of a socketpair)
 *     |                        |
 *     +--the agent said 200----+--DIAL_OK--> ANSWERED --dial_join()--> JOINED
 *   any --refused, failed, deadline, dial_cancel(), the session's end--> DEAD
 *
 * The order is the reference's: local tunnel, then peer after any failure of
 * it; but a refusal by the agent itself (no such service, the service does not
 * answer) is final, since every way leads to the same agent.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/session.h"
#include "shared/chan.h"
#include "shared/ipc_link.h"

struct dial;
struct worker;

struct dial_answer {
	bool ok;
	/* ok: the way */
	Peerway__Ipc__Route route;
	const char *proxy_id;  /* whose tunnel it is */
	int64_t tunnel_worker; /* -1: not known here */
	/* else the reason, with each attempt's error; one line */
	Peerway__Ipc__DialCode code;
	const char *text;
};

struct dial_ask {
	const struct session *session;	  /* borrowed until the end */
	const struct user_identity *user; /* borrowed until the answer; NULL */
	/* Fail with DIAL_OFFLINE when no tunnel here can be used, and leave
	 * peerd to the caller. */
	bool local_only;
};

struct dial_ops {
	/* Once, in a later turn. The texts are borrowed. */
	void (*on_answer)(void *arg, const struct dial_answer *answer);
	/* After dial_join(): the session is over; error as in
	 * tunnel_stream_result, sent is the client's. */
	void (*on_end)(void *arg, int error, uint64_t sent, uint64_t received);
};

/* Starts it, bounded by dial_timeout. Borrows ops and arg. A dial that was not
 * answered with ok is gone after on_answer, any other after on_end. */
struct dial *dial_start(struct worker *worker, const struct dial_ask *ask,
	const struct dial_ops *ops, void *arg);
/* Answered with ok: joins the client's channel (taken); first (copied) goes
 * ahead of what it gives. */
void dial_join(
	struct dial *dial, struct chan *chan, const void *first, size_t len);
/* Gives up, in whatever state; no more calls. */
void dial_cancel(struct dial *dial);
/* Bytes that a joined one has carried so far, to the service and back. */
void dial_counts(
	const struct dial *dial, uint64_t *sent_out, uint64_t *received_out);

/* What peerd says to dials (peerd_link.c). */
ipc_handler dial_handle_ok;
ipc_handler dial_handle_failed;
/* peerd has gone: nothing that was asked of it will be answered. */
void dial_peerd_lost(struct worker *worker);

/* The request that a session makes of peerd. Texts and groups are borrowed:
 * valid as long as session, user and groups. */
void dial_describe(const struct session *session,
	const struct user_identity *user, char *groups[IDENTITY_GROUPS_MAX],
	Peerway__Ipc__Dial *out);
