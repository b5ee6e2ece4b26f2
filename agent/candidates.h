/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whom to dial next: the names in proxy_server, and the proxies the tracker
 * knows by addresses of their own. Each has its own backoff, so that one that
 * is away does not slow the way to the others. Pure: time and random bits are
 * given.
 *
 * Of those that are due the one with the fewest failures is next. At equal
 * failures a proxy that lacks a tunnel comes before proxy_server, unless the
 * caller wants it the other way round; among these chance decides, so that the
 * agents of a fleet spread over its proxies.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/tracker.h"

#define CANDIDATES_STEP_MS 1000
#define CANDIDATES_MAX_MS 8000

struct candidates;
/* Copies the names ("host" or "host:port"). */
struct candidates *candidates_new(
	const char *const *servers, size_t server_count);
void candidates_free(struct candidates *candidates);

struct candidate {
	char key[320]; /* names it to the functions below */
	/* Borrowed until the tracker changes. */
	const char *const *addrs;
	unsigned addr_count;
	uint16_t default_port;
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
/* Its tunnel has stood for a while: failures are forgotten. */
void candidates_settled(struct candidates *candidates, const char *key);
