/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peers as Prometheus reads them: see peers.h. Owns nothing.
 *
 * A newcomer's trap: a peer's state is a label of the one series that is true
 * now, as the reference does it with connections. A state that is over has no
 * series any more, so an alert on it ends by itself.
 */
#include "peerd/peers_private.h"

/* Prometheus refuses a whole page for one value that is not UTF-8. */
static bool is_utf8(const char *text)
{
	json_t *string = json_string(text);

	json_decref(string);
	return string != NULL;
}

/* Label values of Prometheus text: a record's text may hold anything. */
static void put_label(FILE *out, const char *name, const char *value)
{
	fprintf(out, "%s=\"", name);
	if (!is_utf8(value))
		value = "?";
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", out);
		else if (*value == '"' || *value == '\\')
			fprintf(out, "\\%c", *value);
		else
			fputc(*value, out);
	}
	fputc('"', out);
}

/* A line up to its value. more: labels of its own, or "". */
static void put_series(FILE *out, const struct peer *peer, const char *metric,
	const char *more)
{
	fprintf(out, "%s{", metric);
	put_label(out, "local_id", peer->peers->peerd->id);
	fputc(',', out);
	put_label(out, "peer_id", peer->id);
	fputc(',', out);
	put_label(out, "peer_host", peer->hostname);
	fputc(',', out);
	put_label(out, "peer_group", peer->group);
	fprintf(out, "%s} ", more);
}

static unsigned channels_in(const struct peer *peer, enum channel_state state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < peer->line_count; i++)
		count += channel_state(line_channel(peer->lines[i])) == state;
	return count;
}

static void put_connections(
	FILE *out, const struct peer *peer, const char *name)
{
	static const char *const states[] = {
		[CHANNEL_CONNECTING] = "CONNECTING",
		[CHANNEL_READY] = "READY",
		[CHANNEL_UNREACHABLE] = "TRANSIENT_FAILURE",
	};

	for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		unsigned count = channels_in(peer, (enum channel_state)i);

		if (!count)
			continue;
		fprintf(out, "%s{", name);
		put_label(out, "local_id", peer->peers->peerd->id);
		fputc(',', out);
		put_label(out, "remote_id", peer->id);
		fprintf(out, ",state=\"%s\"} %u\n", states[i], count);
	}
}

static void put_state(FILE *out, const struct peer *peer, const char *name)
{
	char more[40];

	snprintf(more, sizeof(more), ",state=\"%s\"", peer_state_name(peer));
	put_series(out, peer, name, more);
	fputs("1\n", out);
}

static void put_pings(FILE *out, const struct peer *peer, const char *name)
{
	put_series(out, peer, name, "");
	fprintf(out, "%llu\n", (unsigned long long)peer_health(peer).pings);
}

static void put_failed_pings(
	FILE *out, const struct peer *peer, const char *name)
{
	put_series(out, peer, name, "");
	fprintf(out, "%llu\n", (unsigned long long)peer_health(peer).failed);
}

/* Before the first answer there is none. */
static void put_seconds(
	FILE *out, const struct peer *peer, const char *name, int64_t us)
{
	if (!us)
		return;
	put_series(out, peer, name, "");
	fprintf(out, "%.6f\n", (double)us / 1e6);
}

static void put_latency(FILE *out, const struct peer *peer, const char *name)
{
	put_seconds(out, peer, name, peer_health(peer).latency_us);
}

static void put_last_latency(
	FILE *out, const struct peer *peer, const char *name)
{
	put_seconds(out, peer, name, peer_health(peer).last_us);
}

static void put_streams(FILE *out, const struct peer *peer, const char *name)
{
	put_series(out, peer, name, "");
	fprintf(out, "%u\n", peer->tally->streams);
}

static void put_bytes(FILE *out, const struct peer *peer, const char *name)
{
	const struct stream_totals *totals = &peer->tally->totals;

	put_series(out, peer, name, ",direction=\"sent\"");
	fprintf(out, "%llu\n", (unsigned long long)atomic_load(&totals->sent));
	put_series(out, peer, name, ",direction=\"received\"");
	fprintf(out, "%llu\n",
		(unsigned long long)atomic_load(&totals->received));
}

static const struct family {
	const char *name;
	const char *type;
	const char *help;
	void (*put)(FILE *out, const struct peer *peer, const char *name);
} families[] = {
	{"proxy_peer_client_connections", "gauge",
		"connections to peers by gRPC's state", put_connections},
	{"teleport_proxy_peer_client_pings_total", "counter",
		"pings to peers, the failed ones too", put_pings},
	{"teleport_proxy_peer_client_failed_pings_total", "counter",
		"pings that a peer did not answer", put_failed_pings},
	{"peerway_peerd_peer_state", "gauge",
		"1, and the peer's state as a label", put_state},
	{"peerway_peerd_peer_latency_seconds", "gauge",
		"smoothed round trip of a ping", put_latency},
	{"peerway_peerd_peer_last_latency_seconds", "gauge",
		"round trip of the last ping that was answered",
		put_last_latency},
	{"peerway_peerd_peer_streams", "gauge",
		"streams that we have dialed to the peer", put_streams},
	{"peerway_peerd_peer_bytes_total", "counter",
		"payload of streams that we have dialed to the peer",
		put_bytes},
};

void peers_metrics(const struct peers *peers, FILE *out)
{
	const struct peer *peer;

	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		const struct family *family = &families[i];

		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name,
			family->help, family->name, family->type);
		TAILQ_FOREACH (peer, &peers->list, entry)
			family->put(out, peer, family->name);
	}
	fprintf(out,
		"# HELP peerway_peerd_shared_addresses peer addresses that "
		"more than one proxy advertises\n"
		"# TYPE peerway_peerd_shared_addresses gauge\n"
		"peerway_peerd_shared_addresses %zu\n",
		json_array_size(peers->duplicates));
}
