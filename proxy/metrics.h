/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The series of proxy: every worker writes its own array, the parent shows the
 * sums (shared/metrics.h).
 */

#include <stdint.h>

#include "ipc.pb-c.h"
#include "shared/metrics.h"

enum proxy_metric {
	PROXY_TUNNELS,
	PROXY_CLIENTS,
	PROXY_SESSIONS,
	PROXY_STREAMS,
	PROXY_STREAM_BYTES_HELD,
	PROXY_OPEN_FDS,
	PROXY_LISTENERS_PAUSED,

	/* what a worker needs to be ready: 1 while it has it */
	PROXY_LINK_PEERD,
	PROXY_LINK_ROUTED,
	PROXY_HAS_IDENTITY,
	PROXY_IDENTITY_REFUSED,
	PROXY_HAS_CACHE,

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

	PROXY_TUNNEL_REFUSED,
	PROXY_TCP_DENIED,
	PROXY_METRICS,
};

extern const struct metric proxy_metrics[PROXY_METRICS];

/* The series that counts a dial which succeeded on this route; which failed
 * with this code. */
enum proxy_metric proxy_metric_of_route(Peerway__Ipc__Route route);
enum proxy_metric proxy_metric_of_code(Peerway__Ipc__DialCode code);
