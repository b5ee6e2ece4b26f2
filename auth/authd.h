/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What this process owns, made in main.c and passed down. */

#include <sys/queue.h>

#include "auth/backend.h"
#include "auth/backup.h"
#include "auth/ca.h"
#include "shared/conf.h"
#include "shared/diag.h"
#include "shared/ipc_link.h"
#include "shared/loop.h"
#include "shared/metrics.h"
#include "shared/rpc.h"

struct conf_changes;
struct feed;
struct follow;
struct watcher;

struct authd {
	const struct conf *conf;
	struct loop *loop;
	struct backend *backend;
	struct ca_store ca_store;
	struct ca_pair *cas; /* NULL until they are loaded */
	char uuid[37];	     /* of this authd */
	struct rpc_cq *cq;
	struct rpc_identity *identity; /* NULL until the CAs are there */
	int64_t not_after;	       /* of its certificate, Unix seconds */
	struct timer *renewal;
	struct follow *follow; /* of what other authd change */
	/* what is in force, as pub/config says */
	const char *strategy_type;
	unsigned strategy_count;
	char *disagreement;	   /* NULL: this host's file says the same */
	struct rpc_server *server; /* NULL until ready, and when stopping */
	struct ipc_server *control;
	struct backup backup;
	struct diag *diag;
	struct metrics metrics;
	int64_t started;	/* loop_now() */
	int64_t snapshots_from; /* loop_now(); none before */
	bool stopping;		/* a start that is under way goes no further */

	TAILQ_HEAD(, watcher) watchers;
	unsigned watcher_count;
	struct feed *feed;  /* of those who are up to date; NULL: nobody is */
	unsigned followers; /* of it */
};

enum authd_metric {
	METRIC_JOINS,
	METRIC_JOINS_REFUSED,
	METRIC_RENEWALS,
	METRIC_RENEWALS_REFUSED,
	METRIC_USERS,
	METRIC_GRANTS,
	METRIC_BATCHES,
	METRIC_BATCHES_REFUSED,
	METRIC_WATCHERS,
	METRIC_SNAPSHOTS,
	METRIC_SENT_SNAPSHOT,
	METRIC_SENT_CHANGES,
	METRIC_WATCHERS_DROPPED,
	METRIC_HOST_CA_ROTATING,
	METRIC_USER_CA_ROTATING,
	METRIC_LAG,
	AUTHD_METRICS,
};
extern const struct metric authd_metrics[AUTHD_METRICS];
extern const struct diag_ops authd_diag_ops;

/* Asynchronous start: CAs, cluster config, own certificate, listening sockets.
 * Ends the process with one line when it cannot go on. */
void authd_start(struct authd *auth);
/* What was read again is in conf already. */
void authd_apply(struct authd *auth, const struct conf_changes *changes);
/* Uses these CAs (takes cas) from now on: own certificate, the cluster's
 * config; done when that is stored. */
void authd_use_cas(struct authd *auth, struct ca_pair *cas,
	void (*done)(void *arg, enum backend_status status), void *arg);
/* Unix seconds. */
int64_t authd_time(void);

/* gRPC status codes for what the store answered. */
int authd_status(enum backend_status status);
