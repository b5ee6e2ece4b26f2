/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Candidates and their backoff. One entry per name of proxy_server, for good;
 * one per other address as long as there is something to remember of it: that
 * it is being dialed, or failed.
 *
 * What one gets wrong: a connection is no success. A proxy that accepts tunnels
 * and ends them at once would be dialed without pause; only a tunnel that has
 * stood for a while resets the backoff.
 */
#include "agent/candidates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/backoff.h"
#include "shared/sock.h"

#define SERVER_PORT 3080
/* An address that is no longer known is forgotten after so long. */
#define FORGET_MS TRACKER_EXPIRY_MS

struct entry {
	char *key; /* the address */
	bool is_server;
	bool busy;
	bool offered; /* in this choice: as a proxy's */
	bool listed;  /* the tracker knew it when last looked */
	struct backoff backoff;
	int64_t not_before;
};

struct candidates {
	struct entry *entries; /* servers first, in their order */
	size_t count;
	char *region;
	char *zone;
	uint32_t max_ms;
	unsigned failed_in_a_row; /* at any address */
	struct backoff pause;
	int64_t pause_until;
	struct fleet *seen; /* the list that the entries agree with */
};

static struct entry *find(const struct candidates *candidates, const char *key)
{
	for (size_t i = 0; i < candidates->count; i++)
		if (strcmp(candidates->entries[i].key, key) == 0)
			return &candidates->entries[i];
	return NULL;
}

static struct entry *add(
	struct candidates *candidates, const char *key, bool is_server)
{
	struct entry *entry;

	candidates->entries = xrealloc(
		candidates->entries, (candidates->count + 1) * sizeof(*entry));
	entry = &candidates->entries[candidates->count++];
	*entry = (struct entry){
		.key = xstrdup(key),
		.is_server = is_server,
		.listed = true,
		.backoff = {CANDIDATES_STEP_MS, candidates->max_ms, 0},
	};
	return entry;
}

struct candidates *candidates_new(const char *const *servers,
	size_t server_count, const struct place *own, uint32_t max_ms)
{
	struct candidates *candidates = xcalloc(1, sizeof(*candidates));

	candidates->region = xstrdup(own->region);
	candidates->zone = xstrdup(own->zone);
	candidates->max_ms = max_ms ? max_ms : CANDIDATES_MAX_MS;
	candidates->pause = (struct backoff){
		CANDIDATES_PAUSE_STEP_MS, candidates->max_ms, 0};
	for (size_t i = 0; i < server_count; i++) {
		char addr[SOCK_ADDR_MAX];

		fleet_address(servers[i], SERVER_PORT, addr, sizeof(addr));
		if (!find(candidates, addr))
			add(candidates, addr, true);
	}
	return candidates;
}

void candidates_set_max(struct candidates *candidates, uint32_t max_ms)
{
	candidates->max_ms = max_ms ? max_ms : CANDIDATES_MAX_MS;
	candidates->pause.max_ms = candidates->max_ms;
	for (size_t i = 0; i < candidates->count; i++)
		candidates->entries[i].backoff.max_ms = candidates->max_ms;
}

void candidates_free(struct candidates *candidates)
{
	if (!candidates)
		return;
	for (size_t i = 0; i < candidates->count; i++)
		free(candidates->entries[i].key);
	fleet_unref(candidates->seen);
	free(candidates->entries);
	free(candidates->region);
	free(candidates->zone);
	free(candidates);
}

/* Follows another list: an address that has come back waits no longer, and one
 * that has been away for long is forgotten. */
static void follow(
	struct candidates *candidates, struct fleet *fleet, int64_t now)
{
	size_t kept = 0;

	if (candidates->seen == fleet)
		return;
	fleet_unref(candidates->seen);
	candidates->seen = fleet ? fleet_ref(fleet) : NULL;
	candidates->pause_until = 0;
	for (size_t i = 0; i < candidates->count; i++) {
		struct entry *entry = &candidates->entries[i];
		bool listed = fleet_at(fleet, entry->key) != NULL;

		if (listed && !entry->listed) {
			backoff_succeeded(&entry->backoff);
			entry->not_before = 0;
		}
		entry->listed = listed;
		if (!entry->is_server && !entry->busy && !listed &&
			now - entry->not_before > FORGET_MS)
			free(entry->key);
		else
			candidates->entries[kept++] = *entry;
	}
	candidates->count = kept;
}

