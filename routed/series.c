/* SPDX-License-Identifier: Apache-2.0 */
/* What routed tells of itself: what it counts, and what is looked up when
 * asked. */
#include "routed/series.h"

#include "routed/routed.h"
#include "shared/lag.h"

const struct metric routed_series[ROUTED_METRIC_COUNT] = {
	[ROUTED_COMMITS] = {"peerway_routed_cache_commits_total", NULL,
		"Changes of authd's that were written to the cache", false,
		NULL},
	[ROUTED_LOOKUPS] = {"peerway_routed_lookups_total", NULL,
		"Questions of peerd's that were passed on to authd", false,
		NULL},
	[ROUTED_JOINS] = {"peerway_routed_joins_total", NULL,
		"Agents' joins and renewals that were passed on", false, NULL},
	[ROUTED_MOVES] = {"peerway_routed_moves_asked_total", NULL,
		"Agents that were asked to have their tunnel elsewhere", false,
		NULL},
	[ROUTED_LAG] = LAG_METRIC,
};

enum gauge {
	GAUGE_CONNECTED,
	GAUGE_REVISION,
	GAUGE_EPOCH,
	GAUGE_PUBLISHED,
	GAUGE_PENDING,
	GAUGE_WORKERS,
	GAUGE_LEASE,
	GAUGE_CACHE_AGE,
	GAUGE_COUNT,
};

static const struct metric gauge_table[GAUGE_COUNT] = {
	[GAUGE_CONNECTED] = {"peerway_routed_auth_connected", NULL,
		"1 while an auth server answers", true, NULL},
	[GAUGE_REVISION] = {"peerway_routed_cache_revision", NULL,
		"Revision of the store that the cache stands at", true, NULL},
	[GAUGE_EPOCH] = {"peerway_routed_lease_epoch", NULL,
		"Epoch of the lease on which this host's records hang", true,
		NULL},
	[GAUGE_PUBLISHED] = {"peerway_routed_tunnels_published", NULL,
		"Agents whose record authd has from this host", true, NULL},
	[GAUGE_PENDING] = {"peerway_routed_tunnels_pending", NULL,
		"Agents of whom authd has not heard the last", true, NULL},
	[GAUGE_WORKERS] = {"peerway_routed_workers", NULL,
		"Workers of the proxy that are connected", true, NULL},
	[GAUGE_LEASE] = {"peerway_routed_lease_held", NULL,
		"1 while this host has a lease, as far as it knows", true,
		NULL},
	[GAUGE_CACHE_AGE] = {"peerway_routed_cache_age_seconds", NULL,
		"Since authd's watch has said anything; it does at least every "
		"5 s",
		true, NULL},
};

char *routed_gauges(void *arg)
{
	const struct routed *routed = arg;
	struct cache_meta meta;
	struct metrics gauges;
	char *text;

	mirror_position(routed->mirror, &meta);
	metrics_init(&gauges, gauge_table, GAUGE_COUNT, 1, 0, NULL);
	metric_set(&gauges, GAUGE_CONNECTED,
		session_state(routed->session) == SESSION_OPEN);
	metric_set(&gauges, GAUGE_REVISION, (int64_t)meta.revision);
	metric_set(&gauges, GAUGE_EPOCH,
		(int64_t)session_lease(routed->session)->epoch);
	metric_set(
		&gauges, GAUGE_LEASE, session_lease(routed->session)->id != 0);
	metric_set(&gauges, GAUGE_CACHE_AGE,
		mirror_silence_ms(routed->mirror) / 1000);
	metric_set(&gauges, GAUGE_PUBLISHED,
		(int64_t)publish_published(routed->publish));
	metric_set(&gauges, GAUGE_PENDING,
		(int64_t)publish_pending(routed->publish));
	metric_set(&gauges, GAUGE_WORKERS, links_workers(routed->links));
	text = metrics_text(&gauges);
	metrics_deinit(&gauges);
	return text;
}
