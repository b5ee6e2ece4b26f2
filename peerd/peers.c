/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of other proxies: see peers.h. Owns an entry for each record and
 * its lines. Reads the cache; asked by dial.c and control.c; its metrics are
 * written by peers_text.c, names and duplicate addresses are peers_ask.c's.
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

static enum peer_state state_of_lines(const struct peer *peer)
{
	enum line_state best = LINE_UNREACHABLE;
	enum line_state worst = LINE_READY;

	for (unsigned i = 0; i < peer->line_count; i++) {
		enum line_state state = line_state(peer->lines[i]);

		best = state < best ? state : best;
		worst = state > worst ? state : worst;
	}
	if (best == LINE_UNREACHABLE)
		return PEER_UNREACHABLE;
	if (best == LINE_CONNECTING)
		return PEER_CONNECTING;
	return best == LINE_READY && worst != LINE_UNREACHABLE &&
			       worst != LINE_DEGRADED
		       ? PEER_READY
		       : PEER_DEGRADED;
}

enum peer_state peer_state(const struct peer *peer)
{
	enum peer_state state = state_of_lines(peer);

	return peer->draining && state != PEER_UNREACHABLE ? PEER_DRAINING
							   : state;
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

	TAILQ_FOREACH (peer, &peers->list, entry) {
		enum peer_state state = peer_state(peer);

		counts[state]++;
		if ((int)state != peer->state)
			peer->since = loop_now(peers->peerd->loop);
		peer->state = (int)state;
	}
	for (int i = 0; i < PEER_STATES; i++)
		metric_set(metrics, states[i].meter, counts[i]);
}

struct health peer_health(const struct peer *peer)
{
	struct health sum = peer->past;

	for (unsigned i = 0; i < peer->line_count; i++) {
		const struct health *one = line_health(peer->lines[i]);

		sum.pings += one->pings;
		sum.failed += one->failed;
		if (one->latency_us &&
			(!sum.latency_us || one->latency_us < sum.latency_us)) {
			sum.latency_us = one->latency_us;
			sum.last_us = one->last_us;
		}
	}
	return sum;
}

static unsigned lines_in(const struct peer *peer, enum line_state state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < peer->line_count; i++)
		count += line_state(peer->lines[i]) == state;
	return count;
}

static void on_change(void *arg)
{
	struct peer *peer = arg;

	count_states(peer->peers);
}

static void open_lines(struct peer *peer)
{
	struct peerd *peerd = peer->peers->peerd;

	peer->line_count = peerd->conf->proxy.peer_connections;
	for (unsigned i = 0; i < peer->line_count; i++)
		peer->lines[i] = line_new(peerd, peer->id, peer->addr,
			peer->tally, on_change, peer);
}

static void close_lines(struct peer *peer)
{
	struct health sum = peer_health(peer);

	peer->past = (struct health){.pings = sum.pings, .failed = sum.failed};
	for (unsigned i = 0; i < peer->line_count; i++)
		line_close(peer->lines[i]);
	peer->line_count = 0;
}

static void drop(struct peer *peer)
{
	TAILQ_REMOVE(&peer->peers->list, peer, entry);
	close_lines(peer);
	tally_unref(peer->tally);
	loop_free_later(peer->peers->peerd->loop, free, peer);
}

