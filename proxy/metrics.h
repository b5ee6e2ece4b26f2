/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The series of proxy: every worker writes its own array, the parent shows the
 * sums (shared/metrics.h).
 */

#include <stdint.h>

#include "ipc.pb-c.h"
#include "proxy/route.h"
#include "shared/metrics.h"

enum proxy_metric {
	PROXY_TUNNELS,
	PROXY_CLIENTS,
	PROXY_SESSIONS,
	PROXY_STREAMS,
	PROXY_STREAM_BYTES_HELD,
	PROXY_OPEN_FDS,
	PROXY_MAX_FDS,
	PROXY_LISTENERS_PAUSED,
	PROXY_HANDSHAKES_WAITING_ANY,
	PROXY_HANDSHAKES_WAITING_AGENT,
	PROXY_DRAINING, /* the parent's */

	/* what a worker needs to be ready: 1 while it has it */
	PROXY_LINK_PEERD,
	PROXY_LINK_ROUTED,
	PROXY_HAS_IDENTITY,
	PROXY_IDENTITY_REFUSED,
	PROXY_HAS_CACHE,
	PROXY_WARM,

	PROXY_TUNNEL_BYTES_IN,
	PROXY_TUNNEL_BYTES_OUT,
	PROXY_SESSION_BYTES_SENT,
	PROXY_SESSION_BYTES_RECEIVED,

	PROXY_DIAL_LOCAL,
	PROXY_DIAL_SIBLING,
	PROXY_DIAL_PEER,
	PROXY_DIAL_NOT_FOUND, /* failures: in the order of
				 Peerway__Ipc__DialCode */
	PROXY_DIAL_DENIED,
	PROXY_DIAL_REFUSED,
	PROXY_DIAL_OFFLINE,
	PROXY_DIAL_TIMED_OUT,
	PROXY_DIAL_INVALID,
	PROXY_DIAL_INTERNAL,
	PROXY_DIAL_CANCELED,
	PROXY_SERVED_OK,
	PROXY_SERVED_FAILED,
	PROXY_HANDED_OVER,

	PROXY_HANDSHAKE_OK,
	PROXY_HANDSHAKE_TLS,
	PROXY_HANDSHAKE_TIMED_OUT,
	PROXY_HANDSHAKE_NO_IDENTITY,
	PROXY_HANDSHAKE_NOT_NODE,
	PROXY_HANDSHAKE_LIMIT,

	PROXY_END_DONE, /* in the order of enum client_end */
	PROXY_END_ANSWERED,
	PROXY_END_GONE,
	PROXY_END_TIMED_OUT,
	PROXY_END_FAILED,
	PROXY_END_SHUTDOWN,

	PROXY_REFUSED_NONE,
	PROXY_REFUSED_BAD,
	PROXY_REFUSED_OTHER,
	PROXY_PUT_OFF_HANDSHAKES,
	PROXY_PUT_OFF_TUNNELS,
	PROXY_TCP_DENIED,
	PROXY_DIAL_TIME_LOCAL,
	PROXY_DIAL_TIME_SIBLING,
	PROXY_DIAL_TIME_PEER,
	PROXY_LAG,
	PROXY_METRICS,
};

extern const struct metric proxy_metrics[PROXY_METRICS];

/* The series that counts a dial which succeeded on this route. */
enum proxy_metric proxy_metric_of_route(Peerway__Ipc__Route route);
/* The histogram of how long such a dial took, in us. */
enum proxy_metric proxy_metric_of_time(Peerway__Ipc__Route route);
/* The series that counts a dial whose target has no route; not of ROUTE_FOUND.
 */
enum proxy_metric proxy_metric_of_result(enum route_result result);
/* The series that counts a dial which failed with this code. */
enum proxy_metric proxy_metric_of_code(Peerway__Ipc__DialCode code);
