/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of other proxies: see peers.h. Owns an entry for each record and
 * its channel. Reads the cache; asked by dial.c and control.c; its metrics are
 * written by peers_text.c.
 *
 * A newcomer's trap: whether a peer takes part depends on its own record, not
 * on our strategy. While a fleet changes over, some proxies listen for peers
 * and some do not yet.
 */
#include "peerd/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerd/clock_text.h"
#include "peerd/meters.h"
#include "peerd/peers_private.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

struct peers *peers_new(struct peerd *peerd)
{
	struct peers *peers = xcalloc(1, sizeof(*peers));

	peers->peerd = peerd;
	TAILQ_INIT(&peers->list);
	return peers;
}

static struct peer *find(const struct peers *peers, const char *id)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		if (strcmp(peer->id, id) == 0)
			return peer;
	}
	return NULL;
}

static const struct {
	const char *name;
	enum candidate_health health;
	enum meter meter;
} states[PEER_STATES] = {
	[PEER_CONNECTING] = {"connecting", CANDIDATE_UNKNOWN,
		METER_PEERS_CONNECTING},
	[PEER_READY] = {"ready", CANDIDATE_READY, METER_PEERS_READY},
	[PEER_DEGRADED] = {"degraded", CANDIDATE_DEGRADED,
		METER_PEERS_DEGRADED},
	[PEER_DRAINING] = {"draining", CANDIDATE_DRAINING,
		METER_PEERS_DRAINING},
	[PEER_UNREACHABLE] = {"unreachable", CANDIDATE_UNREACHABLE,
		METER_PEERS_UNREACHABLE},
};

enum peer_state peer_state(const struct peer *peer)
{
	enum channel_state channel = channel_state(peer->channel);

	if (channel == CHANNEL_UNREACHABLE ||
		peer->health.verdict == HEALTH_SILENT)
		return PEER_UNREACHABLE;
	if (peer->draining)
		return PEER_DRAINING;
	if (channel == CHANNEL_CONNECTING)
		return PEER_CONNECTING;
	return peer->health.verdict == HEALTH_DEGRADED ? PEER_DEGRADED
						       : PEER_READY;
}

const char *peer_state_name(const struct peer *peer)
{
	return states[peer_state(peer)].name;
}

static void count_states(struct peers *peers)
{
	struct metrics *metrics = &peers->peerd->metrics;
	int64_t counts[PEER_STATES] = {0};
	struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry)
		counts[peer_state(peer)]++;
	for (int i = 0; i < PEER_STATES; i++)
		metric_set(metrics, states[i].meter, counts[i]);
}

/* ---- pings ---- */

static enum health_result result_of(grpc_status_code status)
{
	switch (status) {
	case GRPC_STATUS_OK:
	case GRPC_STATUS_UNIMPLEMENTED: /* a peer from before there were pings
					 */
		return HEALTH_ANSWERED;
	case GRPC_STATUS_UNAVAILABLE:
	case GRPC_STATUS_DEADLINE_EXCEEDED:
		return HEALTH_MISSED;
	default:
		return HEALTH_ERROR;
	}
}

static void log_verdict(const struct peer *peer, const char *text)
{
	if (peer->health.verdict == HEALTH_GOOD)
		log_info("peer answers: peer=%s addr=%s latency_us=%lld",
			peer->id, peer->addr,
			(long long)peer->health.latency_us);
	else if (peer->health.verdict == HEALTH_DEGRADED)
		log_warn("peer degraded: %s peer=%s addr=%s last_us=%lld", text,
			peer->id, peer->addr, (long long)peer->health.last_us);
	else
		log_warn("peer unreachable: %s peer=%s addr=%s", text, peer->id,
			peer->addr);
}