void peers_free(struct peers *peers)
{
	while (!TAILQ_EMPTY(&peers->list))
		drop(TAILQ_FIRST(&peers->list));
	json_decref(peers->duplicates);
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
	peer->state = PEER_CONNECTING;
	peer->since = loop_now(peers->peerd->loop);
	snprintf(peer->id, sizeof(peer->id), "%s", record->id);
	snprintf(peer->addr, sizeof(peer->addr), "%s", record->peer_addr);
	TAILQ_INSERT_TAIL(&peers->list, peer, entry);
	log_info("peer added: peer=%s addr=%s", peer->id, peer->addr);
	open_lines(peer);
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
		close_lines(peer);
		open_lines(peer);
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

static void look_for_duplicates(struct peers *peers,
	Peerway__Record__ProxyRecord *const *records, size_t count)
{
	struct advert *adverts = xcalloc(count + 1, sizeof(*adverts));
	size_t taking_part = 0;

	for (size_t i = 0; i < count; i++) {
		if (takes_part(records[i]))
			adverts[taking_part++] = (struct advert){
				.id = records[i]->id,
				.hostname = records[i]->hostname,
				.addr = records[i]->peer_addr,
			};
	}
	peers_note_duplicates(peers, adverts, taking_part);
	free(adverts);
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
	for (int i = 0; i < count; i++)
		update(peers, records[i]);
	if (count >= 0)
		look_for_duplicates(peers, records, (size_t)count);
	for (int i = 0; i < count; i++)
		peerway__record__proxy_record__free_unpacked(records[i], NULL);
	free(records);
	drop_unseen(peers);
	count_states(peers);
}

void peers_renew(struct peers *peers)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		close_lines(peer);
		open_lines(peer);
	}
	peers_refresh(peers);
}

struct channel *peers_channel(const struct peers *peers, const char *proxy_id)
{
	struct peer *peer = find(peers, proxy_id);
	struct channel *chosen = NULL;
	enum line_state best = LINE_UNREACHABLE;

	for (unsigned i = 0; peer && i < peer->line_count; i++) {
		enum line_state state = line_state(peer->lines[i]);
		struct channel *channel = line_channel(peer->lines[i]);

		if (chosen && (state > best ||
				      (state == best &&
					      channel_calls(channel) >=
						      channel_calls(chosen))))
			continue;
		chosen = channel;
		best = state;
	}
	return chosen;
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
		.latency_us = peer_health(peer).latency_us,
	};
}

/* The newest of all lines' errors. */
static void last_error(
	const struct peer *peer, char *text, size_t size, int64_t *at_out)
{
	char one[256];
	int64_t at;

	*at_out = 0;
	text[0] = '\0';
	for (unsigned i = 0; i < peer->line_count; i++) {
		channel_last_error(
			line_channel(peer->lines[i]), one, sizeof(one), &at);
		if (at > *at_out) {
			snprintf(text, size, "%s", one);
			*at_out = at;
		}
	}
}

static json_t *peer_json(const struct peer *peer)
{
	const struct stream_totals *totals = &peer->tally->totals;
	int64_t age = loop_now(peer->peers->peerd->loop) - peer->since;
	struct health health = peer_health(peer);
	char error[256], since_text[CLOCK_TEXT_SIZE];
	char error_text[CLOCK_TEXT_SIZE] = "";
	int64_t error_at;
	json_t *json;

	last_error(peer, error, sizeof(error), &error_at);
	clock_text(clock_text_now() - age, since_text);
	if (error_at)
		clock_text(error_at, error_text);
	json = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:s, s:s, "
			 "s:b, s:f, s:f, s:I, s:I, s:i, s:i, s:I}",
		"id", peer->id, "hostname", peer->hostname, "addr", peer->addr,
		"state", peer_state_name(peer), "streams",
		(int)peer->tally->streams, "bytes_sent",
		(json_int_t)atomic_load(&totals->sent), "bytes_received",
		(json_int_t)atomic_load(&totals->received), "last_error", error,
		"last_error_at", error_text, "since", since_text, "draining",
		peer->draining, "latency_ms", (double)health.latency_us / 1000,
		"latency_last_ms", (double)health.last_us / 1000, "pings",
		(json_int_t)health.pings, "pings_failed",
		(json_int_t)health.failed, "connections", (int)peer->line_count,
		"connections_ready", (int)lines_in(peer, LINE_READY), "since_s",
		(json_int_t)(age / 1000));
	if (json && error_at)
		json_object_set_new(json, "last_error_age_s",
			json_integer((clock_text_now() - error_at) / 1000));
	return json;
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
