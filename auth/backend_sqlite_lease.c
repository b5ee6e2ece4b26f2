/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases of the embedded store: rows in the file say which exist, deadlines are
 * kept here on the monotonic clock. What a newcomer gets wrong: time during
 * which this process did not run is nobody's fault but ours. After a restart,
 * or when a tick comes far too late (a stopped process, a stalled disk), no
 * keepalive could have been heard, so all deadlines move by what was missed.
 */
#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "auth/backend_sqlite_impl.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* Ticks come every 500 ms; one that comes later than this was kept from it. */
#define STALL_MS 1500

struct lease {
	TAILQ_ENTRY(lease) entry;
	uint64_t id;
	uint32_t ttl_ms;
	int64_t deadline;
};

static struct lease *find(struct sqlite_backend *b, uint64_t id)
{
	struct lease *lease;

	TAILQ_FOREACH (lease, &b->leases, entry)
		if (lease->id == id)
			return lease;
	return NULL;
}

static void add(void *arg, uint64_t id, uint32_t ttl_ms)
{
	struct sqlite_backend *b = arg;
	struct lease *lease = xcalloc(1, sizeof(*lease));

	lease->id = id;
	lease->ttl_ms = ttl_ms;
	lease->deadline = b->now(b->now_arg) + ttl_ms;
	TAILQ_INSERT_TAIL(&b->leases, lease, entry);
	b->lease_count++;
}

static void forget(struct sqlite_backend *b, struct lease *lease)
{
	TAILQ_REMOVE(&b->leases, lease, entry);
	b->lease_count--;
	free(lease);
}

void sqlite_leases_free(struct sqlite_backend *b)
{
	struct lease *lease;

	while ((lease = TAILQ_FIRST(&b->leases)))
		forget(b, lease);
}

int sqlite_leases_load(struct sqlite_backend *b)
{
	sqlite_leases_free(b);
	return sqlite_db_leases(b->db, add, b);
}

bool sqlite_lease_exists(struct sqlite_backend *b, uint64_t id)
{
	return find(b, id) != NULL;
}

static uint64_t new_id(struct sqlite_backend *b)
{
	uint64_t id;

	/* Random, so that a store set back to an older copy does not give the
	 * id of a lease that somebody still holds. */
	do {
		if (RAND_bytes((unsigned char *)&id, sizeof(id)) != 1)
			fatal("no random bytes for a lease");
		id &= INT64_MAX;
	} while (!id || find(b, id));
	return id;
}

enum backend_status sqlite_lease_grant(
	struct sqlite_backend *b, uint32_t ttl_ms, uint64_t *id_out)
{
	uint64_t id;

	if (!backend_ttl_is_valid(ttl_ms))
		return BACKEND_INVALID;
	if (b->lease_count >= BACKEND_LEASES_MAX)
		return BACKEND_FULL;
	id = new_id(b);
	if (!sqlite_backend_write(b) ||
		!sqlite_backend_check(
			b, sqlite_db_lease_add(b->db, id, ttl_ms)))
		return BACKEND_UNAVAILABLE;
	add(b, id, ttl_ms);
	*id_out = id;
	return BACKEND_OK;
}

enum backend_status sqlite_lease_keepalive(
	struct sqlite_backend *b, uint64_t id, uint32_t *ttl_ms_out)
{
	struct lease *lease = find(b, id);

	if (!lease)
		return BACKEND_NO_LEASE;
	lease->deadline = b->now(b->now_arg) + lease->ttl_ms;
	*ttl_ms_out = lease->ttl_ms;
	return BACKEND_OK;
}

static enum backend_status end_lease(
	struct sqlite_backend *b, struct lease *lease)
{
	if (!sqlite_backend_write(b) ||
		!sqlite_backend_check(
			b, sqlite_db_lease_clear(b->db, lease->id)) ||
		!sqlite_backend_check(
			b, sqlite_db_lease_remove(b->db, lease->id)))
		return BACKEND_UNAVAILABLE;
	forget(b, lease);
	return BACKEND_OK;
}

enum backend_status sqlite_lease_revoke(struct sqlite_backend *b, uint64_t id)
{
	struct lease *lease = find(b, id);

	return lease ? end_lease(b, lease) : BACKEND_NO_LEASE;
}

static void excuse_stall(struct sqlite_backend *b, int64_t now)
{
	int64_t missed = now - b->last_tick;
	struct lease *lease;

	b->last_tick = now;
	if (missed < STALL_MS)
		return;
	log_warn("leases extended: the process stood still ms=%lld",
		(long long)missed);
	TAILQ_FOREACH (lease, &b->leases, entry)
		lease->deadline += missed;
}

void sqlite_leases_expire(struct sqlite_backend *b)
{
	int64_t now = b->now(b->now_arg);
	struct lease *lease;
	struct lease *next;

	excuse_stall(b, now);
	for (lease = TAILQ_FIRST(&b->leases); lease; lease = next) {
		next = TAILQ_NEXT(lease, entry);
		if (lease->deadline > now)
			continue;
		log_info("lease ended: not kept alive lease=%016llx ttl_ms=%u",
			(unsigned long long)lease->id, lease->ttl_ms);
		if (end_lease(b, lease) != BACKEND_OK)
			return; /* tried again at the next tick */
	}
}
