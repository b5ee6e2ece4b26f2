/* SPDX-License-Identifier: Apache-2.0 */
/* Names and help texts of the agent's series. */
#include "agent/series.h"

#include "agent/connect.h"
#include "shared/lag.h"

_Static_assert(SERIES_CONNECT_FAILURES_LAST - SERIES_CONNECT_FAILURES + 1 ==
		       CONNECT_FAILURES,
	"one series for each reason");

#define FAILURES "peerway_agent_connect_failures_total"
#define STREAMS "peerway_agent_streams_total"

const struct metric series_table[SERIES_COUNT] = {
	[SERIES_TUNNELS] = {"peerway_agent_tunnels", NULL,
		"Tunnels that stand.", true, NULL},
	[SERIES_TUNNELS_OPENED] = {"peerway_agent_tunnels_opened_total", NULL,
		"Tunnels opened.", false, NULL},
	[SERIES_TUNNELS_ENDED] = {"peerway_agent_tunnels_ended_total", NULL,
		"Tunnels ended, for whatever reason.", false, NULL},
	[SERIES_PROXIES] = {"peerway_agent_proxies_known", NULL,
		"Proxies of the newest list.", true, NULL},
	[SERIES_CONNECT_FAILURES + CONNECT_UNREACHABLE] = {FAILURES,
		"reason=\"unreachable\"", "Attempts that gave no tunnel.",
		false, NULL},
	[SERIES_CONNECT_FAILURES +
		CONNECT_TLS] = {FAILURES, "reason=\"tls\"", "", false, NULL},
	[SERIES_CONNECT_FAILURES + CONNECT_STRANGER] = {FAILURES,
		"reason=\"certificate\"", "", false, NULL},
	[SERIES_CONNECT_FAILURES + CONNECT_UNWANTED] = {FAILURES,
		"reason=\"claimed\"", "", false, NULL},
	[SERIES_CONNECT_FAILURES +
		CONNECT_BUSY] = {FAILURES, "reason=\"busy\"", "", false, NULL},
	[SERIES_CONNECT_FAILURES + CONNECT_HTTP_PROXY] = {FAILURES,
		"reason=\"http_proxy\"", "", false, NULL},
	[SERIES_STREAMS] = {"peerway_agent_streams", NULL, "Streams open now.",
		true, NULL},
	[SERIES_STREAMS_JOINED] = {STREAMS, "result=\"joined\"",
		"Streams by what became of the request.", false, NULL},
	[SERIES_STREAMS_UNKNOWN] = {STREAMS, "result=\"unknown_service\"", "",
		false, NULL},
	[SERIES_STREAMS_FAILED] = {STREAMS, "result=\"connect_failed\"", "",
		false, NULL},
	[SERIES_STREAMS_GONE] = {STREAMS, "result=\"gone\"", "", false, NULL},
	[SERIES_DISCOVERY_REFUSED] = {"peerway_agent_discovery_refused_total",
		NULL, "Lists of proxies that were malformed.", false, NULL},
	[SERIES_MOVES] = {"peerway_agent_moves_total", NULL,
		"Requests of proxies to have the tunnel elsewhere, heeded.",
		false, NULL},
	[SERIES_NOT_AFTER] = {"peerway_agent_certificate_not_after_seconds",
		NULL, "When the certificate ends, Unix time.", true, NULL},
	[SERIES_LAG] = LAG_METRIC,
};