/* ---- the choice ---- */

/* What is to be compared of one candidate. */
struct option {
	const char *key;
	const struct fleet_proxy *proxy; /* NULL: a name of proxy_server */
	struct entry *entry;		 /* NULL: nothing remembered */
	bool last_resort;
	uint32_t failures;
	bool wanted_first;
	uint32_t distance;
};

struct choice {
	struct candidates *candidates;
	const struct tracker *tracker;
	bool servers_first;
	int64_t now;
	uint32_t random;
	struct option best; /* key NULL: none yet */
	uint32_t equals;    /* how many were as good as the best */
	int64_t due;
};

/* Below 0: a is to be dialed rather than b. */
static int compare(
	const struct option *a, const struct option *b, bool servers_first)
{
	if (a->last_resort != b->last_resort)
		return b->last_resort ? -1 : 1;
	if (a->failures != b->failures)
		return a->failures < b->failures ? -1 : 1;
	if (!a->proxy != !b->proxy)
		return !a->proxy == servers_first ? -1 : 1;
	if (a->wanted_first != b->wanted_first)
		return a->wanted_first ? -1 : 1;
	return a->distance < b->distance ? -1 : a->distance > b->distance;
}

/* Each of n equals is kept with a chance of 1/n. */
static bool wins_draw(struct choice *choice)
{
	choice->random = choice->random * 1664525 + 1013904223;
	choice->equals++;
	return (choice->random >> 8) % choice->equals == 0;
}

static void consider(struct choice *choice, struct option *option)
{
	struct entry *entry = option->entry;
	int order;

	if (entry && entry->busy)
		return;
	if (entry && entry->not_before > choice->now) {
		if (entry->not_before < choice->due)
			choice->due = entry->not_before;
		return;
	}
	option->failures = entry ? entry->backoff.failures : 0;
	order = choice->best.key
			? compare(option, &choice->best, choice->servers_first)
			: -1;
	if (order < 0)
		choice->equals = 1;
	if (order < 0 || (order == 0 && wins_draw(choice)))
		choice->best = *option;
}

/* Whether a tunnel to that proxy would count. */
static bool is_wanted(
	const struct tracker *tracker, const struct fleet_proxy *proxy)
{
	return !tracker_is_claimed(tracker, proxy->id) &&
	       (proxy->desired || !tracker_claimed(tracker));
}

/* Tunnels there, and those being opened. */
static size_t tunnels_at(
	const struct choice *choice, const struct fleet_proxy *proxy)
{
	const struct candidates *candidates = choice->candidates;
	struct fleet *fleet = tracker_fleet(choice->tracker);
	size_t count =
		tracker_claimed_at(choice->tracker, proxy->region, proxy->zone);

	for (size_t i = 0; i < candidates->count; i++) {
		const struct entry *entry = &candidates->entries[i];
		const struct fleet_proxy *other =
			entry->busy ? fleet_at(fleet, entry->key) : NULL;

		count += other && strcmp(other->region, proxy->region) == 0 &&
			 strcmp(other->zone, proxy->zone) == 0;
	}
	return count;
}

static void consider_proxy(struct choice *choice,
	const struct fleet_proxy *proxy, struct entry *entry)
{
	const struct candidates *candidates = choice->candidates;
	const struct place own = {candidates->region, candidates->zone};
	const struct place place = {proxy->region, proxy->zone};
	struct option option = {.key = proxy->addrs[0],
		.proxy = proxy,
		.entry = entry,
		.last_resort = !proxy->desired};

	option.wanted_first =
		strcmp(proxy->id, tracker_wanted_first(choice->tracker)) == 0;
	option.distance =
		strategy_distance(&own, &place, tunnels_at(choice, proxy));
	consider(choice, &option);
}

/* Of those that share an address the first that is wanted stands for all, also
 * for the name in proxy_server that is the same. */
