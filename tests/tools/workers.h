/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The proxies of many hosts, as their routeds see them: for each host one
 * worker with tunnels that are not there. Reports them, changes them at a given
 * rate, and looks into every host's cache, when that host's routed announces a
 * commit, whether a change has arrived. All in one process on one loop.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "shared/cache.h"
#include "shared/ipc_link.h"
#include "shared/loop.h"

#define WORKERS_HOSTS_MAX 64

/* ---- workers_record.c ---- */

struct workers_record {
	Peerway__Record__TunnelRecord record;
	Peerway__Record__Label labels[3];
	Peerway__Record__Label *label_list[3];
	Peerway__Record__Service service;
	Peerway__Record__Service *service_list[1];
	char agent_id[37];
	char name[32];
};

/* The id of tunnel number's agent: like a random one, and always the same. */
void workers_agent_id(uint64_t number, char out[37]);
/* That tunnel's record; borrows itself. */
void workers_record(
	struct workers_record *out, uint64_t number, uint64_t since_ms);

/* ---- workers_host.c ---- */

struct workers;

struct host {
	struct workers *workers;
	unsigned number;
	struct ipc_link *link;
	uint64_t *since; /* of each tunnel, unique for each change; 0: down */
	char *path;	 /* of the cache */
	struct cache *cache;
	uint64_t commits; /* announced */
	struct loop_task look;
};

struct workers {
	struct loop *loop;
	struct host hosts[WORKERS_HOSTS_MAX];
	unsigned host_count;
	unsigned tunnels; /* of each host */
	uint64_t since;	  /* last given */
	struct changes *changes;
};

void host_start(struct host *host, struct workers *workers, unsigned number,
	const char *socket);
void host_stop(struct host *host);
/* Takes the tunnel down (0), or reports it with that time. */
void host_report(struct host *host, unsigned tunnel, uint64_t since);
/* Whether the cache has the tunnel of that host as it was reported. */
bool host_has(struct host *host, const struct host *of, unsigned tunnel,
	uint64_t since);

/* ---- workers_changes.c ---- */

/* every: one change in so many is looked for; 0: none. */
struct changes *changes_new(struct workers *workers, unsigned every);
void changes_free(struct changes *changes);
/* Rate a second, from now on; 0: no more. */
void changes_flow(struct changes *changes, unsigned rate);
/* The host's cache has a new state; its link has gone. */
void changes_look(struct changes *changes, struct host *host);
void changes_host_gone(struct changes *changes, const struct host *host);
/* Those that have not arrived everywhere. */
unsigned changes_unseen(const struct changes *changes);
/* One line of JSON of those since the last call; forgets them. */
void changes_print(struct changes *changes);
