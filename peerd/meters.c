/* SPDX-License-Identifier: Apache-2.0 */
/* The names of what peerd counts: see meters.h. */
#include "peerd/meters.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "peerd/peerd.h"
#include "peerd/peers.h"

const struct metric meters_table[METER_COUNT] = {
	[METER_STREAMS_CALLER] = {"peerway_peerd_streams", "side=\"caller\"",
		"streams between this proxy and its peers", true},
	[METER_STREAMS_CALLEE] = {"peerway_peerd_streams", "side=\"callee\"",
		NULL, true},
	[METER_BYTES_SENT] = {"peerway_peerd_bytes_total", "direction=\"sent\"",
		"payload moved between peers", false},
	[METER_BYTES_RECEIVED] = {"peerway_peerd_bytes_total",
		"direction=\"received\"", NULL, false},
	[METER_BYTES_HELD] = {"peerway_peerd_bytes_held", NULL,
		"received for a reader that does not read; gRPC's own buffers "
		"are bounded by peer_memory_max",
		true},
	[METER_DIALS_SIBLING] = {"peerway_peerd_dials_total",
		"outcome=\"sibling\"", "workers' dials by their outcome",
		false},
	[METER_DIALS_PEER] = {"peerway_peerd_dials_total", "outcome=\"peer\"",
		NULL, false},
	[METER_DIALS_FAILED] = {"peerway_peerd_dials_total",
		"outcome=\"failed\"", NULL, false},
	[METER_DIALS_PENDING] = {"peerway_peerd_dials_pending", NULL,
		"dials under way", true},
	[METER_SERVED_OK] = {"peerway_peerd_served_total", "outcome=\"ok\"",
		"peers' dials by their outcome", false},
	[METER_SERVED_REFUSED] = {"peerway_peerd_served_total",
		"outcome=\"refused\"", NULL, false},
	[METER_SERVED_DENIED] = {"peerway_peerd_served_total",
		"outcome=\"denied\"", NULL, false},
	[METER_PEERS_CONNECTING] = {"peerway_peerd_peers",
		"state=\"connecting\"", "other proxies by state", true},
	[METER_PEERS_READY] = {"peerway_peerd_peers", "state=\"ready\"", NULL,
		true},
	[METER_PEERS_DEGRADED] = {"peerway_peerd_peers", "state=\"degraded\"",
		NULL, true},
	[METER_PEERS_DRAINING] = {"peerway_peerd_peers", "state=\"draining\"",
		NULL, true},
	[METER_PEERS_UNREACHABLE] = {"peerway_peerd_peers",
		"state=\"unreachable\"", NULL, true},
	[METER_WORKERS] = {"peerway_peerd_workers", NULL,
		"linked workers of this host's proxy", true},
	[METER_TUNNELS] = {"peerway_peerd_tunnels", NULL,
		"agents' tunnels that end on this host", true},
};

static void put_open_fds(FILE *out)
{
	DIR *dir = opendir("/proc/self/fd");
	long count = 0;

	if (!dir)
		return;
	while (readdir(dir))
		count++;
	closedir(dir);
	/* ".", ".." and the directory's own */
	fprintf(out,
		"# HELP process_open_fds open descriptors\n"
		"# TYPE process_open_fds gauge\n"
		"process_open_fds %ld\n",
		count - 3);
}

char *meters_more(void *arg)
{
	const struct peerd *peerd = arg;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	put_open_fds(out);
	if (peerd->peers)
		peers_metrics(peerd->peers, out);
	rpc_meters_text(&peerd->rpc, out);
	fclose(out);
	return text;
}
