/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A dial from the inside, for dial.c (the table, and how a dial ends) and
 * dial_route.c (whom it asks, one after the other) alone.
 */

#include <sys/queue.h>

#include "peerd/attempts.h"
#include "peerd/candidates.h"
#include "peerd/client.h"
#include "peerd/connection_id.h"
#include "peerd/dial.h"

#define CODE(name) PEERWAY__IPC__DIAL_CODE__DIAL_##name

/* Peers that are asked at once. */
#define DIAL_TRIES 2

struct dial_try {
	struct dial *dial;
	struct client_call *call; /* NULL: free */
	size_t attempt;		  /* its number in attempts */
	char proxy_id[37];
	bool hedge; /* begun because another was late */
	bool from_authd;
};

struct dial {
	TAILQ_ENTRY(dial) entry; /* in dials->pending or ->joined */
	struct dials *dials;
	uint64_t link; /* who asked; 0: has gone, or on_outcome */
	void (*on_outcome)(void *arg, const struct dial_outcome *outcome);
	void *arg;
	uint64_t id; /* its own number for it */
	Peerway__Ipc__Dial *request;
	uint8_t connection_id[CONNECTION_ID_SIZE];
	int fd;
	int64_t started;
	int64_t deadline;

	struct timer *timer; /* of the deadline */

	/* what we are waiting for: a sibling, or peers and authd */
	uint64_t ask;
	size_t ask_attempt;
	uint64_t lookup;
	struct dial_try tries[DIAL_TRIES];
	struct timer *hedge; /* the next peer is asked as well */
	struct stream *stream;

	struct attempts attempts;
	struct candidates candidates;
	bool looked_up;
	char proxy_id[37]; /* JOINED: who it is joined with */
	bool reported;
	struct trace_report report;   /* of the peer that has taken it */
	Peerway__Ipc__DialCode worst; /* most telling refusal so far */
};

struct dials {
	struct peerd *peerd;
	TAILQ_HEAD(dial_list, dial) pending;
	struct dial_list joined;
	size_t pending_count;
	size_t joined_count;
	void *by_id; /* tree of the pending ones by link and id */
};

static inline int64_t dial_now(const struct dial *dial)
{
	return loop_now(dial->dials->peerd->loop);
}

static inline int64_t dial_time_left(const struct dial *dial)
{
	return dial->deadline - dial_now(dial);
}

/* ---- dial.c: exactly one of these ends a pending dial ---- */

/* Tells who asked, resets a raw socket. */
void dial_fail(
	struct dial *dial, Peerway__Ipc__DialCode code, const char *message);
/* A sibling has taken the connection: our copy is closed. */
void dial_taken(struct dial *dial, uint32_t worker);
/* A peer has answered: the descriptor becomes the call's stream. */
void dial_join(
	struct dial *dial, const char *proxy_id, struct client_call *call);

/* ---- dial_route.c ---- */

/* Asks the first; one of the above follows, now or later. */
void dial_route(struct dial *dial);
/* Lets go of what is being asked; no callback follows. */
void dial_stop_asking(struct dial *dial);
/* Timers of a pending dial. */
void dial_on_deadline(void *dial);
void dial_on_hedge(void *dial);
