/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of attempts for dial.c: see candidates.h. Sequential and without
 * hedging like the reference, but what answers fast comes first and what is
 * known to be down comes last.
 */
#include "peerd/candidates.h"

#include <stdio.h>
#include <string.h>

bool candidates_add(struct candidates *candidates, const char *proxy_id,
	struct candidate_rank rank)
{
	struct candidate *new;

	for (size_t i = 0; i < candidates->count; i++) {
		if (strcmp(candidates->list[i].proxy_id, proxy_id) == 0)
			return false;
	}
	if (candidates->count == CANDIDATES_MAX)
		return false;
	new = &candidates->list[candidates->count++];
	snprintf(new->proxy_id, sizeof(new->proxy_id), "%s", proxy_id);
	new->rank = rank;
	new->tried = false;
	return true;
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
	snprintf(text, CANDIDATE_REASON_SIZE, "%s, %s region, %s",
		health[rank->health], rank->far ? "another" : "own", latency);
}
