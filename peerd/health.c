/* SPDX-License-Identifier: Apache-2.0 */
/* The score of a peer's pings: see health.h. Kept by peers.c. */
#include "peerd/health.h"

static bool is_slow(const struct health *health, int64_t rtt_us)
{
	return rtt_us >= HEALTH_SLOW_US &&
	       (!health->latency_us ||
		       rtt_us >= health->latency_us * HEALTH_SLOW_FACTOR);
}

bool health_note(
	struct health *health, enum health_result result, int64_t rtt_us)
{
	enum health_verdict before = health->verdict;

	health->pings++;
	if (result == HEALTH_MISSED) {
		health->failed++;
		health->verdict = HEALTH_SILENT;
		return before != HEALTH_SILENT;
	}
	if (result == HEALTH_ERROR) {
		health->failed++;
		health->verdict = HEALTH_DEGRADED;
	} else {
		health->verdict =
			is_slow(health, rtt_us) ? HEALTH_DEGRADED : HEALTH_GOOD;
	}
	health->last_us = rtt_us;
	health->latency_us =
		health->latency_us
			? health->latency_us + (rtt_us - health->latency_us) / 4
			: rtt_us;
	return before != health->verdict;
}

void health_forget(struct health *health)
{
	health->verdict = HEALTH_UNKNOWN;
	health->latency_us = health->last_us = 0;
}

uint32_t health_pause(const struct health *health, uint32_t random)
{
	if (health->verdict == HEALTH_SILENT)
		return HEALTH_RETRY_MS;
	return HEALTH_PERIOD_MS + random % (HEALTH_JITTER_MS + 1);
}
