/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The series of routed's /metrics. */

#include "shared/metrics.h"

enum routed_metric {
	ROUTED_COMMITS,
	ROUTED_LOOKUPS,
	ROUTED_JOINS,
	ROUTED_MOVES,
	ROUTED_LAG,
	ROUTED_METRIC_COUNT,
};

extern const struct metric routed_series[ROUTED_METRIC_COUNT];

/* How things stand, as Prometheus text; arg: struct routed. Gives. */
char *routed_gauges(void *arg);