static void on_pong(void *arg, const struct ping_answer *answer)
{
	struct peer *peer = arg;
	enum health_result result = result_of(answer->status);
	const char *text = answer->text;

	peer->ping = NULL;
	if (result == HEALTH_ANSWERED)
		text = "slow answer to a ping";
	else if (answer->status == GRPC_STATUS_DEADLINE_EXCEEDED)
		text = "no answer to a ping within 5 s";
	if (result != HEALTH_ANSWERED)
		channel_note_error(peer->channel, text);
	if (health_note(&peer->health, result, answer->rtt_us))
		log_verdict(peer, text);
	count_states(peer->peers);
	timer_set(peer->ping_due,
		health_pause(&peer->health, (uint32_t)random()));
}

static void on_ping_due(void *arg)
{
	struct peer *peer = arg;

	if (!peer->ping)
		peer->ping = ping_start(peer->channel, on_pong, peer);
}

/* At once: of a new connection, or of one that has failed, why. */
static void ping_now(struct peer *peer)
{
	ping_cancel(peer->ping);
	peer->ping = NULL;
	timer_set(peer->ping_due, 0);
}

static void on_state(void *arg)
{
	struct peer *peer = arg;

	/* Only a connection that is there proves a silent peer alive: gRPC
	 * gives the old one up in the middle of the silence and tries again. */
	if (channel_state(peer->channel) == CHANNEL_READY)
		health_forget(&peer->health);
	if (peer_state(peer) != PEER_UNREACHABLE)
		log_info("peer %s: peer=%s addr=%s", peer_state_name(peer),
			peer->id, peer->addr);
	ping_now(peer);
	count_states(peer->peers);
}

static void open_channel(struct peer *peer)
{
	health_forget(&peer->health);
	peer->channel = channel_new(peer->peers->peerd, peer->id, peer->addr,
		peer->tally, on_state, peer);
}

static void close_channel(struct peer *peer)
{
	timer_clear(peer->ping_due);
	ping_cancel(peer->ping);
	peer->ping = NULL;
	channel_retire(peer->channel);
}

static void drop(struct peer *peer)
{
	TAILQ_REMOVE(&peer->peers->list, peer, entry);
	close_channel(peer);
	timer_free(peer->ping_due);
	tally_unref(peer->tally);
	loop_free_later(peer->peers->peerd->loop, free, peer);
}

void peers_free(struct peers *peers)
{
	while (!TAILQ_EMPTY(&peers->list))
		drop(TAILQ_FIRST(&peers->list));
	free(peers);
}

static bool takes_part(const Peerway__Record__ProxyRecord *record)
{
	return record->peer_addr[0] && record->strategy &&
	       record->strategy->type ==
		       PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING;
}

static struct peer *add(
	struct peers *peers, const Peerway__Record__ProxyRecord *record)
{
	struct peer *peer = xcalloc(1, sizeof(*peer));

	peer->peers = peers;
	peer->tally = tally_new();
	snprintf(peer->id, sizeof(peer->id), "%s", record->id);
	snprintf(peer->addr, sizeof(peer->addr), "%s", record->peer_addr);
	peer->ping_due = timer_new(peers->peerd->loop, on_ping_due, peer);
	TAILQ_INSERT_TAIL(&peers->list, peer, entry);
	log_info("peer added: peer=%s addr=%s", peer->id, peer->addr);
	open_channel(peer);
	return peer;
}

static void update(
	struct peers *peers, const Peerway__Record__ProxyRecord *record)
{
	struct peer *peer = find(peers, record->id);

	if (strcmp(record->id, peers->peerd->id) == 0 || !takes_part(record))
		return;
	if (!identity_uuid_is_valid(record->id)) {
		log_warn("peer ignored: its record's id is not a uuid");
		return;
	}
	if (!peer) {
		peer = add(peers, record);
	} else if (strcmp(peer->addr, record->peer_addr) != 0) {
		log_info("peer moved: peer=%s addr=%s was=%s", peer->id,
			record->peer_addr, peer->addr);
		snprintf(peer->addr, sizeof(peer->addr), "%s",
			record->peer_addr);
		close_channel(peer);
		open_channel(peer);
	}
	peer->seen = true;
	peer->draining =
		record->state == PEERWAY__RECORD__PROXY_STATE__DRAINING;
	peer->near =
		strcmp(record->region, peers->peerd->conf->proxy.region) == 0;
	snprintf(peer->group, sizeof(peer->group), "%s", record->group);
	snprintf(
		peer->hostname, sizeof(peer->hostname), "%s", record->hostname);
}

