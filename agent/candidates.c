/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Candidates and their backoff. One entry per name of proxy_server, for good;
 * one per proxy, made when it is first offered and dropped when the tracker has
 * forgotten the proxy.
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

#define SERVER_PORT 3080

struct entry {
	char *key;
	bool is_server;
	bool busy;
	struct backoff backoff;
	int64_t not_before;
};

struct candidates {
	char **servers;
	size_t server_count;
	struct entry *entries; /* servers first, in their order */
	size_t count;
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
		.backoff = {CANDIDATES_STEP_MS, CANDIDATES_MAX_MS, 0},
	};
	return entry;
}

struct candidates *candidates_new(
	const char *const *servers, size_t server_count)
{
	struct candidates *candidates = xcalloc(1, sizeof(*candidates));

	candidates->servers = xcalloc(server_count + 1, sizeof(char *));
	candidates->server_count = server_count;
	for (size_t i = 0; i < server_count; i++) {
		char key[320];

		candidates->servers[i] = xstrdup(servers[i]);
		/* No uuid looks like this. */
		snprintf(key, sizeof(key), "server %zu", i);
		add(candidates, key, true);
	}
	return candidates;
}

void candidates_free(struct candidates *candidates)
{
	if (!candidates)
		return;
	for (size_t i = 0; i < candidates->server_count; i++)
		free(candidates->servers[i]);
	for (size_t i = 0; i < candidates->count; i++)
		free(candidates->entries[i].key);
	free(candidates->servers);
	free(candidates->entries);
	free(candidates);
}

static const struct tracker_proxy *find_proxy(
	const struct tracker *tracker, const char *id)
{
	size_t count;
	const struct tracker_proxy *proxies = tracker_proxies(tracker, &count);

	for (size_t i = 0; i < count; i++)
		if (strcmp(proxies[i].id, id) == 0)
			return &proxies[i];
	return NULL;
}

/* Makes the entries agree with what the tracker knows. */
static void follow(struct candidates *candidates, const struct tracker *tracker)
{
	size_t count, kept = 0;
	const struct tracker_proxy *proxies = tracker_proxies(tracker, &count);

	for (size_t i = 0; i < candidates->count; i++) {
		struct entry *entry = &candidates->entries[i];

		if (!entry->is_server && !entry->busy &&
			!find_proxy(tracker, entry->key))
			free(entry->key);
		else
			candidates->entries[kept++] = *entry;
	}
	candidates->count = kept;
	for (size_t i = 0; i < count; i++)
		if (proxies[i].addr_count && !find(candidates, proxies[i].id))
			add(candidates, proxies[i].id, false);
}

/* Whether a tunnel to what stands behind the entry would count. */
static bool is_wanted(const struct entry *entry, const struct tracker *tracker)
{
	const struct tracker_proxy *proxy;

	if (entry->is_server)
		return true;
	proxy = find_proxy(tracker, entry->key);
	return proxy && proxy->addr_count &&
	       !tracker_is_claimed(tracker, entry->key) &&
	       (proxy->desired || !tracker_claimed(tracker));
}

/* Whether a is to be dialed rather than b. */
static bool precedes(
	const struct entry *a, const struct entry *b, bool servers_first)
{
	if (a->backoff.failures != b->backoff.failures)
		return a->backoff.failures < b->backoff.failures;
	return a->is_server != b->is_server && a->is_server == servers_first;
}

static void fill(const struct candidates *candidates,
	const struct tracker *tracker, const struct entry *entry,
	struct candidate *out)
{
	const struct tracker_proxy *proxy;

	snprintf(out->key, sizeof(out->key), "%s", entry->key);
	if (entry->is_server) {
		out->addrs = (const char *const *)candidates->servers +
			     (entry - candidates->entries);
		out->addr_count = 1;
		out->default_port = SERVER_PORT;
		return;
	}
	proxy = find_proxy(tracker, entry->key);
	out->addrs = (const char *const *)proxy->addrs;
	out->addr_count = proxy->addr_count;
	out->default_port = proxy->default_port;
}

bool candidates_pick(struct candidates *candidates,
	const struct tracker *tracker, bool servers_first, int64_t now,
	uint32_t random, struct candidate *out, int64_t *due_out)
{
	struct entry *best = NULL;
	int64_t due = INT64_MAX;
	size_t start;

	follow(candidates, tracker);
	start = candidates->count ? random % candidates->count : 0;
	for (size_t i = 0; i < candidates->count; i++) {
		struct entry *entry =
			&candidates->entries[(start + i) % candidates->count];

		if (entry->busy || !is_wanted(entry, tracker))
			continue;
		if (entry->not_before > now) {
			if (entry->not_before < due)
				due = entry->not_before;
			continue;
		}
		if (!best || precedes(entry, best, servers_first))
			best = entry;
	}
	if (!best) {
		*due_out = due;
		return false;
	}
	best->busy = true;
	fill(candidates, tracker, best, out);
	return true;
}

uint32_t candidates_failed(struct candidates *candidates, const char *key,
	int64_t now, uint32_t random)
{
	struct entry *entry = find(candidates, key);

	if (!entry)
		return 0;
	entry->not_before = now + backoff_failed(&entry->backoff, random);
	return entry->backoff.failures;
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
}
