/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of other proxies: see peers.h. Owns an entry for each record and
 * its channel. Reads the cache; asked by dial.c and control.c.
 *
 * A newcomer's trap: whether a peer takes part depends on its own record, not
 * on our strategy. While a fleet changes over, some proxies listen for peers
 * and some do not yet.
 */
#include "peerd/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "peerd/clock_text.h"
#include "peerd/meters.h"
#include "peerd/probe.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

struct peer {
	TAILQ_ENTRY(peer) entry;
	struct peers *peers;
	char id[37];
	char hostname[256];
	char addr[SOCK_ADDR_MAX];
	bool draining;
	bool seen; /* in the records that are being read */
	struct channel *channel;
};

struct peers {
	struct peerd *peerd;
	TAILQ_HEAD(, peer) list;
	bool overflow_logged;
};

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

static const char *state_name(const struct peer *peer)
{
	switch (channel_state(peer->channel)) {
	case CHANNEL_READY:
		return "ready";
	case CHANNEL_UNREACHABLE:
		return "unreachable";
	case CHANNEL_CONNECTING:
		break;
	}
	return "connecting";
}

static void count_states(struct peers *peers)
{
	int64_t counts[3] = {0};
	struct metrics *metrics = &peers->peerd->metrics;
	struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry)
		counts[channel_state(peer->channel)]++;
	metric_set(metrics, METER_PEERS_CONNECTING, counts[CHANNEL_CONNECTING]);
	metric_set(metrics, METER_PEERS_READY, counts[CHANNEL_READY]);
	metric_set(
		metrics, METER_PEERS_UNREACHABLE, counts[CHANNEL_UNREACHABLE]);
}

static void on_state(void *arg)
{
	struct peer *peer = arg;

	if (channel_state(peer->channel) == CHANNEL_UNREACHABLE)
		probe_start(peer->channel); /* it logs why */
	else
		log_info("peer %s: peer=%s addr=%s", state_name(peer), peer->id,
			peer->addr);
	count_states(peer->peers);
}

static void open_channel(struct peer *peer)
{
	peer->channel = channel_new(
		peer->peers->peerd, peer->id, peer->addr, on_state, peer);
}

static void drop(struct peer *peer)
{
	TAILQ_REMOVE(&peer->peers->list, peer, entry);
	channel_retire(peer->channel);
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
	snprintf(peer->id, sizeof(peer->id), "%s", record->id);
	snprintf(peer->addr, sizeof(peer->addr), "%s", record->peer_addr);
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
		channel_retire(peer->channel);
		open_channel(peer);
	}
	peer->seen = true;
	peer->draining =
		record->state == PEERWAY__RECORD__PROXY_STATE__DRAINING;
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
				peer->id, channel_streams(peer->channel));
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
		channel_retire(peer->channel);
		open_channel(peer);
	}
	peers_refresh(peers);
}

struct channel *peers_channel(const struct peers *peers, const char *proxy_id)
{
	struct peer *peer = find(peers, proxy_id);

	return peer ? peer->channel : NULL;
}

enum candidate_health peers_health(
	const struct peers *peers, const char *proxy_id)
{
	struct peer *peer = find(peers, proxy_id);

	if (!peer || channel_state(peer->channel) == CHANNEL_UNREACHABLE)
		return CANDIDATE_UNREACHABLE;
	if (peer->draining)
		return CANDIDATE_DRAINING;
	return channel_state(peer->channel) == CHANNEL_READY
		       ? CANDIDATE_READY
		       : CANDIDATE_UNKNOWN;
}

static json_t *peer_json(const struct peer *peer)
{
	struct stream_totals *totals = channel_totals(peer->channel);
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
			 "s:b}",
		"id", peer->id, "hostname", peer->hostname, "addr", peer->addr,
		"state", state_name(peer), "streams",
		(int)channel_streams(peer->channel), "bytes_sent",
		(json_int_t)atomic_load(&totals->sent), "bytes_received",
		(json_int_t)atomic_load(&totals->received), "last_error", error,
		"last_error_at", error_text, "since", since_text, "draining",
		peer->draining);
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
