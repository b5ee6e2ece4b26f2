/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * When a new tunnel may be tried: what the agent knows of proxies (tracked),
 * to which of them it has a tunnel (claimed), and how many attempts are under
 * way that have not yet turned into a claim (leases). The reference's rules
 * (peering-reference 9.3). Pure: time is given.
 *
 *   desired = the serving proxies of the highest generation of each group
 *   target  = |desired|, at most the connection count if that is not 0
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

#include "shared/discovery.h"

/* A proxy that nobody mentions for so long is forgotten. */
#define TRACKER_EXPIRY_MS 180000
/* A tunnel to a proxy nobody has mentioned counts for so long: the proxy
 * itself will soon push a list that has it. */
#define TRACKER_YOUNG_MS 15000
/* Mentions beyond this many are not kept. */
#define TRACKER_PROXIES_MAX (2 * DISCOVERY_PROXIES_MAX)

struct tracker_proxy {
	char id[37];
	bool draining;
	bool desired; /* kept by the tracker */
	enum discovery_strategy strategy;
	uint32_t agent_connection_count;
	char *group;
	uint64_t generation;
	int64_t expires_at;
	/* Where it takes tunnels: "host" or "host:port". */
	char **addrs;
	unsigned addr_count;
	uint16_t default_port;
};

struct tracker;
struct tracker *tracker_new(void);
void tracker_free(struct tracker *tracker);

/* 0: a tunnel to every proxy. */
void tracker_set_count(struct tracker *tracker, uint32_t count);

/* A list of proxies that came at now. Copies. */
void tracker_mention(struct tracker *tracker, const struct discovery *discovery,
	int64_t now);
/* Forgets what has expired; returns when the next expires, INT64_MAX: never. */
int64_t tracker_expire(struct tracker *tracker, int64_t now);

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

bool tracker_is_claimed(const struct tracker *tracker, const char *id);
bool tracker_is_desired(const struct tracker *tracker, const char *id);
size_t tracker_claimed(const struct tracker *tracker);
/* Borrowed until the next mention or expiry. */
const struct tracker_proxy *tracker_proxies(
	const struct tracker *tracker, size_t *count_out);
