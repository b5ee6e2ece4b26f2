/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What authd says of itself on its diagnostic address: the series of /metrics
 * and what /readyz misses.
 */
#include <stdlib.h>

#include "auth/authd.h"
#include "shared/alloc.h"
#include "shared/lag.h"

#define COUNTER(name_, labels_, help_)                          \
	{                                                       \
		.name = name_, .labels = labels_, .help = help_ \
	}

const struct metric authd_metrics[AUTHD_METRICS] = {
	[METRIC_JOINS] = COUNTER("peerway_authd_joins_total", "result=\"ok\"",
		"Hosts and agents that asked to join."),
	[METRIC_JOINS_REFUSED] = COUNTER(
		"peerway_authd_joins_total", "result=\"refused\"", NULL),
	[METRIC_RENEWALS] = COUNTER("peerway_authd_renewals_total",
		"result=\"ok\"", "Certificates asked to be renewed."),
	[METRIC_RENEWALS_REFUSED] = COUNTER(
		"peerway_authd_renewals_total", "result=\"refused\"", NULL),
	[METRIC_USERS] = COUNTER("peerway_authd_user_certificates_total", NULL,
		"Certificates issued to users."),
	[METRIC_GRANTS] = COUNTER("peerway_authd_lease_grants_total", NULL,
		"Leases granted: starts of routed."),
	[METRIC_BATCHES] = COUNTER("peerway_authd_batches_total",
		"result=\"ok\"", "Batches of records that proxies published."),
	[METRIC_BATCHES_REFUSED] = COUNTER(
		"peerway_authd_batches_total", "result=\"refused\"", NULL),
	[METRIC_WATCHERS] = {.name = "peerway_authd_watchers",
		.help = "Proxies that watch the records.",
		.gauge = true},
	[METRIC_SNAPSHOTS] = COUNTER("peerway_authd_snapshots_total", NULL,
		"Snapshots sent to watchers that could not resume."),
	[METRIC_SENT_SNAPSHOT] = COUNTER("peerway_authd_records_sent_total",
		"as=\"snapshot\"", "Records sent to watchers."),
	[METRIC_SENT_CHANGES] = COUNTER(
		"peerway_authd_records_sent_total", "as=\"change\"", NULL),
	[METRIC_WATCHERS_DROPPED] =
		COUNTER("peerway_authd_watchers_dropped_total", NULL,
			"Watchers dropped: too slow, or the store away."),
	[METRIC_HOST_CA_ROTATING] = {.name = "peerway_authd_ca_rotating",
		.labels = "ca=\"host\"",
		.help = "1 while two CAs are trusted: a rotation to finish.",
		.gauge = true},
	[METRIC_USER_CA_ROTATING] = {.name = "peerway_authd_ca_rotating",
		.labels = "ca=\"user\"",
		.gauge = true},
	[METRIC_LAG] = LAG_METRIC,
};

static char *missing(void *arg)
{
	struct authd *auth = arg;
	struct backend_info info;

	backend_info(auth->backend, &info);
	if (info.failing)
		return xasprintf("store: %s\n", info.problem);
	return auth->server ? NULL : xstrdup("service: not listening\n");
}

/* Numbers that the store knows by itself. */
static char *more_metrics(void *arg)
{
	struct authd *auth = arg;
	struct backend_info info;

	backend_info(auth->backend, &info);
	return xasprintf(
		"# HELP peerway_authd_leases Leases kept alive by proxies.\n"
		"# TYPE peerway_authd_leases gauge\n"
		"peerway_authd_leases %u\n"
		"# HELP peerway_authd_store_revision Changes so far.\n"
		"# TYPE peerway_authd_store_revision gauge\n"
		"peerway_authd_store_revision %llu\n"
		"# HELP peerway_authd_store_log_bytes Kept to resume from.\n"
		"# TYPE peerway_authd_store_log_bytes gauge\n"
		"peerway_authd_store_log_bytes %llu\n"
		"# HELP peerway_authd_store_writes_total Transactions "
		"written.\n"
		"# TYPE peerway_authd_store_writes_total counter\n"
		"peerway_authd_store_writes_total %llu\n"
		"# HELP peerway_authd_store_failing The store is away, or the "
		"last write failed.\n"
		"# TYPE peerway_authd_store_failing gauge\n"
		"peerway_authd_store_failing %d\n"
		"# HELP peerway_authd_strategy_disagreement Another strategy "
		"is in force than this host's file has.\n"
		"# TYPE peerway_authd_strategy_disagreement gauge\n"
		"peerway_authd_strategy_disagreement %d\n",
		info.leases, (unsigned long long)info.revision,
		(unsigned long long)info.log_bytes,
		(unsigned long long)info.writes, info.failing,
		auth->disagreement != NULL);
}

const struct diag_ops authd_diag_ops = {
	.missing = missing,
	.more_metrics = more_metrics,
	.lag = METRIC_LAG,
};
