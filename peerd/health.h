/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What pings tell of a peer, pure: its latency and whether it answers. A
 * connection that TCP believes in may lead to a process that is stopped or
 * behind a line that drops packets; only an answer proves the peer alive.
 */

#include <stdbool.h>
#include <stdint.h>

/* One ping every HEALTH_PERIOD_MS to HEALTH_PERIOD_MS + HEALTH_JITTER_MS, with
 * PING_LIMIT_MS to answer: a silent peer is known after 13 s at the latest. */
#define HEALTH_PERIOD_MS 7000
#define HEALTH_JITTER_MS 1000
/* After a failure the next one comes sooner. */
#define HEALTH_RETRY_MS 1000

/* An answer is slow when it took this long and SLOW_FACTOR times the usual. */
#define HEALTH_SLOW_US 500000
#define HEALTH_SLOW_FACTOR 4

enum health_verdict {
	HEALTH_UNKNOWN, /* no ping has been answered or missed yet */
	HEALTH_GOOD,
	HEALTH_DEGRADED, /* answers with an error, or slowly */
	HEALTH_SILENT,	 /* does not answer */
};

/* What one ping came to. */
enum health_result {
	HEALTH_ANSWERED, /* also by UNIMPLEMENTED */
	HEALTH_ERROR,	 /* any other status of the peer's own */
	HEALTH_MISSED,	 /* no answer in time, or no connection */
};

struct health {
	enum health_verdict verdict;
	int64_t latency_us; /* smoothed, weight 1/4 to the newest; 0: none */
	int64_t last_us;
	uint64_t pings;
	uint64_t failed; /* of them */
};

/* Takes one ping's result into account; true when the verdict has changed. */
bool health_note(
	struct health *health, enum health_result result, int64_t rtt_us);
/* A new connection: what the old one's pings said does not count. */
void health_forget(struct health *health);
/* Milliseconds to the next ping; random is any number. */
uint32_t health_pause(const struct health *health, uint32_t random);
