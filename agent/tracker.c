/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases, claims and known proxies, in plain arrays: an agent knows few.
 *
 * What one gets wrong: a claim on a proxy that is not desired (of an older
 * generation, draining, or expired) stays, but counts for nothing; that is how
 * an agent gets its tunnels to the new proxies before it loses the old ones.
 */
#include "agent/tracker.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

#define TUNNEL_PORT 3024
#define PUBLIC_PORT 3080

struct claim {
	char id[37];
	bool known; /* was tracked at some time since the claim */
	int64_t since;
};

struct tracker {
	struct tracker_proxy *proxies;
	size_t proxy_count;
	struct claim *claims;
	size_t claim_count;
	size_t leases;
	uint32_t count;
};

struct tracker *tracker_new(void)
{
	return xcalloc(1, sizeof(struct tracker));
}

static void proxy_clear(struct tracker_proxy *proxy)
{
	for (unsigned i = 0; i < proxy->addr_count; i++)
		free(proxy->addrs[i]);
	free(proxy->addrs);
	free(proxy->group);
}

void tracker_free(struct tracker *tracker)
{
	if (!tracker)
		return;
	for (size_t i = 0; i < tracker->proxy_count; i++)
		proxy_clear(&tracker->proxies[i]);
	free(tracker->proxies);
	free(tracker->claims);
	free(tracker);
}

void tracker_set_count(struct tracker *tracker, uint32_t count)
{
	tracker->count = count;
}

static struct tracker_proxy *find(const struct tracker *tracker, const char *id)
{
	for (size_t i = 0; i < tracker->proxy_count; i++)
		if (strcmp(tracker->proxies[i].id, id) == 0)
			return &tracker->proxies[i];
	return NULL;
}

static struct claim *find_claim(const struct tracker *tracker, const char *id)
{
	for (size_t i = 0; i < tracker->claim_count; i++)
		if (strcmp(tracker->claims[i].id, id) == 0)
			return &tracker->claims[i];
	return NULL;
}

static bool is_newest(
	const struct tracker *tracker, const struct tracker_proxy *proxy)
{
	for (size_t i = 0; i < tracker->proxy_count; i++) {
		const struct tracker_proxy *other = &tracker->proxies[i];

		if (other->generation > proxy->generation &&
			strcmp(other->group, proxy->group) == 0)
			return false;
	}
	return true;
}

static void choose_desired(struct tracker *tracker)
{
	for (size_t i = 0; i < tracker->proxy_count; i++) {
		struct tracker_proxy *proxy = &tracker->proxies[i];

		proxy->desired = !proxy->draining && is_newest(tracker, proxy);
	}
}

static void set_addrs(
	struct tracker_proxy *proxy, const struct discovery_proxy *from)
{
	bool own = from->tunnel_addr_count > 0;
	const char(*addrs)[300] = own ? from->tunnel_addr : from->public_addr;

	proxy->default_port = own ? TUNNEL_PORT : PUBLIC_PORT;
	proxy->addr_count =
		own ? from->tunnel_addr_count : from->public_addr_count;
	proxy->addrs = xcalloc(proxy->addr_count + 1, sizeof(char *));
	for (unsigned i = 0; i < proxy->addr_count; i++)
		proxy->addrs[i] = xstrdup(addrs[i]);
}

static void mention_one(struct tracker *tracker,
	const struct discovery_proxy *from, int64_t now)
{
	struct tracker_proxy *proxy = find(tracker, from->id);
	struct claim *claim = find_claim(tracker, from->id);

	if (proxy) {
		proxy_clear(proxy);
	} else {
		if (tracker->proxy_count == TRACKER_PROXIES_MAX)
			return;
		tracker->proxies = xrealloc(tracker->proxies,
			(tracker->proxy_count + 1) * sizeof(*proxy));
		proxy = &tracker->proxies[tracker->proxy_count++];
	}
	*proxy = (struct tracker_proxy){
		.draining = from->draining,
		.strategy = from->strategy,
		.agent_connection_count = from->agent_connection_count,
		.group = xstrdup(from->group),
		.generation = from->generation,
		.expires_at = now + TRACKER_EXPIRY_MS,
	};
	strcpy(proxy->id, from->id);
	set_addrs(proxy, from);
	if (claim)
		claim->known = true;
}