static void drop_unseen(struct peers *peers)
{
	struct peer *peer, *next;

	for (peer = TAILQ_FIRST(&peers->list); peer; peer = next) {
		next = TAILQ_NEXT(peer, entry);
		if (!peer->seen) {
			log_info("peer removed: its record has gone peer=%s "
				 "streams=%u",
				peer->id, peer->tally->streams);
			drop(peer);
		}
	}
}

void peers_refresh(struct peers *peers)
{
	struct peerd *peerd = peers->peerd;
	Peerway__Record__ProxyRecord **records;
	struct peer *peer;
	int count;

	if (!peerd->cache || !peerd->identity)
		return;
	records = xcalloc(PEERS_MAX, sizeof(*records));
	count = cache_proxies(peerd->cache, records, PEERS_MAX);
	if (count < 0)
		log_error("proxy records cannot be read: peers stay as they "
			  "are path=%s",
			peerd->cache_path);
	if (count == PEERS_MAX && !peers->overflow_logged) {
		log_error("too many proxies: only %d are connected to",
			PEERS_MAX);
		peers->overflow_logged = true;
	}
	TAILQ_FOREACH (peer, &peers->list, entry)
		peer->seen = count < 0;
	for (int i = 0; i < count; i++) {
		update(peers, records[i]);
		peerway__record__proxy_record__free_unpacked(records[i], NULL);
	}
	free(records);
	drop_unseen(peers);
	count_states(peers);
}

void peers_renew(struct peers *peers)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		close_channel(peer);
		open_channel(peer);
	}
	peers_refresh(peers);
}

struct channel *peers_channel(const struct peers *peers, const char *proxy_id)
{
	struct peer *peer = find(peers, proxy_id);

	return peer ? peer->channel : NULL;
}

struct candidate_rank peers_rank(
	const struct peers *peers, const char *proxy_id)
{
	struct peer *peer = find(peers, proxy_id);

	if (!peer)
		return (struct candidate_rank){.health = CANDIDATE_UNREACHABLE};
	return (struct candidate_rank){
		.health = states[peer_state(peer)].health,
		.far = !peer->near,
		.latency_us = peer->health.latency_us,
	};
}

static json_t *peer_json(const struct peer *peer)
{
	const struct stream_totals *totals = &peer->tally->totals;
	int64_t since = channel_since(peer->channel);
	int64_t age = loop_now(peer->peers->peerd->loop) - since;
	char error[256], since_text[CLOCK_TEXT_SIZE];
	char error_text[CLOCK_TEXT_SIZE] = "";
	int64_t error_at;

	channel_last_error(peer->channel, error, sizeof(error), &error_at);
	clock_text(clock_text_now() - age, since_text);
	if (error_at)
		clock_text(error_at, error_text);
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:s, s:s, "
			 "s:b, s:f, s:f, s:I, s:I}",
		"id", peer->id, "hostname", peer->hostname, "addr", peer->addr,
		"state", peer_state_name(peer), "streams",
		(int)peer->tally->streams, "bytes_sent",
		(json_int_t)atomic_load(&totals->sent), "bytes_received",
		(json_int_t)atomic_load(&totals->received), "last_error", error,
		"last_error_at", error_text, "since", since_text, "draining",
		peer->draining, "latency_ms",
		(double)peer->health.latency_us / 1000, "latency_last_ms",
		(double)peer->health.last_us / 1000, "pings",
		(json_int_t)peer->health.pings, "pings_failed",
		(json_int_t)peer->health.failed);
}

json_t *peers_json(const struct peers *peers)
{
	json_t *list = json_array();
	struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		json_t *one = peer_json(peer);

		/* NULL when a record's text is not UTF-8 */
		if (one)
			json_array_append_new(list, one);
	}
	return list;
}
