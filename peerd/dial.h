/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A worker's dial: its client's descriptor is to reach an agent that the worker
 * itself does not have.
 *
 *   SIBLING --taken by another worker of this host--> .
 *      | no tunnel here, or its worker failed
 *      v
 *   PEERS --the first ConnectionEstablished--> JOINED --end of the stream--> .
 *      | nobody left to ask                      ^
 *      v                                         |
 *   LOOKUP (authd, once) --other holders----------
 *      any but JOINED --refused, deadline, cancelled--> .
 *
 * PEERS asks one; a second one as well when the first is late for its own
 * latency (candidates_hedge_ms()); the next at once when one has failed. Only
 * peers are asked side by side: a sibling joins the descriptor itself, so two
 * might write to one client.
 *
 * Our copy of the descriptor is kept until somebody has taken the connection.
 * A raw socket whose dial fails is reset. A raw socket outlives the worker that
 * handed it over; one end of a pair does not.
 */

#include "peerd/candidates.h"
#include "peerd/peerd.h"
#include "peerd/trace_report.h"
#include "ipc.pb-c.h"

/* Dials under way at once; further ones fail as INTERNAL. */
#define DIALS_MAX 20000

struct dials;

struct dials *dials_new(struct peerd *peerd);
/* None may be left. */
void dials_free(struct dials *dials);

/* Takes fd; dial is borrowed. Answered on link with DIAL_OK or DIAL_FAILED. */
void dials_begin(struct dials *dials, uint64_t link,
	const Peerway__Ipc__Dial *dial, int fd);
/* What became of a dial; all borrowed. */
struct dial_outcome {
	const char *message; /* NULL: connected; else why not */
	Peerway__Ipc__Route route;
	const char *proxy_id; /* that has the tunnel */
	uint32_t worker;      /* of a sibling */
	const struct trace_report
		*report; /* of a peer that gave one, or NULL */
	Peerway__Ipc__Attempt *const *attempts;
	size_t attempt_count;
};
/* The same for someone in this process: on_outcome(arg) once, now or later;
 * it cannot be cancelled. */
void dials_begin_own(struct dials *dials, const Peerway__Ipc__Dial *dial,
	int fd,
	void (*on_outcome)(void *arg, const struct dial_outcome *outcome),
	void *arg);
/* By the worker that asked, with its own id; unknown ones are ignored. */
void dials_cancel(struct dials *dials, uint64_t link, uint64_t id);
void dials_worker_gone(struct dials *dials, uint64_t link);

/* Not yet joined; joined with a peer's stream. */
size_t dials_pending(const struct dials *dials);
size_t dials_joined(const struct dials *dials);
/* Fails what is pending and cuts the streams; their ends follow. */
void dials_cut_all(struct dials *dials);

/* Whom a dial of the agent would ask, as the cache has it: candidates_next()
 * gives them in order, candidates_reason() says why. Adds to *out. */
void dial_candidates(
	struct peerd *peerd, const char *agent_id, struct candidates *out);
