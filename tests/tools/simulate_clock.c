/* SPDX-License-Identifier: Apache-2.0 */
/* The clock: a heap of events, and what each means. */
#include "tests/tools/simulate.h"

#include <stdlib.h>

#include "shared/alloc.h"

struct event {
	int64_t at;
	uint64_t number; /* of two at one time the older comes first */
	uint32_t agent;
	uint32_t proxy;
	uint32_t life;
	enum sim_event kind;
};

struct sim_heap {
	struct event *events; /* from 1 on */
	size_t count;
	size_t room;
	uint64_t numbers;
};

struct sim_heap *sim_heap_new(void)
{
	return xcalloc(1, sizeof(struct sim_heap));
}

void sim_heap_free(struct sim_heap *heap)
{
	free(heap->events);
	free(heap);
}

static bool precedes(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->number < b->number;
}

static void push(struct sim_heap *heap, struct event event)
{
	size_t at = ++heap->count;

	if (at >= heap->room) {
		heap->room = heap->room ? heap->room * 2 : 1024;
		heap->events = xrealloc(
			heap->events, heap->room * sizeof(*heap->events));
	}
	event.number = heap->numbers++;
	for (; at > 1 && precedes(&event, &heap->events[at / 2]); at /= 2)
		heap->events[at] = heap->events[at / 2];
	heap->events[at] = event;
}

static struct event pop(struct sim_heap *heap)
{
	struct event first = heap->events[1];
	struct event last = heap->events[heap->count--];
	size_t at = 1, child;

	while ((child = at * 2) <= heap->count) {
		if (child < heap->count && precedes(&heap->events[child + 1],
						   &heap->events[child]))
			child++;
		if (!precedes(&heap->events[child], &last))
			break;
		heap->events[at] = heap->events[child];
		at = child;
	}
	heap->events[at] = last;
	return first;
}

void sim_after(struct sim *sim, int64_t ms, enum sim_event event,
	uint32_t agent, uint32_t proxy, uint32_t life)
{
	push(sim->heap, (struct event){.at = sim->now + (ms > 0 ? ms : 0),
				.agent = agent,
				.proxy = proxy,
				.life = life,
				.kind = event});
}

static void handle(struct sim *sim, const struct event *event)
{
	switch (event->kind) {
	case SIM_REVIEW:
		sim_on_review(sim, event->agent);
		break;
	case SIM_ARRIVE:
		sim_on_arrive(sim, event->agent, event->proxy);
		break;
	case SIM_OPEN:
		sim_on_open(sim, event->agent, event->proxy, event->life);
		break;
	case SIM_NOBODY:
		sim_refused(sim, event->agent, event->proxy);
		break;
	case SIM_PUBLISHED:
		sim_on_published(sim, event->agent, event->proxy, event->life);
		break;
	case SIM_LOST:
		sim_on_lost(sim, event->agent, event->proxy, event->life);
		break;
	case SIM_LIST:
		sim_on_list(sim);
		break;
	case SIM_PUSH:
		sim_on_push(sim);
		break;
	case SIM_LEASE_OVER:
		sim_on_lease_over(sim, event->proxy, event->life);
		break;
	case SIM_UP:
		sim_proxy_start(sim, event->proxy);
		break;
	case SIM_BALANCE:
		sim_on_balance(sim);
		break;
	case SIM_STEP:
		if (sim->step)
			sim->step(sim);
		break;
	case SIM_EVENTS:
		break;
	}
}

bool sim_run(struct sim *sim, int64_t until, bool (*done)(struct sim *sim))
{
	while (sim->heap->count && sim->heap->events[1].at <= until) {
		struct event event = pop(sim->heap);

		/* asked once for each moment */
		if (event.at > sim->now && done && done(sim))
			return true;
		sim->now = event.at;
		handle(sim, &event);
	}
	sim->now = until;
	return done && done(sim);
}

/* xorshift64* */
uint32_t sim_random(struct sim *sim)
{
	sim->random ^= sim->random >> 12;
	sim->random ^= sim->random << 25;
	sim->random ^= sim->random >> 27;
	return (uint32_t)((sim->random * 0x2545f4914f6cdd1d) >> 32);
}
