/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What peerd counts: an index each into its struct metrics. */

#include "shared/metrics.h"

enum meter {
	METER_STREAMS_CALLER,
	METER_STREAMS_CALLEE,
	METER_BYTES_SENT,
	METER_BYTES_RECEIVED,
	METER_BYTES_HELD,
	METER_STREAMS_BLOCKED,
	METER_DIALS_SIBLING,
	METER_DIALS_PEER,
	METER_DIALS_FAILED,
	METER_DIALS_PENDING,
	METER_HEDGES,
	METER_HEDGES_WON,
	METER_ERROR_NOT_FOUND,
	METER_ERROR_DIAL,
	METER_ERROR_DIRECT_DIAL,
	METER_ERROR_RPC,
	METER_ERROR_FETCH,
	METER_ERROR_UNREACHABLE,
	METER_SERVED_OK,
	METER_SERVED_REFUSED,
	METER_SERVED_DENIED,
	METER_PEERS_CONNECTING,
	METER_PEERS_READY,
	METER_PEERS_DEGRADED,
	METER_PEERS_DRAINING,
	METER_PEERS_UNREACHABLE,
	METER_WORKERS,
	METER_TUNNELS,
	METER_LAG,
	METER_COUNT,
};

extern const struct metric meters_table[METER_COUNT];

/* Lines for what is read when asked: descriptors, peers one by one, calls.
 * arg: struct peerd. Gives, to free(). */
char *meters_more(void *arg);
