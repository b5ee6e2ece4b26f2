/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lookup in a cache costs a proxy: the holders of one agent after the
 * other, drawn at random from those that tests/tools/workers has reported.
 *
 *   lookups CACHE AGENTS SECONDS
 *
 * Prints a line of JSON: microseconds by the clock, and, since others share the
 * cores, of this thread's own time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "shared/alloc.h"
#include "shared/log.h"
#include "tests/tools/workers.h"

#define HOLDERS_MAX 8

struct times {
	uint32_t *ns;
	size_t count;
	size_t room;
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void add(struct times *times, int64_t ns)
{
	if (times->count == times->room) {
		times->room = times->room ? 2 * times->room : 1 << 16;
		times->ns =
			xrealloc(times->ns, times->room * sizeof(times->ns[0]));
	}
	times->ns[times->count++] = (uint32_t)ns;
}

/* Whether the agent has a holder; what it took by that clock. */
static bool look(struct cache *cache, uint64_t number, clockid_t clock,
	struct times *times)
{
	struct cache_holder holders[HOLDERS_MAX];
	char agent_id[37];
	int64_t began;
	int count;

	workers_agent_id(number, agent_id);
	began = now_ns(clock);
	count = cache_holders(cache, agent_id, holders, HOLDERS_MAX);
	add(times, now_ns(clock) - began);
	if (count < 0)
		die("the cache cannot be read");
	return count > 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print(const char *name, struct times *times)
{
	static const double parts[] = {0.5, 0.99, 0.999, 1};
	static const char *const names[] = {"p50", "p99", "p999", "max"};

	qsort(times->ns, times->count, sizeof(times->ns[0]), compare);
	printf(", \"%s\": {", name);
	for (int i = 0; i < 4; i++)
		printf("%s\"%s\": %.1f", i ? ", " : "", names[i],
			times->ns[(size_t)((double)(times->count - 1) *
					   parts[i])] /
				1e3);
	printf("}");
	free(times->ns);
}

int main(int argc, char **argv)
{
	struct times wall = {0}, own = {0};
	struct cache *cache;
	char *error = NULL;
	uint64_t agents, found = 0;
	int64_t end;

	if (argc != 4) {
		fprintf(stderr, "usage: lookups CACHE AGENTS SECONDS\n");
		return 2;
	}
	cache = cache_open(argv[1], &error);
	agents = strtoull(argv[2], NULL, 10);
	if (!cache || !agents)
		die("%s", error ? error : "no agents");
	end = now_ns(CLOCK_MONOTONIC) + atoi(argv[3]) * 1000000000LL;
	srandom(1);
	do {
		found += look(cache, (uint64_t)random() % agents,
			CLOCK_MONOTONIC, &wall);
		found += look(cache, (uint64_t)random() % agents,
			CLOCK_THREAD_CPUTIME_ID, &own);
	} while (now_ns(CLOCK_MONOTONIC) < end);
	printf("{\"lookups\": %zu, \"found\": %" PRIu64, wall.count + own.count,
		found);
	print("wall_us", &wall);
	print("cpu_us", &own);
	printf("}\n");
	cache_close(cache);
	return 0;
}
