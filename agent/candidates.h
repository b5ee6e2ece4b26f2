/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whom to dial next: the names in proxy_server, and the addresses of the
 * proxies that the tracker knows. Each address has its own backoff, so that one
 * that is away does not slow the way to the others; proxies behind one address
 * (a load balancer) are one candidate. Pure: time and random bits are given.
 *
 * CANDIDATES_FREE failures in a row at whatever addresses are free; after them
 * there is a pause before any is tried, which grows too: an agent that is cut
 * off does not run through hundreds of proxies. Another list of proxies ends
 * the pause.
 *
 * Of those that are due the one with the fewest failures is next. At equal
 * failures a proxy that lacks a tunnel comes before proxy_server, unless the
 * caller wants it the other way round; then the one the tracker wants first,
 * then the nearest (strategy_distance()); among equals chance decides, so that
 * the agents of a fleet spread over its proxies.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/strategy.h"
#include "agent/tracker.h"

#define CANDIDATES_STEP_MS 1000
#define CANDIDATES_FREE 4
#define CANDIDATES_PAUSE_STEP_MS 250
/* A host that comes back is used within 5 s. */
#define CANDIDATES_MAX_MS 5000

struct candidates;
/* Copies the names ("host" or "host:port") and the place. max_ms: the longest
 * wait after failures; 0: CANDIDATES_MAX_MS. */
struct candidates *candidates_new(const char *const *servers,
	size_t server_count, const struct place *own, uint32_t max_ms);
/* Another longest wait, as for candidates_new(). */
void candidates_set_max(struct candidates *candidates, uint32_t max_ms);
void candidates_free(struct candidates *candidates);

struct candidate {
	char key[320]; /* names it to the functions below */
	/* "host:port" each; borrowed until the next call. */
	const char *const *addrs;
	unsigned addr_count;
};

/* True: *out is to be dialed now, and not offered again until
 * candidates_idle(). servers_first: at equal failures, proxy_server. False:
 * *due_out is when to ask again; INT64_MAX: when something changed. */
bool candidates_pick(struct candidates *candidates,
	const struct tracker *tracker, bool servers_first, int64_t now,
	uint32_t random, struct candidate *out, int64_t *due_out);
/* It is no longer being dialed. */
void candidates_idle(struct candidates *candidates, const char *key);

/* It did not answer, was claimed already, or its tunnel has ended: it waits.
 * Returns how many times in a row. */
uint32_t candidates_failed(struct candidates *candidates, const char *key,
	int64_t now, uint32_t random);
/* It asked for patience: not offered before until. That is no failure of its,
 * but one in a row. */
void candidates_hold(struct candidates *candidates, const char *key,
	int64_t until, int64_t now, uint32_t random);
/* When it may be offered again; 0: at once. */
int64_t candidates_due(const struct candidates *candidates, const char *key);
/* Its tunnel has stood for a while: failures are forgotten. */
void candidates_settled(struct candidates *candidates, const char *key);
/* Nobody waits any longer. */
void candidates_reset(struct candidates *candidates);

/* The key of a proxy; empty: it is not known by an address. Borrowed as addrs
 * are. */
const char *candidates_key_of(const struct tracker *tracker, const char *id);
