/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases of the store in etcd. Each process knows them all, by the keys that
 * stand for them, and ends those that nobody has kept alive: it knows of its
 * own keepalives, and asks etcd for the age of a lease that it believes due,
 * since another process may have kept it. Costs no write until a lease ends.
 *
 * What a newcomer gets wrong: an age is worth something only while all that
 * could have kept the lease alive has been there. So nothing ends until etcd
 * has answered, and this process has run, for a whole TTL.
 */
#include <stdlib.h>

#include "auth/backend_etcd_impl.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define TICK_MS 250
#define STALL_MS 1500 /* a tick that late: we were not there */

struct etcd_lease {
	TAILQ_ENTRY(etcd_lease) entry;
	struct etcd_backend *b;
	uint64_t id;
	uint32_t ttl_ms;
	int64_t alive; /* loop_now() of the last keepalive known of */
	bool asked;    /* etcd, for its age; or to end it */
	bool gone;     /* meanwhile */
};

static const struct etcd_method time_to_live = {
	"/etcdserverpb.Lease/LeaseTimeToLive",
	&peerway__etcd__lease_time_to_live_response__descriptor, true,
	ETCD_CALL_MS};

static struct etcd_lease *find(struct etcd_backend *b, uint64_t id)
{
	struct etcd_lease *lease;

	TAILQ_FOREACH (lease, &b->leases, entry)
		if (lease->id == id)
			return lease;
	return NULL;
}

void etcd_lease_seen(struct etcd_backend *b, uint64_t id, uint32_t ttl_ms)
{
	struct etcd_lease *lease = find(b, id);

	if (!lease) {
		lease = xcalloc(1, sizeof(*lease));
		lease->b = b;
		lease->id = id;
		lease->alive = loop_now(b->loop);
		TAILQ_INSERT_TAIL(&b->leases, lease, entry);
		b->lease_count++;
	}
	lease->ttl_ms = ttl_ms;
}

static void forget(struct etcd_lease *lease)
{
	TAILQ_REMOVE(&lease->b->leases, lease, entry);
	lease->b->lease_count--;
	lease->gone = true;
	if (!lease->asked)
		free(lease);
}

void etcd_lease_gone(struct etcd_backend *b, uint64_t id)
{
	struct etcd_lease *lease = find(b, id);

	if (lease)
		forget(lease);
}

uint32_t etcd_lease_kept(struct etcd_backend *b, uint64_t id)
{
	struct etcd_lease *lease = find(b, id);

	if (!lease)
		return 0;
	lease->alive = loop_now(b->loop);
	return lease->ttl_ms;
}

void etcd_leases_steady(struct etcd_backend *b)
{
	b->steady_since = loop_now(b->loop);
}

/* ---- ending those that are due ---- */

static void answered(struct etcd_lease *lease)
{
	lease->asked = false;
	if (lease->gone)
		free(lease);
}

static void on_ended(
	void *arg, enum backend_status status, uint64_t id, uint32_t ttl_ms)
{
	/* etcd_lease_gone() has been called when it has ended */
	answered(arg);
}

static void end(struct etcd_lease *lease)
{
	log_debug("lease ends: lease=%016llx", (unsigned long long)lease->id);
	lease->asked = true;
	etcd_lease_revoke(&lease->b->base, lease->id, on_ended, lease);
}

static bool is_due(const struct etcd_lease *lease, int64_t now)
{
	return now - lease->alive >= lease->ttl_ms &&
	       now - lease->b->steady_since >= lease->ttl_ms;
}

static void on_age(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__LeaseTimeToLiveResponse *left =
		(const void *)response;
	struct etcd_lease *lease = arg;
	int64_t now = loop_now(lease->b->loop);
	int64_t age_ms;

	if (lease->gone || status) {
		answered(lease);
		return;
	}
	lease->asked = false;
	if (left->ttl_s < 0) {
		forget(lease);
		return;
	}
	/* what is left is in whole seconds, so this is the least it can be */
	age_ms = (left->granted_s - left->ttl_s - 1) * 1000;
	if (age_ms < 0)
		age_ms = 0;
	if (now - age_ms > lease->alive)
		lease->alive = now - age_ms;
	if (is_due(lease, now))
		end(lease);
}

static void ask(struct etcd_lease *lease)
{
	Peerway__Etcd__LeaseTimeToLiveRequest request =
		PEERWAY__ETCD__LEASE_TIME_TO_LIVE_REQUEST__INIT;

	request.id = (int64_t)lease->id;
	lease->asked = true;
	etcd_call(lease->b->client, &time_to_live, rpc_pack(&request.base),
		on_age, lease);
}

static void on_tick(void *arg)
{
	struct etcd_backend *b = arg;
	int64_t now = loop_now(b->loop);
	struct etcd_lease *lease;

	timer_set(b->tick, TICK_MS);
	etcd_calls_expire(b);
	if (now - b->last_tick > STALL_MS)
		etcd_leases_steady(b);
	b->last_tick = now;
	if (!b->open || !etcd_client_is_ready(b->client))
		return;
	TAILQ_FOREACH (lease, &b->leases, entry)
		if (!lease->asked && is_due(lease, now))
			ask(lease);
}

void etcd_leases_init(struct etcd_backend *b)
{
	TAILQ_INIT(&b->leases);
	b->last_tick = loop_now(b->loop);
	b->tick = timer_new(b->loop, on_tick, b);
	timer_set(b->tick, TICK_MS);
	etcd_leases_steady(b);
}

void etcd_leases_forget(struct etcd_backend *b)
{
	struct etcd_lease *lease;

	while ((lease = TAILQ_FIRST(&b->leases)))
		forget(lease);
}

void etcd_leases_free(struct etcd_backend *b)
{
	timer_free(b->tick);
	etcd_leases_forget(b);
}
