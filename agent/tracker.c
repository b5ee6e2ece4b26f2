/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases and claims, in a plain array: an agent has few tunnels. The list of
 * proxies is shared with whoever else has it.
 *
 * What one gets wrong: a claim on a proxy that is not desired (of an older
 * generation, draining, left, or gone) stays, but counts for nothing; that is
 * how an agent gets its tunnels to the new proxies before it loses the old
 * ones.
 */
#include "agent/tracker.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

struct claim {
	char id[37];
	bool known; /* was in a list at some time since the claim */
	int64_t since;
	int64_t leave_until; /* 0: not asked to leave */
};

struct tracker {
	struct fleet *fleet; /* NULL: nothing known */
	int64_t fleet_until;
	struct claim *claims;
	size_t claim_count;
	size_t leases;
	uint32_t count;
	char wanted_first[37]; /* empty: no wish */
};

struct tracker *tracker_new(void)
{
	return xcalloc(1, sizeof(struct tracker));
}

void tracker_free(struct tracker *tracker)
{
	if (!tracker)
		return;
	fleet_unref(tracker->fleet);
	free(tracker->claims);
	free(tracker);
}

void tracker_set_count(struct tracker *tracker, uint32_t count)
{
	tracker->count = count;
}

static struct claim *find_claim(const struct tracker *tracker, const char *id)
{
	for (size_t i = 0; i < tracker->claim_count; i++)
		if (strcmp(tracker->claims[i].id, id) == 0)
			return &tracker->claims[i];
	return NULL;
}

/* ---- what is known ---- */

bool tracker_mention(struct tracker *tracker, struct fleet *fleet, int64_t now)
{
	if (!fleet_is_news(tracker->fleet, fleet))
		return false;
	fleet_ref(fleet);
	fleet_unref(tracker->fleet);
	tracker->fleet = fleet;
	tracker->fleet_until = now + TRACKER_EXPIRY_MS;
	for (size_t i = 0; i < tracker->claim_count; i++)
		if (fleet_find(fleet, tracker->claims[i].id))
			tracker->claims[i].known = true;
	return true;
}

/* The wish ends with the last claim that is being left. */
static int64_t expire_leaving(struct tracker *tracker, int64_t now)
{
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < tracker->claim_count; i++) {
		struct claim *claim = &tracker->claims[i];

		if (claim->leave_until <= now)
			claim->leave_until = 0;
		else if (claim->leave_until < next)
			next = claim->leave_until;
	}
	if (next == INT64_MAX)
		tracker->wanted_first[0] = '\0';
	return next;
}

int64_t tracker_expire(struct tracker *tracker, int64_t now)
{
	int64_t next = expire_leaving(tracker, now);

	if (!tracker->fleet)
		return next;
	if (tracker->fleet_until <= now) {
		fleet_unref(tracker->fleet);
		tracker->fleet = NULL;
		return next;
	}
	return tracker->fleet_until < next ? tracker->fleet_until : next;
}

struct fleet *tracker_fleet(const struct tracker *tracker)
{
	return tracker->fleet;
}

/* ---- how many ---- */

static bool is_desired_claim(
	const struct tracker *tracker, const struct claim *claim)
{
	const struct fleet_proxy *proxy = fleet_find(tracker->fleet, claim->id);

	return proxy && proxy->desired && !claim->leave_until;
}

/* Desired proxies without those that are being left. */
static size_t desired(const struct tracker *tracker)
{
	size_t count = tracker->fleet ? tracker->fleet->desired : 0;

	for (size_t i = 0; i < tracker->claim_count; i++) {
		const struct claim *claim = &tracker->claims[i];
		const struct fleet_proxy *proxy =
			fleet_find(tracker->fleet, claim->id);

		count -= proxy && proxy->desired && claim->leave_until;
	}
	return count;
}

size_t tracker_target(const struct tracker *tracker)
{
	size_t count = desired(tracker);

	return tracker->count && tracker->count < count ? tracker->count
							: count;
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
			 is_desired_claim(tracker, claim);
	}
	return count;
}

/* ---- leases and claims ---- */

