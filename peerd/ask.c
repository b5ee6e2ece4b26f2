/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dials that peerd hands to workers: see ask.h. Owns no descriptor: the copy
 * that travels is the message's.
 */
#include "peerd/ask.h"

#include <stdlib.h>

#include "peerd/idmap.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"

/* The worker times out by itself; this is for one that hangs. */
#define GRACE_MS 1000

struct ask {
	struct asks *asks;
	uint64_t id;
	uint64_t link;
	struct timer *deadline;
	void (*on_answer)(void *arg, const struct ask_answer *answer);
	void *arg;
};

struct asks {
	struct peerd *peerd;
	struct idmap *pending;
};

struct asks *asks_new(struct peerd *peerd)
{
	struct asks *asks = xcalloc(1, sizeof(*asks));

	asks->peerd = peerd;
	asks->pending = idmap_new();
	return asks;
}

void asks_free(struct asks *asks)
{
	idmap_free(asks->pending);
	free(asks);
}

static void ask_end(struct ask *ask)
{
	idmap_remove(ask->asks->pending, ask->id);
	timer_free(ask->deadline);
	loop_free_later(ask->asks->peerd->loop, free, ask);
}

static void conclude(
	struct ask *ask, Peerway__Ipc__DialCode code, const char *message)
{
	struct ask_answer answer = {
		.code = code,
		.message = message,
		.worker = worker_links_number(
			ask->asks->peerd->workers, ask->link),
	};

	ask_end(ask);
	ask->on_answer(ask->arg, &answer);
}

static void tell_cancel(struct ask *ask)
{
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;

	cancel.id = ask->id;
	worker_links_send(ask->asks->peerd->workers, ask->link, IPC_DIAL_CANCEL,
		&cancel.base, -1);
}

static void on_deadline(void *arg)
{
	struct ask *ask = arg;

	tell_cancel(ask);
	conclude(ask, PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT,
		"the worker did not answer in time");
}

uint64_t asks_start(struct asks *asks, uint64_t link, Peerway__Ipc__Dial *dial,
	int fd, void (*on_answer)(void *arg, const struct ask_answer *answer),
	void *arg)
{
	struct ask *ask = xcalloc(1, sizeof(*ask));

	ask->asks = asks;
	ask->id = idmap_add(asks->pending, ask);
	ask->link = link;
	ask->on_answer = on_answer;
	ask->arg = arg;
	ask->deadline = timer_new(asks->peerd->loop, on_deadline, ask);
	timer_set(ask->deadline, (int64_t)dial->deadline_ms + GRACE_MS);
	dial->id = ask->id;
	if (worker_links_send(asks->peerd->workers, link, IPC_DIAL, &dial->base,
		    fd) < 0) {
		ask_end(ask);
		return 0;
	}
	return ask->id;
}

void asks_cancel(struct asks *asks, uint64_t id)
{
	struct ask *ask = idmap_find(asks->pending, id);

	if (!ask)
		return;
	tell_cancel(ask);
	ask_end(ask);
}

void asks_answer(struct asks *asks, uint64_t link, uint64_t id,
	Peerway__Ipc__DialCode code, const char *message)
{
	struct ask *ask = idmap_find(asks->pending, id);

	if (ask && ask->link == link)
		conclude(ask, code, message);
}

struct departure {
	uint64_t link;
};

static void fail_if_gone(void *arg, void *object)
{
	const struct departure *departure = arg;
	struct ask *ask = object;

	if (ask->link == departure->link)
		conclude(ask, PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE,
			"the worker that held the tunnel has gone");
}

void asks_worker_gone(struct asks *asks, uint64_t link)
{
	struct departure departure = {.link = link};

	idmap_each(asks->pending, fail_if_gone, &departure);
}
