/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What this process owns, made in main.c and passed down. */

#include <sys/queue.h>

#include "auth/backend.h"
#include "auth/ca.h"
#include "shared/conf.h"
#include "shared/diag.h"
#include "shared/ipc_link.h"
#include "shared/loop.h"
#include "shared/metrics.h"
#include "shared/rpc.h"

struct watcher;

struct authd {
	const struct conf *conf;
	struct loop *loop;
	struct backend *backend;
	struct ca_pair *cas; /* NULL until they are loaded */
	char uuid[37];	     /* of this authd */
	struct rpc_cq *cq;
	struct rpc_identity *identity; /* NULL until the CAs are there */
	int64_t not_after;	       /* of its certificate, Unix seconds */
	struct timer *renewal;
	struct rpc_server *server; /* NULL until ready, and when stopping */
	struct ipc_server *control;
	struct diag *diag;
	struct metrics metrics;
	int64_t started; /* loop_now() */
	bool stopping;	 /* a start that is under way goes no further */

	TAILQ_HEAD(, watcher) watchers;
	unsigned watcher_count;

	/* refusals written to the log in this second, and left out */
	int64_t refusals_since;
	unsigned refusals_logged;
	unsigned refusals_silent;
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
	METRIC_WATCHERS_DROPPED,
	METRIC_HOST_CA_ROTATING,
	METRIC_USER_CA_ROTATING,
	AUTHD_METRICS,
};
extern const struct metric authd_metrics[AUTHD_METRICS];
extern const struct diag_ops authd_diag_ops;

/* Asynchronous start: CAs, cluster config, own certificate, listening sockets.
 * Ends the process with one line when it cannot go on. */
void authd_start(struct authd *auth);
/* Uses these CAs (takes cas) from now on: own certificate, the cluster's
 * config; done when that is stored. */
void authd_use_cas(struct authd *auth, struct ca_pair *cas,
	void (*done)(void *arg, enum backend_status status), void *arg);
/* Unix seconds. */
int64_t authd_time(void);

/* gRPC status codes for what the store answered. */
int authd_status(enum backend_status status);
/* One line for a caller who was refused, but not hundreds. Takes what. */
void authd_log_refusal(struct authd *auth, char *what);
