/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a commit costs routed: fills a cache, then changes CHANGES records drawn
 * at random and commits, every 25 ms, which is how often authd sends them.
 *
 *   commits DIRECTORY RECORDS CHANGES
 *
 * Prints the path of the cache when it is full, and a line of JSON when stdin
 * ends: milliseconds of the filling, microseconds of a commit by the clock and
 * in CPU time.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "routed/store.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "tests/tools/workers.h"

#define PROXIES 20
#define PERIOD_MS 25

static int64_t now_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void proxy_id(unsigned number, char out[37])
{
	workers_agent_id(UINT32_MAX + (uint64_t)number, out);
}

static void change(struct store *store, Peerway__Auth__Change *change)
{
	if (store_change(store, change) < 0)
		die("not written: %s", store_error(store));
}

static void put_proxy(struct store *store, unsigned number)
{
	Peerway__Record__ProxyRecord record =
		PEERWAY__RECORD__PROXY_RECORD__INIT;
	Peerway__Auth__Change put = PEERWAY__AUTH__CHANGE__INIT;
	char id[37];

	proxy_id(number, id);
	record.id = id;
	record.hostname = (char *)"proxy.internal";
	record.peer_addr = (char *)"proxy.internal:3021";
	put.what_case = PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT;
	put.proxy_put = &record;
	change(store, &put);
}

static void put_tunnel(struct store *store, unsigned number, uint64_t since)
{
	Peerway__Auth__Change put = PEERWAY__AUTH__CHANGE__INIT;
	struct workers_record record;
	char id[37];

	workers_record(&record, number, since);
	proxy_id(number % PROXIES, id);
	record.record.proxy_id = id;
	put.what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT;
	put.tunnel_put = &record.record;
	change(store, &put);
}

static void begin(struct store *store, bool snapshot)
{
	if (store_begin(store, snapshot) < 0)
		die("not begun: %s", store_error(store));
}

static void commit(struct store *store, uint64_t revision)
{
	bool changed;

	if (store_commit(store, "commits", revision, &changed) < 0)
		die("not committed: %s", store_error(store));
}

static void fill(struct store *store, unsigned records)
{
	begin(store, true);
	for (unsigned p = 0; p < PROXIES; p++)
		put_proxy(store, p);
	for (unsigned r = 0; r < records; r++)
		put_tunnel(store, r, 1);
	commit(store, 1);
}

static bool wait_period(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	return poll(&in, 1, PERIOD_MS) == 0;
}

int main(int argc, char **argv)
{
	char *notice = NULL, *error = NULL;
	struct store *store;
	unsigned records, changes;
	uint64_t revision = 1;
	int64_t began, filled, wall = 0, cpu;

	if (argc != 4) {
		fprintf(stderr, "usage: commits DIRECTORY RECORDS CHANGES\n");
		return 2;
	}
	records = (unsigned)atoi(argv[2]);
	changes = (unsigned)atoi(argv[3]);
	store = store_open(argv[1], &notice, &error);
	if (!store || !records)
		die("%s", error ? error : "no records");
	began = now_us(CLOCK_MONOTONIC);
	fill(store, records);
	filled = now_us(CLOCK_MONOTONIC) - began;
	printf("%s\n", store_path(store));
	fflush(stdout);
	srandom(1);
	cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
	while (wait_period()) {
		began = now_us(CLOCK_MONOTONIC);
		begin(store, false);
		for (unsigned c = 0; c < changes; c++)
			put_tunnel(store, (unsigned)random() % records,
				revision * changes + c);
		commit(store, ++revision);
		wall += now_us(CLOCK_MONOTONIC) - began;
	}
	cpu = now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	revision -= revision > 1; /* commits, not revisions */
	printf("{\"fill_ms\": %" PRId64 ", \"commits\": %" PRIu64
	       ", \"wall_us\": %" PRId64 ", \"cpu_us\": %" PRId64 "}\n",
		filled / 1000, revision, wall / (int64_t)revision,
		cpu / (int64_t)revision);
	store_close(store);
	return 0;
}
