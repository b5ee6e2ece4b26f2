/* SPDX-License-Identifier: Apache-2.0 */
/* The names of what peerd counts: see meters.h. */
#include "peerd/meters.h"

#include <stdio.h>

#include "peerd/descriptors.h"
#include "peerd/lifecycle.h"
#include "peerd/peerd.h"
#include "peerd/peers.h"
#include "peerd/routed_link.h"
#include "shared/lag.h"
#include "shared/sock.h"

const struct metric meters_table[METER_COUNT] = {
	[METER_STREAMS_CALLER] = {"peerway_peerd_streams", "side=\"caller\"",
		"streams between this proxy and its peers", true, NULL},
	[METER_STREAMS_CALLEE] = {"peerway_peerd_streams", "side=\"callee\"",
		NULL, true, NULL},
	[METER_BYTES_SENT] = {"peerway_peerd_bytes_total", "direction=\"sent\"",
		"payload moved between peers", false, NULL},
	[METER_BYTES_RECEIVED] = {"peerway_peerd_bytes_total",
		"direction=\"received\"", NULL, false, NULL},
	[METER_BYTES_HELD] = {"peerway_peerd_bytes_held", NULL,
		"received for a reader that does not read; gRPC's own buffers "
		"are bounded by peer_memory_max",
		true, NULL},
	[METER_STREAMS_BLOCKED] = {"peerway_peerd_streams_blocked", NULL,
		"streams whose reader takes less than comes", true, NULL},
	[METER_DIALS_SIBLING] = {"peerway_peerd_dials_total",
		"outcome=\"sibling\"", "workers' dials by their outcome", false,
		NULL},
	[METER_DIALS_PEER] = {"peerway_peerd_dials_total", "outcome=\"peer\"",
		NULL, false, NULL},
	[METER_DIALS_FAILED] = {"peerway_peerd_dials_total",
		"outcome=\"failed\"", NULL, false, NULL},
	[METER_DIALS_PENDING] = {"peerway_peerd_dials_pending", NULL,
		"dials under way", true, NULL},
	[METER_HEDGES] = {"peerway_peerd_hedges_total", NULL,
		"dials that asked a second proxy because the first was late",
		false, NULL},
	[METER_HEDGES_WON] = {"peerway_peerd_hedges_won_total", NULL,
		"of these, dials that the second one won", false, NULL},
	[METER_ERROR_NOT_FOUND] = {"proxy_peer_client_dial_error_total",
		"error_type=\"TUNNEL_NOT_FOUND\"",
		"what went wrong on the way to peers", false, NULL},
	[METER_ERROR_DIAL] = {"proxy_peer_client_dial_error_total",
		"error_type=\"TUNNEL_DIAL\"", NULL, false, NULL},
	[METER_ERROR_DIRECT_DIAL] = {"proxy_peer_client_dial_error_total",
		"error_type=\"TUNNEL_DIRECT_DIAL\"", NULL, false, NULL},
	[METER_ERROR_RPC] = {"proxy_peer_client_dial_error_total",
		"error_type=\"TUNNEL_RPC\"", NULL, false, NULL},
	[METER_ERROR_FETCH] = {"proxy_peer_client_dial_error_total",
		"error_type=\"FETCH_PROXIES\"", NULL, false, NULL},
	[METER_ERROR_UNREACHABLE] = {"proxy_peer_client_dial_error_total",
		"error_type=\"PROXIES_UNREACHABLE\"", NULL, false, NULL},
	[METER_SERVED_OK] = {"peerway_peerd_served_total", "outcome=\"ok\"",
		"peers' dials by their outcome", false, NULL},
	[METER_SERVED_REFUSED] = {"peerway_peerd_served_total",
		"outcome=\"refused\"", NULL, false, NULL},
	[METER_SERVED_DENIED] = {"peerway_peerd_served_total",
		"outcome=\"denied\"", NULL, false, NULL},
	[METER_PEERS_CONNECTING] = {"peerway_peerd_peers",
		"state=\"connecting\"", "other proxies by state", true, NULL},
	[METER_PEERS_READY] = {"peerway_peerd_peers", "state=\"ready\"", NULL,
		true, NULL},
	[METER_PEERS_DEGRADED] = {"peerway_peerd_peers", "state=\"degraded\"",
		NULL, true, NULL},
	[METER_PEERS_DRAINING] = {"peerway_peerd_peers", "state=\"draining\"",
		NULL, true, NULL},
	[METER_PEERS_UNREACHABLE] = {"peerway_peerd_peers",
		"state=\"unreachable\"", NULL, true, NULL},
	[METER_WORKERS] = {"peerway_peerd_workers", NULL,
		"linked workers of this host's proxy", true, NULL},
	[METER_TUNNELS] = {"peerway_peerd_tunnels", NULL,
		"agents' tunnels that end on this host", true, NULL},
	[METER_LAG] = LAG_METRIC,
};

static void put_gauge(
	FILE *out, const char *name, const char *help, long long value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %lld\n", name, help,
		name, name, value);
}

/* Where peers are listened for; 0: nowhere. */
static uint16_t listening_port(const struct peerd *peerd)
{
	const char *addr = lifecycle_listening(peerd->lifecycle);
	char host[SOCK_ADDR_MAX];
	uint16_t port;

	if (!addr || sock_split(addr, 3021, host, sizeof(host), &port) < 0)
		return 0;
	return port;
}

char *meters_more(void *arg)
{
	const struct peerd *peerd = arg;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	descriptors_text(listening_port(peerd), out);
	put_gauge(out, "peerway_peerd_routed_connected",
		"1 while routed tells us of records and certificates",
		routed_link_is_up(peerd->routed));
	/* No certificate is not one that has expired long ago. */
	if (peerd->identity_not_after)
		put_gauge(out, "peerway_peerd_certificate_not_after_seconds",
			"Unix time when this host's certificate expires",
			(long long)peerd->identity_not_after);
	peers_metrics(peerd->peers, out);
	rpc_meters_text(&peerd->rpc, out);
	fclose(out);
	return text;
}
