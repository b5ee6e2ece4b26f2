/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table behind /metrics. What a newcomer gets wrong: series of one name
 * stand together, and only the first of them carries the help text.
 */
#include "proxy/metrics.h"

#include "shared/lag.h"

#define GAUGE(metric, metric_labels, text)                             \
	{                                                              \
		.name = metric, .labels = metric_labels, .help = text, \
		.gauge = true                                          \
	}
#define COUNTER(metric, metric_labels, text)                          \
	{                                                             \
		.name = metric, .labels = metric_labels, .help = text \
	}

#define HISTOGRAM(metric, metric_labels, text)                         \
	{                                                              \
		.name = metric, .labels = metric_labels, .help = text, \
		.shape = &dial_times                                   \
	}

#define DIALS "peerway_proxy_dials_total"
#define SERVED "peerway_proxy_served_dials_total"
#define HANDSHAKES "peerway_proxy_handshakes_total"
#define ENDED "peerway_proxy_connections_ended_total"
#define WAITING "peerway_proxy_handshakes_waiting"
#define REFUSED "peerway_proxy_tunnels_refused_total"
#define PUT_OFF "peerway_proxy_tunnels_put_off_total"
#define LINK_UP "peerway_proxy_link_up"
#define DIAL_TIME "peerway_proxy_dial_duration_seconds"

/* 250 us to 8.2 s */
static const struct histogram_shape dial_times = {
	.first = 250, .step = 1, .count = 16, .unit = 1e-6};

const struct metric proxy_metrics[PROXY_METRICS] = {
	[PROXY_TUNNELS] = GAUGE("peerway_proxy_tunnels", NULL,
		"Registered tunnels that end here."),
	[PROXY_CLIENTS] = GAUGE("peerway_proxy_clients", NULL,
		"Client connections, in whatever state."),
	[PROXY_SESSIONS] = GAUGE("peerway_proxy_sessions", NULL,
		"Joined sessions, also those served for other workers."),
	[PROXY_STREAMS] = GAUGE(
		"peerway_proxy_streams", NULL, "Open streams of all tunnels."),
	[PROXY_STREAM_BYTES_HELD] = GAUGE("peerway_proxy_stream_bytes_held",
		NULL, "Bytes held for streams whose reader has stopped."),
	[PROXY_OPEN_FDS] = GAUGE("peerway_proxy_open_fds", NULL,
		"Open descriptors of the workers."),
	[PROXY_MAX_FDS] = GAUGE("peerway_proxy_max_fds", NULL,
		"Descriptors that the workers may have open."),
	[PROXY_LISTENERS_PAUSED] = GAUGE("peerway_proxy_listeners_paused", NULL,
		"Listeners that do not accept for lack of room."),
	[PROXY_HANDSHAKES_WAITING_ANY] = GAUGE(WAITING, "of=\"clients\"",
		"Unfinished handshakes: of agents whose ClientHello was read, "
		"and of all others."),
	[PROXY_HANDSHAKES_WAITING_AGENT] =
		GAUGE(WAITING, "of=\"agents\"", NULL),
	[PROXY_DRAINING] = GAUGE("peerway_proxy_draining", NULL,
		"1 while this host drains or stops."),
	[PROXY_LINK_PEERD] = GAUGE(LINK_UP, "to=\"peerd\"",
		"Workers linked to the host's other daemons."),
	[PROXY_LINK_ROUTED] = GAUGE(LINK_UP, "to=\"routed\"", NULL),
	[PROXY_HAS_IDENTITY] = GAUGE("peerway_proxy_has_identity", NULL,
		"Workers that have loaded the host's certificate."),
	[PROXY_IDENTITY_REFUSED] = GAUGE("peerway_proxy_identity_refused", NULL,
		"Workers that could not load the newest certificate "
		"and serve with an earlier one."),
	[PROXY_HAS_CACHE] = GAUGE("peerway_proxy_has_cache", NULL,
		"Workers that have opened the routing cache."),
	[PROXY_WARM] = GAUGE("peerway_proxy_warm", NULL,
		"Workers that have had a way to every agent since they "
		"started."),
	[PROXY_TUNNEL_BYTES_IN] = COUNTER("peerway_proxy_tunnel_bytes_total",
		"direction=\"in\"", "Plaintext bytes of all tunnels."),
	[PROXY_TUNNEL_BYTES_OUT] = COUNTER(
		"peerway_proxy_tunnel_bytes_total", "direction=\"out\"", NULL),
	[PROXY_SESSION_BYTES_SENT] = COUNTER(
		"peerway_proxy_session_bytes_total", "direction=\"sent\"",
		"Bytes that ended sessions carried to services, and back."),
	[PROXY_SESSION_BYTES_RECEIVED] =
		COUNTER("peerway_proxy_session_bytes_total",
			"direction=\"received\"", NULL),
	[PROXY_DIAL_LOCAL] = COUNTER(DIALS, "route=\"local\",outcome=\"ok\"",
		"Dials for clients, by route and outcome."),
	[PROXY_DIAL_SIBLING] =
		COUNTER(DIALS, "route=\"sibling\",outcome=\"ok\"", NULL),
	[PROXY_DIAL_PEER] =
		COUNTER(DIALS, "route=\"peer\",outcome=\"ok\"", NULL),
	[PROXY_DIAL_NOT_FOUND] =
		COUNTER(DIALS, "route=\"none\",outcome=\"not_found\"", NULL),
	[PROXY_DIAL_DENIED] =
		COUNTER(DIALS, "route=\"none\",outcome=\"denied\"", NULL),
	[PROXY_DIAL_REFUSED] =
		COUNTER(DIALS, "route=\"none\",outcome=\"refused\"", NULL),
	[PROXY_DIAL_OFFLINE] =
		COUNTER(DIALS, "route=\"none\",outcome=\"offline\"", NULL),
	[PROXY_DIAL_TIMED_OUT] =
		COUNTER(DIALS, "route=\"none\",outcome=\"timed_out\"", NULL),
	[PROXY_DIAL_INVALID] =
		COUNTER(DIALS, "route=\"none\",outcome=\"invalid\"", NULL),
	[PROXY_DIAL_INTERNAL] =
		COUNTER(DIALS, "route=\"none\",outcome=\"internal\"", NULL),
	[PROXY_DIAL_CANCELED] =
		COUNTER(DIALS, "route=\"none\",outcome=\"canceled\"", NULL),
	[PROXY_SERVED_OK] = COUNTER(SERVED, "outcome=\"ok\"",
		"Dials that peerd asked of our tunnels."),
	[PROXY_SERVED_FAILED] = COUNTER(SERVED, "outcome=\"failed\"", NULL),
	[PROXY_HANDED_OVER] = COUNTER("peerway_proxy_handed_over_total", NULL,
		"Accepted sockets given to peerd as they were."),
	[PROXY_HANDSHAKE_OK] = COUNTER(HANDSHAKES, "outcome=\"ok\"",
		"TLS handshakes of clients and agents."),
	[PROXY_HANDSHAKE_TLS] =
		COUNTER(HANDSHAKES, "outcome=\"tls_error\"", NULL),
	[PROXY_HANDSHAKE_TIMED_OUT] =
		COUNTER(HANDSHAKES, "outcome=\"timed_out\"", NULL),
	[PROXY_HANDSHAKE_NO_IDENTITY] =
		COUNTER(HANDSHAKES, "outcome=\"no_identity\"", NULL),
	[PROXY_HANDSHAKE_NOT_NODE] =
		COUNTER(HANDSHAKES, "outcome=\"not_node\"", NULL),
	[PROXY_HANDSHAKE_LIMIT] =
		COUNTER(HANDSHAKES, "outcome=\"limit\"", NULL),
	[PROXY_END_DONE] = COUNTER(ENDED, "reason=\"done\"",
		"Client connections ended, by reason."),
	[PROXY_END_ANSWERED] = COUNTER(ENDED, "reason=\"answered\"", NULL),
	[PROXY_END_GONE] = COUNTER(ENDED, "reason=\"gone\"", NULL),
	[PROXY_END_TIMED_OUT] = COUNTER(ENDED, "reason=\"timed_out\"", NULL),
	[PROXY_END_FAILED] = COUNTER(ENDED, "reason=\"failed\"", NULL),
	[PROXY_END_SHUTDOWN] = COUNTER(ENDED, "reason=\"shutdown\"", NULL),
	[PROXY_REFUSED_NONE] = COUNTER(REFUSED, "reason=\"no_registration\"",
		"Tunnels closed for what their agent said of itself."),
	[PROXY_REFUSED_BAD] =
		COUNTER(REFUSED, "reason=\"bad_registration\"", NULL),
	[PROXY_REFUSED_OTHER] =
		COUNTER(REFUSED, "reason=\"another_agent\"", NULL),
	[PROXY_PUT_OFF_HANDSHAKES] = COUNTER(PUT_OFF, "reason=\"handshakes\"",
		"Agents told to come back later, by what had no room."),
	[PROXY_PUT_OFF_TUNNELS] = COUNTER(PUT_OFF, "reason=\"tunnels\"", NULL),
	[PROXY_TCP_DENIED] = COUNTER("peerway_proxy_tcp_denied_total", NULL,
		"TCP clients outside of allow_from."),
	[PROXY_DIAL_TIME_LOCAL] = HISTOGRAM(DIAL_TIME, "route=\"local\"",
		"How long dials took that succeeded, by route."),
	[PROXY_DIAL_TIME_SIBLING] =
		HISTOGRAM(DIAL_TIME, "route=\"sibling\"", NULL),
	[PROXY_DIAL_TIME_PEER] = HISTOGRAM(DIAL_TIME, "route=\"peer\"", NULL),
	[PROXY_LAG] = LAG_METRIC,
};

