/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What this process owns, and how its parts hang together:
 *
 *   membership --identity--> session --open, lease--> mirror, publisher
 *   links --tunnels--> publish --batches--> publisher --> authd
 *   authd --watch--> mirror --commit--> links (CACHE)
 *   links --LOOKUP, JOIN--> forward --> authd
 *
 * authd away: membership, session and publisher wait; everything else goes on.
 */

#include "routed/forward.h"
#include "routed/links.h"
#include "routed/membership.h"
#include "routed/mirror.h"
#include "routed/mover.h"
#include "routed/publisher.h"
#include "routed/rebalance.h"
#include "routed/series.h"
#include "routed/session.h"
#include "routed/validate.h"
#include "shared/conf.h"
#include "shared/loop.h"
#include "shared/metrics.h"

struct routed {
	const struct conf *conf;
	struct loop *loop;
	struct rpc_cq *cq;
	char proxy_id[CONF_UUID_SIZE];
	int64_t started_ms; /* Unix time */
	struct metrics metrics;

	struct links *links;
	struct publish *publish;
	struct publisher *publisher;
	struct session *session;
	struct mirror *mirror;
	struct forward *forward;
	struct membership *membership;
	struct validate *validate;
	struct mover *mover;
	struct rpc_identity *holder; /* NULL: no identity yet */

	struct timer *sync_wait;     /* for workers that have not come */
	struct timer *strategy_wait; /* for the first word of the watch */
	struct timer *drain;	     /* for workers that have not gone */
	int64_t drain_until;	     /* draining */
	bool draining;
	bool leaving;
};

/* Listens, opens the cache, begins to join. 0, or -1 and *error_out (gives). */
int routed_start(struct routed *routed, const struct conf *conf,
	struct loop *loop, char **error_out);
/* SIGTERM: serves until the last worker has gone, at most drain_timeout, then
 * stops the loop. A second one: at once. */
void routed_drain(struct routed *routed);
void routed_stop(struct routed *routed);

/* What keeps it from being ready, a line each; gives, NULL: nothing. */
char *routed_missing(void *arg);