bool tracker_lease(struct tracker *tracker, int64_t now)
{
	bool known = tracker->fleet && tracker->fleet->count;
	size_t had = have(tracker, now);
	bool begin = tracker->leases == 0 &&
		     (!tracker->claim_count || (!known && !had));

	if (!begin && tracker_target(tracker) <= had + tracker->leases)
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

bool tracker_may_begin(struct tracker *tracker, unsigned attempts,
	int64_t newest, int64_t now, bool *hedge_out, int64_t *due_out)
{
	*hedge_out = false;
	*due_out = INT64_MAX;
	if (attempts >= TRACKER_ATTEMPTS_MAX)
		return false;
	if (tracker_lease(tracker, now))
		return true;
	if (tracker_claimed(tracker) || !attempts)
		return false;
	if (now < newest + TRACKER_HEDGE_MS) {
		*due_out = newest + TRACKER_HEDGE_MS;
		return false;
	}
	*hedge_out = true;
	return tracker_lease_extra(tracker);
}

size_t tracker_excess(const struct tracker *tracker, int64_t now)
{
	size_t wanted = tracker_target(tracker), had = have(tracker, now);

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
		.known = fleet_find(tracker->fleet, id) != NULL, .since = now};
	memcpy(claim->id, id, strnlen(id, sizeof(claim->id) - 1));
	return true;
}

void tracker_release(struct tracker *tracker, const char *id)
{
	struct claim *claim = find_claim(tracker, id);

	if (claim)
		*claim = tracker->claims[--tracker->claim_count];
}

/* ---- leaving ---- */

/* Whether a tunnel at to instead of from would be beside another of ours. */
static bool would_crowd(
	const struct tracker *tracker, const char *from, const char *to)
{
	const struct fleet_proxy *old = fleet_find(tracker->fleet, from);
	const struct fleet_proxy *new = fleet_find(tracker->fleet, to);

	if (!old || !new ||
		(strcmp(old->region, new->region) == 0 &&
			strcmp(old->zone, new->zone) == 0))
		return false;
	return tracker_claimed_at(tracker, new->region, new->zone) > 0;
}

bool tracker_leave(
	struct tracker *tracker, const char *id, const char *to, int64_t now)
{
	struct claim *claim = find_claim(tracker, id);
	size_t held = 0;

	if (!claim || !is_desired_claim(tracker, claim))
		return false;
	for (size_t i = 0; i < tracker->claim_count; i++) {
		if (tracker->claims[i].leave_until > now)
			return false;
		held += is_desired_claim(tracker, &tracker->claims[i]);
	}
	if (tracker->fleet->desired <= held || would_crowd(tracker, id, to))
		return false;
	claim->leave_until = now + TRACKER_LEAVE_MS;
	tracker->wanted_first[0] = '\0';
	strncat(tracker->wanted_first, to, sizeof(tracker->wanted_first) - 1);
	return true;
}

const char *tracker_wanted_first(const struct tracker *tracker)
{
	return tracker->wanted_first;
}

/* ---- questions ---- */

bool tracker_is_claimed(const struct tracker *tracker, const char *id)
{
	return find_claim(tracker, id) != NULL;
}

bool tracker_is_leaving(const struct tracker *tracker, const char *id)
{
	const struct claim *claim = find_claim(tracker, id);

	return claim && claim->leave_until;
}

bool tracker_is_desired(const struct tracker *tracker, const char *id)
{
	const struct fleet_proxy *proxy = fleet_find(tracker->fleet, id);

	return proxy && proxy->desired && !tracker_is_leaving(tracker, id);
}

bool tracker_is_needless(
	const struct tracker *tracker, const char *id, int64_t now)
{
	const struct claim *claim = find_claim(tracker, id);

	return claim && !is_young(claim, now) &&
	       !is_desired_claim(tracker, claim);
}

size_t tracker_claimed(const struct tracker *tracker)
{
	return tracker->claim_count;
}

size_t tracker_claimed_at(
	const struct tracker *tracker, const char *region, const char *zone)
{
	size_t count = 0;

	for (size_t i = 0; i < tracker->claim_count; i++) {
		const struct claim *claim = &tracker->claims[i];
		const struct fleet_proxy *proxy =
			fleet_find(tracker->fleet, claim->id);

		count += proxy && is_desired_claim(tracker, claim) &&
			 strcmp(proxy->region, region) == 0 &&
			 strcmp(proxy->zone, zone) == 0;
	}
	return count;
}
