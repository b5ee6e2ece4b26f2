/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which peers to ask for an agent, in which order, and for how long each. Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An agent on more proxies than this is not looked for further. */
#define CANDIDATES_MAX 64

enum candidate_health {
	CANDIDATE_READY,       /* connected, serving */
	CANDIDATE_DEGRADED,    /* connected, slow or in trouble */
	CANDIDATE_UNKNOWN,     /* connecting */
	CANDIDATE_DRAINING,    /* connected or not, about to leave */
	CANDIDATE_UNREACHABLE, /* not connected, or silent */
};

/* Who comes first: by health, then of our own region, then by latency. */
struct candidate_rank {
	enum candidate_health health;
	bool far;	    /* of another region */
	int64_t latency_us; /* 0: not known */
};

struct candidate {
	char proxy_id[37];
	struct candidate_rank rank;
	bool from_authd; /* not in the cache: authd was asked */
	bool tried;
};

struct candidates {
	struct candidate list[CANDIDATES_MAX];
	size_t count;
};

/* The new one; NULL when it is there already, or the list is full. */
struct candidate *candidates_add(struct candidates *candidates,
	const char *proxy_id, struct candidate_rank rank);
/* The best untried one, marked as tried: by rank, else as they were added.
 * NULL: none is left. */
struct candidate *candidates_next(struct candidates *candidates);
size_t candidates_untried(const struct candidates *candidates);

/* Time for one of untried attempts when left_ms remain for all: an even share,
 * yet at least CANDIDATE_MIN_MS while there is so much. */
#define CANDIDATE_MIN_MS 2000
uint32_t candidates_share(int64_t left_ms, size_t untried);

/* How long a candidate is waited for before the next is asked as well: its own
 * round trip a few times over, and never less than what an agent that is well
 * needs to reach its service. */
#define CANDIDATE_HEDGE_MIN_MS 100
#define CANDIDATE_HEDGE_MAX_MS 2000
uint32_t candidates_hedge_ms(const struct candidate_rank *rank);

/* Why it stands where it does, for people: "ready, own region, 0.4 ms". */
#define CANDIDATE_REASON_SIZE 96
void candidates_reason(
	const struct candidate *candidate, char text[CANDIDATE_REASON_SIZE]);