static void consider_proxies(struct choice *choice, const struct fleet *fleet)
{
	const char *last = "";

	for (size_t i = 0; i < fleet->addr_count; i++) {
		const struct fleet_proxy *proxy = fleet->by_addr[i];
		struct entry *entry;

		if (strcmp(proxy->addrs[0], last) == 0 ||
			!is_wanted(choice->tracker, proxy))
			continue;
		last = proxy->addrs[0];
		entry = find(choice->candidates, last);
		if (entry)
			entry->offered = true;
		consider_proxy(choice, proxy, entry);
	}
}

static void consider_servers(struct choice *choice)
{
	for (size_t i = 0; i < choice->candidates->count; i++) {
		struct entry *entry = &choice->candidates->entries[i];
		struct option option = {.key = entry->key, .entry = entry};

		if (entry->is_server && !entry->offered)
			consider(choice, &option);
		entry->offered = false;
	}
}

/* The entry of what was chosen. */
static struct entry *take(struct choice *choice, struct candidate *out)
{
	const struct fleet_proxy *proxy = choice->best.proxy;
	struct entry *entry = choice->best.entry;

	if (!entry)
		entry = add(choice->candidates, choice->best.key, false);
	snprintf(out->key, sizeof(out->key), "%s", entry->key);
	out->addrs = proxy ? (const char *const *)proxy->addrs
			   : (const char *const *)&entry->key;
	out->addr_count = proxy ? proxy->addr_count : 1;
	return entry;
}

bool candidates_pick(struct candidates *candidates,
	const struct tracker *tracker, bool servers_first, int64_t now,
	uint32_t random, struct candidate *out, int64_t *due_out)
{
	struct fleet *fleet = tracker_fleet(tracker);
	struct choice choice = {
		.candidates = candidates,
		.tracker = tracker,
		.servers_first = servers_first,
		.now = now,
		.random = random,
		.due = INT64_MAX,
	};

	follow(candidates, fleet, now);
	if (candidates->pause_until > now) {
		*due_out = candidates->pause_until;
		return false;
	}
	if (fleet)
		consider_proxies(&choice, fleet);
	consider_servers(&choice);
	if (!choice.best.key) {
		*due_out = choice.due;
		return false;
	}
	take(&choice, out)->busy = true;
	return true;
}

/* ---- what became of it ---- */

static void end_pause(struct candidates *candidates)
{
	candidates->failed_in_a_row = 0;
	backoff_succeeded(&candidates->pause);
	candidates->pause_until = 0;
}

static void note_in_a_row(
	struct candidates *candidates, int64_t now, uint32_t random)
{
	if (++candidates->failed_in_a_row > CANDIDATES_FREE)
		candidates->pause_until =
			now + backoff_failed(&candidates->pause, random);
}

uint32_t candidates_failed(struct candidates *candidates, const char *key,
	int64_t now, uint32_t random)
{
	struct entry *entry = find(candidates, key);

	if (!*key)
		return 0;
	if (!entry)
		entry = add(candidates, key, false);
	entry->not_before = now + backoff_failed(&entry->backoff, random);
	note_in_a_row(candidates, now, random);
	return entry->backoff.failures;
}

void candidates_hold(struct candidates *candidates, const char *key,
	int64_t until, int64_t now, uint32_t random)
{
	struct entry *entry = find(candidates, key);

	if (entry && entry->not_before < until)
		entry->not_before = until;
	note_in_a_row(candidates, now, random);
}

int64_t candidates_due(const struct candidates *candidates, const char *key)
{
	const struct entry *entry = find(candidates, key);

	return entry ? entry->not_before : 0;
}

void candidates_idle(struct candidates *candidates, const char *key)
{
	struct entry *entry = find(candidates, key);

	if (entry)
		entry->busy = false;
}

void candidates_settled(struct candidates *candidates, const char *key)
{
	struct entry *entry = find(candidates, key);

	if (entry)
		backoff_succeeded(&entry->backoff);
	end_pause(candidates);
}

void candidates_reset(struct candidates *candidates)
{
	end_pause(candidates);
	for (size_t i = 0; i < candidates->count; i++) {
		backoff_succeeded(&candidates->entries[i].backoff);
		candidates->entries[i].not_before = 0;
	}
}

const char *candidates_key_of(const struct tracker *tracker, const char *id)
{
	const struct fleet_proxy *proxy =
		fleet_find(tracker_fleet(tracker), id);

	return proxy && proxy->addr_count ? proxy->addrs[0] : "";
}
