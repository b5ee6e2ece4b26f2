/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The agent's series on its diagnostic address; agent/series.c has the table.
 */

#include "shared/metrics.h"

enum {
	SERIES_TUNNELS,
	SERIES_TUNNELS_OPENED,
	SERIES_TUNNELS_ENDED,
	SERIES_PROXIES,
	SERIES_CONNECT_FAILURES, /* one for each enum connect_failure */
	SERIES_CONNECT_FAILURES_LAST = SERIES_CONNECT_FAILURES + 5,
	SERIES_STREAMS,
	SERIES_STREAMS_JOINED,
	SERIES_STREAMS_UNKNOWN,
	SERIES_STREAMS_FAILED,
	SERIES_STREAMS_GONE,
	SERIES_DISCOVERY_REFUSED,
	SERIES_MOVES,
	SERIES_NOT_AFTER,
	SERIES_LAG,
	SERIES_COUNT,
};

extern const struct metric series_table[SERIES_COUNT];