void tracker_mention(
	struct tracker *tracker, const struct discovery *discovery, int64_t now)
{
	for (size_t i = 0; i < discovery->proxy_count; i++)
		mention_one(tracker, &discovery->proxies[i], now);
	choose_desired(tracker);
}

int64_t tracker_expire(struct tracker *tracker, int64_t now)
{
	int64_t next = INT64_MAX;
	size_t kept = 0;

	for (size_t i = 0; i < tracker->proxy_count; i++) {
		struct tracker_proxy *proxy = &tracker->proxies[i];

		if (proxy->expires_at <= now) {
			proxy_clear(proxy);
			continue;
		}
		if (proxy->expires_at < next)
			next = proxy->expires_at;
		tracker->proxies[kept++] = *proxy;
	}
	if (kept != tracker->proxy_count) {
		tracker->proxy_count = kept;
		choose_desired(tracker);
	}
	return next;
}

static size_t target(const struct tracker *tracker)
{
	size_t desired = 0;

	for (size_t i = 0; i < tracker->proxy_count; i++)
		desired += tracker->proxies[i].desired;
	if (tracker->count && tracker->count < desired)
		return tracker->count;
	return desired;
}

static bool is_young(const struct claim *claim, int64_t now)
{
	return !claim->known && now - claim->since < TRACKER_YOUNG_MS;
}

/* Claims that count. */
static size_t have(const struct tracker *tracker, int64_t now)
{
	size_t count = 0;

	for (size_t i = 0; i < tracker->claim_count; i++) {
		const struct claim *claim = &tracker->claims[i];

		count += is_young(claim, now) ||
			 tracker_is_desired(tracker, claim->id);
	}
	return count;
}

bool tracker_lease(struct tracker *tracker, int64_t now)
{
	size_t had = have(tracker, now);
	bool begin = tracker->leases == 0 &&
		     (!tracker->claim_count || (!tracker->proxy_count && !had));

	if (!begin && target(tracker) <= had + tracker->leases)
		return false;
	tracker->leases++;
	return true;
}

bool tracker_lease_extra(struct tracker *tracker)
{
	if (tracker->claim_count)
		return false;
	tracker->leases++;
	return true;
}

size_t tracker_excess(const struct tracker *tracker, int64_t now)
{
	size_t wanted = target(tracker), had = have(tracker, now);

	if (!tracker->claim_count)
		return 0;
	wanted = wanted > had ? wanted - had : 0;
	return tracker->leases > wanted ? tracker->leases - wanted : 0;
}

void tracker_return(struct tracker *tracker)
{
	assert(tracker->leases > 0);
	tracker->leases--;
}

bool tracker_claim(struct tracker *tracker, const char *id, int64_t now)
{
	struct claim *claim;

	if (find_claim(tracker, id))
		return false;
	tracker_return(tracker);
	tracker->claims = xrealloc(
		tracker->claims, (tracker->claim_count + 1) * sizeof(*claim));
	claim = &tracker->claims[tracker->claim_count++];
	*claim = (struct claim){
		.known = find(tracker, id) != NULL, .since = now};
	memcpy(claim->id, id, strnlen(id, sizeof(claim->id) - 1));
	return true;
}

void tracker_release(struct tracker *tracker, const char *id)
{
	struct claim *claim = find_claim(tracker, id);

	if (claim)
		*claim = tracker->claims[--tracker->claim_count];
}

bool tracker_is_claimed(const struct tracker *tracker, const char *id)
{
	return find_claim(tracker, id) != NULL;
}

bool tracker_is_desired(const struct tracker *tracker, const char *id)
{
	const struct tracker_proxy *proxy = find(tracker, id);

	return proxy && proxy->desired;
}

size_t tracker_claimed(const struct tracker *tracker)
{
	return tracker->claim_count;
}

const struct tracker_proxy *tracker_proxies(
	const struct tracker *tracker, size_t *count_out)
{
	*count_out = tracker->proxy_count;
	return tracker->proxies;
}
