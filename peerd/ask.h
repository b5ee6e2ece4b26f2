/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A worker is asked to join a descriptor with one of its tunnels: IPC_DIAL from
 * peerd, for a sibling's client as for a peer's. Every ask ends in exactly one
 * answer or a cancellation: the worker's word, its death, or the deadline.
 */

#include "peerd/peerd.h"
#include "ipc.pb-c.h"

struct asks;

struct asks *asks_new(struct peerd *peerd);
/* None may be under way. */
void asks_free(struct asks *asks);

struct ask_answer {
	Peerway__Ipc__DialCode code; /* NONE: joined */
	const char *message;
	uint32_t worker; /* its number */
};

/*
 * Takes fd. dial is borrowed; its id is set here, its deadline_ms bounds the
 * answer. Gives the ask's id, or 0 when the worker has gone or cannot be told
 * so much at once: then nothing follows. Else on_answer(arg) in a later turn.
 */
uint64_t asks_start(struct asks *asks, uint64_t link, Peerway__Ipc__Dial *dial,
	int fd, void (*on_answer)(void *arg, const struct ask_answer *answer),
	void *arg);
/* No answer follows; the worker lets the descriptor go. */
void asks_cancel(struct asks *asks, uint64_t id);

/* From the worker; an id that is not asked of this link any more is ignored. */
void asks_answer(struct asks *asks, uint64_t link, uint64_t id,
	Peerway__Ipc__DialCode code, const char *message);
void asks_worker_gone(struct asks *asks, uint64_t link);
