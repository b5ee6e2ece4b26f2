/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at the cache from time to time until all is well; changes nothing but a
 * metric, by which the parent answers /readyz.
 *
 * What a newcomer gets wrong: a record of a tunnel to this host may be of its
 * former life. Only those count that are younger than this worker.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proxy/registry.h"
#include "proxy/route.h"
#include "proxy/warmup.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/cache.h"
#include "shared/log.h"

#define LOOK_MS 250
#define PROXIES_MAX 1000

struct warmup {
	struct worker *worker;
	struct timer *look;
	bool current;
	int64_t until;
	uint64_t started_ms; /* Unix time */
};

/* One look: which proxies can be peered with, and how the agent that is being
 * read fares. */
struct look {
	struct warmup *warmup;
	char (*peers)[37]; /* sorted */
	size_t peer_count;
	char agent_id[37]; /* records come agent by agent */
	bool reached;
	bool missing; /* one without a way was found */
};

static void on_look(void *arg);

struct warmup *warmup_new(struct worker *worker)
{
	struct warmup *warmup = xcalloc(1, sizeof(*warmup));

	warmup->worker = worker;
	warmup->started_ms = (uint64_t)time(NULL) * 1000;
	warmup->until = loop_now(worker->loop) + WARMUP_MAX_MS;
	warmup->look = timer_new(worker->loop, on_look, warmup);
	timer_set(warmup->look, LOOK_MS);
	return warmup;
}

void warmup_free(struct warmup *warmup)
{
	timer_free(warmup->look);
	free(warmup);
}

void warmup_cache_is_current(struct warmup *warmup)
{
	warmup->current = true;
}

/* ---- one look ---- */

static int compare_ids(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* A proxy in agent_mesh has no address for peers, and if we are one we have no
 * use for those of others. */
static bool list_peers(struct look *look, struct cache *cache)
{
	Peerway__Record__ProxyRecord **records =
		xcalloc(PROXIES_MAX, sizeof(*records));
	int count = cache_proxies(cache, records, PROXIES_MAX);
	bool known = false, peering = false;

	look->peers = xcalloc(PROXIES_MAX, sizeof(look->peers[0]));
	for (int i = 0; i < count; i++) {
		bool peers = records[i]->peer_addr[0] != '\0';

		if (strcmp(records[i]->id, look->warmup->worker->proxy_id) ==
			0) {
			known = true;
			peering = peers;
		} else if (peers) {
			strncpy(look->peers[look->peer_count++], records[i]->id,
				36);
		}
		peerway__record__proxy_record__free_unpacked(records[i], NULL);
	}
	free(records);
	if (!peering)
		look->peer_count = 0;
	qsort(look->peers, look->peer_count, sizeof(look->peers[0]),
		compare_ids);
	return known;
}

static bool is_a_way(
	const struct look *look, const Peerway__Record__TunnelRecord *record)
{
	const struct worker *worker = look->warmup->worker;

	if (strcmp(record->proxy_id, worker->proxy_id) == 0)
		return record->since_ms >= look->warmup->started_ms;
	return bsearch(record->proxy_id, look->peers, look->peer_count,
		       sizeof(look->peers[0]), compare_ids) != NULL;
}

/* The records of one agent are over. Nonzero when it has no way. */
static int check_agent(struct look *look, const char *next_agent)
{
	struct registry *registry = look->warmup->worker->registry;
	bool reached = look->reached || !look->agent_id[0] ||
		       registry_newest(registry, look->agent_id);

	look->agent_id[0] = '\0';
	strncat(look->agent_id, next_agent, sizeof(look->agent_id) - 1);
	look->reached = false;
	look->missing = look->missing || !reached;
	return look->missing;
}

static int on_tunnel(void *arg, const Peerway__Record__TunnelRecord *record)
{
	struct look *look = arg;

	if (strcmp(look->agent_id, record->agent_id) != 0 &&
		check_agent(look, record->agent_id))
		return 1;
	look->reached = look->reached || is_a_way(look, record);
	return 0;
}

static bool reaches_all(struct warmup *warmup)
{
	struct cache *cache = routes_cache(warmup->worker->routes);
	struct look look = {.warmup = warmup};
	bool all;

	if (!warmup->current || !cache)
		return false;
	all = list_peers(&look, cache) &&
	      cache_tunnels_all(cache, on_tunnel, &look) >= 0;
	all = all && check_agent(&look, "") == 0;
	free(look.peers);
	return all;
}

static void on_look(void *arg)
{
	struct warmup *warmup = arg;
	struct worker *worker = warmup->worker;
	bool late = loop_now(worker->loop) >= warmup->until;

	if (!reaches_all(warmup) && !late) {
		timer_set(warmup->look, LOOK_MS);
		return;
	}
	if (late)
		log_warn("serving without a way to every agent, after %d s",
			WARMUP_MAX_MS / 1000);
	metric_set(&worker->metrics, PROXY_WARM, 1);
}
