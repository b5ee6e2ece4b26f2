/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * When a new tunnel may be tried: what the agent knows of proxies (the newest
 * list), to which of them it has a tunnel (claimed), and how many attempts are
 * under way that have not yet turned into a claim (leases). The reference's
 * rules (peering-reference 9.3). Pure: time is given.
 *
 *   target = the desired proxies (fleet.h) that have not asked us to leave, at
 *            most the connection count if that is not 0
 *   a lease is granted when target > |claimed and desired| + leases,
 *   or, to begin with, when there is no lease and nothing is claimed or known
 *
 * Nothing here says to which proxy an attempt goes: behind a load balancer the
 * agent cannot choose. Whoever answers is claimed, or refused when it is
 * claimed already.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/fleet.h"

/* Without any list for so long, what was known is forgotten. */
#define TRACKER_EXPIRY_MS 180000
/* A tunnel to a proxy nobody has mentioned counts for so long: the proxy
 * itself will soon push a list that has it. */
#define TRACKER_YOUNG_MS 15000
/* A proxy that asked us to leave is desired again if that has not come about
 * within this. */
#define TRACKER_LEAVE_MS 60000

struct tracker;
struct tracker *tracker_new(void);
void tracker_free(struct tracker *tracker);

/* 0: a tunnel to every proxy. */
void tracker_set_count(struct tracker *tracker, uint32_t count);

/* A list of proxies that came at now; takes a reference if it is news
 * (fleet_is_news()), else false. */
bool tracker_mention(struct tracker *tracker, struct fleet *fleet, int64_t now);
/* Forgets what has expired; returns when something will, INT64_MAX: never. */
int64_t tracker_expire(struct tracker *tracker, int64_t now);
/* What is known; NULL: nothing. Borrowed until the next mention or expiry. */
struct fleet *tracker_fleet(const struct tracker *tracker);

/* Attempts at once; and without any tunnel, a further way is tried after so
 * long: a proxy that hangs must not cost an attempt's whole time. */
#define TRACKER_ATTEMPTS_MAX 4
#define TRACKER_HEDGE_MS 2000

/* Whether an agent with so many attempts under way, the newest of them since
 * newest, may begin another; true grants a lease, and *hedge_out says that it
 * is one more than the target. False: *due_out is when to ask again, INT64_MAX:
 * when something changed. */
bool tracker_may_begin(struct tracker *tracker, unsigned attempts,
	int64_t newest, int64_t now, bool *hedge_out, int64_t *due_out);
/* Whether a tunnel may be tried; true grants a lease, to be ended by exactly
 * one of tracker_claim() and tracker_return(). */
bool tracker_lease(struct tracker *tracker, int64_t now);
/* One more, whatever the target, for an agent without any tunnel whose attempts
 * take long; false when there is a tunnel. */
bool tracker_lease_extra(struct tracker *tracker);
/* How many leases are more than is needed, now that a tunnel came of one. */
size_t tracker_excess(const struct tracker *tracker, int64_t now);
void tracker_return(struct tracker *tracker);
/* Turns a lease into a claim; false: claimed already, and the lease is still
 * to be returned. */
bool tracker_claim(struct tracker *tracker, const char *id, int64_t now);
void tracker_release(struct tracker *tracker, const char *id);

/*
 * A proxy we have a tunnel to asks us to have one elsewhere instead, best at
 * the proxy to (may be empty). False: there is no proxy left to go to, or it
 * is not desired anyway, or we are leaving another already, or two of our
 * tunnels would be in one zone that are in two.
 */
bool tracker_leave(
	struct tracker *tracker, const char *id, const char *to, int64_t now);
/* Where we were asked to go instead; empty: nowhere in particular. */
const char *tracker_wanted_first(const struct tracker *tracker);

bool tracker_is_claimed(const struct tracker *tracker, const char *id);
/* Desired in the list, and not being left. */
bool tracker_is_desired(const struct tracker *tracker, const char *id);
/* Being left because it asked for it. */
bool tracker_is_leaving(const struct tracker *tracker, const char *id);
/* Claimed, not desired, and no newcomer of whom the next list will tell. */
bool tracker_is_needless(
	const struct tracker *tracker, const char *id, int64_t now);
size_t tracker_claimed(const struct tracker *tracker);
/* How many tunnels there should be. */
size_t tracker_target(const struct tracker *tracker);
/* Claims of desired proxies in that region and zone. */
size_t tracker_claimed_at(
	const struct tracker *tracker, const char *region, const char *zone);
