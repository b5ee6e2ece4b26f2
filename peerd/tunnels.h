/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which agents' tunnels end on this host, and at which worker. A tunnel is
 * named by its worker's link and the worker's own number for it. The newest
 * tunnel of an agent is the one that counts; an older one beside it is dead
 * without knowing, since an agent refuses a second tunnel to a proxy. Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.pb-c.h"

struct tunnel_entry {
	struct tunnel_entry *next; /* older one of the same agent */
	uint64_t link;
	uint64_t tunnel_id;
	Peerway__Record__TunnelRecord *record;
	char *remote_addr;
	uint64_t order; /* counts up with each new one */
};

struct tunnels;

struct tunnels *tunnels_new(void);
void tunnels_free(struct tunnels *tunnels);

/*
 * A tunnel is up, or its record has changed (copied). When another of the same
 * agent is there, true and the older of the two in *loser_out: the one to be
 * closed. It stays known until tunnels_remove().
 */
struct tunnel_ref {
	uint64_t link;
	uint64_t tunnel_id;
};
bool tunnels_put(struct tunnels *tunnels, uint64_t link, uint64_t tunnel_id,
	const Peerway__Record__TunnelRecord *record, const char *remote_addr,
	struct tunnel_ref *loser_out);
void tunnels_remove(struct tunnels *tunnels, uint64_t link, uint64_t tunnel_id);
/* A worker has gone. */
void tunnels_remove_link(struct tunnels *tunnels, uint64_t link);

/* The newest of the agent, or NULL; borrowed until the next change. */
const struct tunnel_entry *tunnels_find(
	const struct tunnels *tunnels, const char *agent_id);
/* Tunnels, older ones included; of one link unless that is 0. */
size_t tunnels_count(const struct tunnels *tunnels, uint64_t link);
/* Each agent's newest, in order of agent id. */
void tunnels_each(const struct tunnels *tunnels,
	void (*fn)(void *arg, const struct tunnel_entry *entry), void *arg);
