/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One reverse tunnel to one proxy, the agent's side of it: says who the agent
 * is and what it serves, takes in the lists of proxies, hands connections to
 * serve.h. (shared/tunnel.h is the HTTP/2 below.)
 *
 *   OPENING --SETTINGS--> READY --UPLINK_SETTLE_MS--> SETTLED
 *      any state --closed by either side, silent--> ended
 */

#include "agent/serve.h"
#include "shared/discovery.h"
#include "shared/identity.h"

/* A proxy that took the connection must speak HTTP/2 within this. */
#define UPLINK_READY_MS 10000
/* A tunnel that has stood for so long was worth its while. */
#define UPLINK_SETTLE_MS 10000
/* Streams of GET /v1/agent/events that one tunnel may hold. */
#define UPLINK_EVENTS_MAX 4

struct outage;
struct uplink;

struct uplink_ops {
	void (*on_settled)(void *arg, struct uplink *uplink);
	void (*on_discovery)(void *arg, struct uplink *uplink,
		const struct discovery *discovery);
	/* Every proxy knows of this tunnel now. */
	void (*on_published)(void *arg, struct uplink *uplink);
	/* The proxy would rather have us elsewhere, best at to (a proxy's id,
	 * may be empty). False: we stay. */
	bool (*on_move)(void *arg, struct uplink *uplink, const char *to);
	/* Last call; the uplink is freed after it. */
	void (*on_end)(void *arg, struct uplink *uplink, const char *reason);
};

struct uplink_config {
	struct loop *loop;
	struct tunnel_hub *hub;
	struct serve *serve;
	const char *cluster;
	struct metrics *metrics;
	struct outage *outage;
	const char *registration; /* JSON; changes with its number */
	unsigned registration_number;
};

/* Takes fd and ssl. Borrows config (live), ops, arg until on_end. */
struct uplink *uplink_new(const struct uplink_config *config, int fd, SSL *ssl,
	const struct host_identity *proxy, const struct uplink_ops *ops,
	void *arg);
/* config->registration is another: tells the proxy. */
void uplink_announce(struct uplink *uplink);
/* No new streams; those there are have linger_ms to end. on_end follows. */
void uplink_close(struct uplink *uplink, uint32_t linger_ms, const char *why);

const char *uplink_proxy_id(const struct uplink *uplink);
/* Ready and not closing. */
bool uplink_is_ready(const struct uplink *uplink);
/* on_published was called. */
bool uplink_is_published(const struct uplink *uplink);
/* uplink_close() was called. */
bool uplink_is_closing(const struct uplink *uplink);
