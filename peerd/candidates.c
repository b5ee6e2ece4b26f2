/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of attempts for dial_route.c, and for whoever explains it: see
 * candidates.h. What answers fast comes first, what is known to be down last;
 * plan.c says when each is asked.
 */
#include "peerd/candidates.h"

#include <stdio.h>
#include <string.h>

struct candidate *candidates_add(struct candidates *candidates,
	const char *proxy_id, struct candidate_rank rank)
{
	struct candidate *new;

	for (size_t i = 0; i < candidates->count; i++) {
		if (strcmp(candidates->list[i].proxy_id, proxy_id) == 0)
			return NULL;
	}
	if (candidates->count == CANDIDATES_MAX)
		return NULL;
	new = &candidates->list[candidates->count++];
	snprintf(new->proxy_id, sizeof(new->proxy_id), "%s", proxy_id);
	new->rank = rank;
	new->from_authd = false;
	new->tried = false;
	return new;
}

/* Differences of latency below this are noise. */
#define NOISE_US 2000

static bool is_before(
	const struct candidate_rank *a, const struct candidate_rank *b)
{
	if (a->health != b->health)
		return a->health < b->health;
	if (a->far != b->far)
		return b->far;
	return a->latency_us + NOISE_US < b->latency_us;
}

struct candidate *candidates_next(struct candidates *candidates)
{
	struct candidate *best = NULL;

	for (size_t i = 0; i < candidates->count; i++) {
		struct candidate *this = &candidates->list[i];

		if (!this->tried &&
			(!best || is_before(&this->rank, &best->rank)))
			best = this;
	}
	if (best)
		best->tried = true;
	return best;
}

size_t candidates_untried(const struct candidates *candidates)
{
	size_t untried = 0;

	for (size_t i = 0; i < candidates->count; i++)
		untried += !candidates->list[i].tried;
	return untried;
}

uint32_t candidates_share(int64_t left_ms, size_t untried)
{
	int64_t share;

	if (left_ms <= 0)
		return 0;
	share = untried > 1 ? left_ms / (int64_t)untried : left_ms;
	if (share < CANDIDATE_MIN_MS)
		share = left_ms < CANDIDATE_MIN_MS ? left_ms : CANDIDATE_MIN_MS;
	return share > UINT32_MAX ? UINT32_MAX : (uint32_t)share;
}

#define HEDGE_SLACK_MS 50    /* for the agent and its service */
#define HEDGE_ROUND_TRIPS 4  /* of the peer's */
#define HEDGE_UNKNOWN_MS 250 /* no ping has been answered yet */

uint32_t candidates_hedge_ms(const struct candidate_rank *rank)
{
	int64_t ms = HEDGE_SLACK_MS +
		     HEDGE_ROUND_TRIPS * ((rank->latency_us + 999) / 1000);

	if (rank->health == CANDIDATE_UNREACHABLE)
		return CANDIDATE_HEDGE_MIN_MS;
	if (rank->latency_us <= 0)
		return HEDGE_UNKNOWN_MS;
	if (ms < CANDIDATE_HEDGE_MIN_MS)
		return CANDIDATE_HEDGE_MIN_MS;
	return ms > CANDIDATE_HEDGE_MAX_MS ? CANDIDATE_HEDGE_MAX_MS
					   : (uint32_t)ms;
}

void candidates_reason(
	const struct candidate *candidate, char text[CANDIDATE_REASON_SIZE])
{
	static const char *const health[] = {
		[CANDIDATE_READY] = "ready",
		[CANDIDATE_DEGRADED] = "degraded",
		[CANDIDATE_UNKNOWN] = "connecting",
		[CANDIDATE_DRAINING] = "draining",
		[CANDIDATE_UNREACHABLE] = "unreachable",
	};
	const struct candidate_rank *rank = &candidate->rank;
	char latency[32] = "latency unknown";

	if (rank->latency_us > 0)
		snprintf(latency, sizeof(latency), "%.1f ms",
			(double)rank->latency_us / 1000);
	snprintf(text, CANDIDATE_REASON_SIZE, "%s, %s region, %s%s",
		health[rank->health], rank->far ? "another" : "own", latency,
		candidate->from_authd ? ", named by authd" : "");
}