enum proxy_metric proxy_metric_of_route(Peerway__Ipc__Route route)
{
	switch (route) {
	case PEERWAY__IPC__ROUTE__ROUTE_LOCAL:
		return PROXY_DIAL_LOCAL;
	case PEERWAY__IPC__ROUTE__ROUTE_SIBLING:
		return PROXY_DIAL_SIBLING;
	default:
		return PROXY_DIAL_PEER;
	}
}

enum proxy_metric proxy_metric_of_time(Peerway__Ipc__Route route)
{
	return PROXY_DIAL_TIME_LOCAL +
	       (proxy_metric_of_route(route) - PROXY_DIAL_LOCAL);
}

enum proxy_metric proxy_metric_of_result(enum route_result result)
{
	static const enum proxy_metric metrics[] = {
		[ROUTE_FOUND] = PROXY_DIAL_INTERNAL,
		[ROUTE_INVALID] = PROXY_DIAL_INVALID,
		[ROUTE_UNKNOWN] = PROXY_DIAL_NOT_FOUND,
		[ROUTE_AMBIGUOUS] = PROXY_DIAL_INVALID,
		[ROUTE_BLIND] = PROXY_DIAL_OFFLINE,
	};

	return metrics[result];
}

enum proxy_metric proxy_metric_of_code(Peerway__Ipc__DialCode code)
{
	if (code < PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND ||
		code > PEERWAY__IPC__DIAL_CODE__DIAL_INTERNAL)
		return PROXY_DIAL_INTERNAL;
	return PROXY_DIAL_NOT_FOUND +
	       (code - PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND);
}
