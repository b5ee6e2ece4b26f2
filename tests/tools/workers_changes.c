/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow of changes: a tunnel in turn registers anew, goes, and one that has
 * gone comes back. Those that are looked for are kept with the caches that
 * lack them; the time runs from the report until a lookup in the cache has
 * found it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "shared/alloc.h"
#include "tests/tools/workers.h"

#define STEP_MS 5
#define TRIES 1000 /* at a tunnel that is up, of a host that is */

struct change {
	TAILQ_ENTRY(change) entry;
	struct host *host;
	unsigned tunnel;
	uint64_t since;
	int64_t began;	 /* us */
	uint64_t unseen; /* a bit for each cache */
};

/* A tunnel that was taken down. */
struct gone {
	STAILQ_ENTRY(gone) entry;
	struct host *host;
	unsigned tunnel;
};

struct times {
	uint32_t *us;
	size_t count;
	size_t room;
};

struct changes {
	struct workers *workers;
	struct timer *step;
	unsigned every;
	unsigned rate;
	int64_t began; /* us, the flow */
	uint64_t made; /* of the flow */
	uint64_t total;
	uint64_t watched;
	unsigned unseen;
	uint64_t chance;
	TAILQ_HEAD(, change) pending;
	STAILQ_HEAD(, gone) gone;
	struct times each;  /* until a cache had it */
	struct times whole; /* until the last of them had it */
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

/* ---- times ---- */

static void times_add(struct times *times, int64_t us)
{
	if (times->count == times->room) {
		times->room = times->room ? 2 * times->room : 1024;
		times->us =
			xrealloc(times->us, times->room * sizeof(times->us[0]));
	}
	times->us[times->count++] = (uint32_t)us;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile_ms(const struct times *times, unsigned percent)
{
	if (times->count == 0)
		return 0;
	return times->us[(times->count - 1) * percent / 100] / 1e3;
}

static void times_print(const char *name, struct times *times)
{
	if (times->count)
		qsort(times->us, times->count, sizeof(times->us[0]), compare);
	printf(", \"%s\": {\"count\": %zu, \"p50\": %.1f, \"p99\": %.1f, "
	       "\"max\": %.1f}",
		name, times->count, percentile_ms(times, 50),
		percentile_ms(times, 99), percentile_ms(times, 100));
	times->count = 0;
}

/* ---- arriving ---- */

static void arrived(struct changes *changes, struct change *change)
{
	TAILQ_REMOVE(&changes->pending, change, entry);
	changes->unseen--;
	free(change);
}

void changes_look(struct changes *changes, struct host *host)
{
	uint64_t bit = UINT64_C(1) << host->number;
	struct change *change, *next;

	for (change = TAILQ_FIRST(&changes->pending); change; change = next) {
		int64_t took;

		next = TAILQ_NEXT(change, entry);
		if (!(change->unseen & bit) ||
			!host_has(host, change->host, change->tunnel,
				change->since))
			continue;
		took = now_us() - change->began;
		change->unseen &= ~bit;
		times_add(&changes->each, took);
		if (change->unseen)
			continue;
		times_add(&changes->whole, took);
		arrived(changes, change);
	}
}

void changes_host_gone(struct changes *changes, const struct host *host)
{
	uint64_t bit = UINT64_C(1) << host->number;
	struct change *change, *next;

	for (change = TAILQ_FIRST(&changes->pending); change; change = next) {
		next = TAILQ_NEXT(change, entry);
		change->unseen &= ~bit;
		if (change->host == host || !change->unseen)
			arrived(changes, change);
	}
}

/* ---- making ---- */

static uint64_t chance(struct changes *changes)
{
	/* xorshift: every run makes the same changes */
	changes->chance ^= changes->chance << 13;
	changes->chance ^= changes->chance >> 7;
	changes->chance ^= changes->chance << 17;
	return changes->chance;
}

static bool is_pending(
	const struct changes *changes, const struct host *host, unsigned tunnel)
{
	const struct change *change;

	TAILQ_FOREACH (change, &changes->pending, entry) {
		if (change->host == host && change->tunnel == tunnel)
			return true;
	}
	return false;
}

static void watch(struct changes *changes, struct host *host, unsigned tunnel,
	uint64_t since)
{
	struct change *change = xcalloc(1, sizeof(*change));
	struct workers *workers = changes->workers;

	change->host = host;
	change->tunnel = tunnel;
	change->since = since;
	change->began = now_us();
	for (unsigned h = 0; h < workers->host_count; h++)
		if (ipc_link_is_up(workers->hosts[h].link))
			change->unseen |= UINT64_C(1) << h;
	TAILQ_INSERT_TAIL(&changes->pending, change, entry);
	changes->watched++;
	changes->unseen++;
}

static void make(struct changes *changes, struct host *host, unsigned tunnel,
	uint64_t since)
{
	if (changes->every && changes->total % changes->every == 0)
		watch(changes, host, tunnel, since);
	host_report(host, tunnel, since);
	changes->total++;
	changes->made++;
}

static bool may_change(
	const struct changes *changes, const struct host *host, unsigned tunnel)
{
	return ipc_link_is_up(host->link) && !is_pending(changes, host, tunnel);
}

static bool bring_back(struct changes *changes)
{
	struct gone *gone = STAILQ_FIRST(&changes->gone);

	if (!gone || !may_change(changes, gone->host, gone->tunnel))
		return false;
	STAILQ_REMOVE_HEAD(&changes->gone, entry);
	make(changes, gone->host, gone->tunnel, ++changes->workers->since);
	free(gone);
	return true;
}

static void take_down(
	struct changes *changes, struct host *host, unsigned tunnel)
{
	struct gone *gone = xcalloc(1, sizeof(*gone));

	gone->host = host;
	gone->tunnel = tunnel;
	STAILQ_INSERT_TAIL(&changes->gone, gone, entry);
	make(changes, host, tunnel, 0);
}

/* False when nothing can be changed. */
static bool make_one(struct changes *changes)
{
	struct workers *workers = changes->workers;
	uint64_t kind = changes->total % 3;
	struct host *host;
	unsigned tunnel;

	if (kind == 2 && bring_back(changes))
		return true;
	for (int tries = 0;; tries++) {
		if (tries == TRIES)
			return false;
		host = &workers->hosts[chance(changes) % workers->host_count];
		tunnel = (unsigned)(chance(changes) % workers->tunnels);
		if (host->since[tunnel] && may_change(changes, host, tunnel))
			break;
	}
	if (kind == 1)
		take_down(changes, host, tunnel);
	else
		make(changes, host, tunnel, ++workers->since);
	return true;
}

static void on_step(void *arg)
{
	struct changes *changes = arg;
	uint64_t due =
		(uint64_t)(now_us() - changes->began) * changes->rate / 1000000;

	while (changes->made < due && make_one(changes))
		;
	timer_set(changes->step, STEP_MS);
}

void changes_flow(struct changes *changes, unsigned rate)
{
	changes->rate = rate;
	changes->made = 0;
	changes->began = now_us();
	if (rate && changes->workers->tunnels)
		timer_set(changes->step, STEP_MS);
	else
		timer_clear(changes->step);
}

/* ---- the whole ---- */

struct changes *changes_new(struct workers *workers, unsigned every)
{
	struct changes *changes = xcalloc(1, sizeof(*changes));

	changes->workers = workers;
	changes->every = every;
	changes->chance = 88172645463325252u;
	changes->step = timer_new(workers->loop, on_step, changes);
	TAILQ_INIT(&changes->pending);
	STAILQ_INIT(&changes->gone);
	return changes;
}

void changes_free(struct changes *changes)
{
	struct change *change;
	struct gone *gone;

	while ((change = TAILQ_FIRST(&changes->pending)))
		arrived(changes, change);
	while ((gone = STAILQ_FIRST(&changes->gone))) {
		STAILQ_REMOVE_HEAD(&changes->gone, entry);
		free(gone);
	}
	timer_free(changes->step);
	free(changes->each.us);
	free(changes->whole.us);
	free(changes);
}

unsigned changes_unseen(const struct changes *changes)
{
	return changes->unseen;
}

void changes_print(struct changes *changes)
{
	printf("{\"changes\": %" PRIu64 ", \"watched\": %" PRIu64
	       ", \"unseen\": %u",
		changes->total, changes->watched, changes->unseen);
	times_print("each_ms", &changes->each);
	times_print("all_ms", &changes->whole);
	printf("}\n");
	fflush(stdout);
	changes->total = 0;
	changes->watched = 0;
}
