/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Attempts to open a tunnel: each has a lease of the tracker and a candidate,
 * and ends as a connection (given to whoever owns the tunnels), or as a failure
 * (counted against its candidate), or is dropped because it is needed no more.
 *
 * Several may be under way (TRACKER_ATTEMPTS_MAX); each ends by itself within
 * CONNECT_WHOLE_MS, so no proxy that hangs can hold up another.
 */

#include "agent/candidates.h"
#include "agent/connect.h"
#include "agent/outage.h"
#include "shared/metrics.h"

/* What is added by chance to the time at which a busy proxy wants us back. */
#define ATTEMPTS_JITTER_MS 1000

struct attempts_config {
	struct loop *loop;
	struct resolver *resolver;
	struct tracker *tracker;
	struct candidates *candidates;
	struct metrics *metrics;
	const char *cluster;
	const struct https_proxy *https_proxy; /* NULL: none */
	struct outage *outage;
	/* A proxy that the tracker now holds as claimed; fd and SSL of result
	 * are given. key: the candidate. */
	void (*on_connected)(void *arg, const char *key,
		const struct connect_result *result);
	/* An attempt has ended: look again. */
	void (*on_change)(void *arg);
	void *arg;
};

struct attempts;
/* Borrows what config points to. */
struct attempts *attempts_new(const struct attempts_config *config);
void attempts_free(struct attempts *attempts);

/* Starts what the tracker grants and drops what is needless; returns when to
 * look again, INT64_MAX: when something changed. Borrows ctx for the call. */
int64_t attempts_review(struct attempts *attempts, SSL_CTX *ctx, int64_t now);
void attempts_drop_all(struct attempts *attempts);

/* For backoff, and for choices that spread. */
uint32_t attempts_random(void);
