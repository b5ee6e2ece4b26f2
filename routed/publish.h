/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which tunnel records authd should have and which it has, pure: workers'
 * reports go in, batches for authd come out. One batch is under way at a time;
 * what changes meanwhile, and what changes back, is in the next one or in none.
 *
 * An agent has one record per host, of its newest tunnel, however many of the
 * host's workers hold one: so a tunnel that moved to another worker is an
 * update and never a deletion.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth.pb-c.h"

/* A transaction of authd's takes 128 operations and 1440 KiB; some are its own
 * (epoch, proxy record). */
#define PUBLISH_BATCH_MAX 100
#define PUBLISH_BATCH_BYTES (1 << 20)

struct publish;

/* proxy_id: what every record is given, whatever a worker said. At most
 * tunnels_max tunnels are kept. */
struct publish *publish_new(const char *proxy_id, size_t tunnels_max);
/* What is above it stays. */
void publish_set_max(struct publish *publish, size_t tunnels_max);
void publish_free(struct publish *publish);

/* ---- what a worker (its link's id) reports ---- */

/* Up, or with another record than before. Borrows. 0, -ENOSPC. */
int publish_up(struct publish *publish, uint64_t link, uint64_t tunnel_id,
	const Peerway__Record__TunnelRecord *record);
void publish_down(struct publish *publish, uint64_t link, uint64_t tunnel_id);
/* A full list: between the two every tunnel of the link is reported up; those
 * that were not are withdrawn at the end. */
void publish_sync_begin(struct publish *publish, uint64_t link);
void publish_sync_end(struct publish *publish, uint64_t link);
void publish_link_gone(struct publish *publish, uint64_t link);

/* ---- whom to ask for a move ---- */

struct publish_tunnel {
	char agent_id[37];
	uint64_t link;
	uint64_t tunnel_id;
};

/* The next one, round and round, that was not asked since; false: none. */
bool publish_next_unasked(
	struct publish *publish, int64_t since, struct publish_tunnel *out);
void publish_set_asked(struct publish *publish, uint64_t link,
	uint64_t tunnel_id, int64_t now);
/* Tunnels that were asked since, and are still here. */
size_t publish_asked(const struct publish *publish, int64_t since);

/* ---- what authd is told ---- */

struct publish_batch {
	Peerway__Record__TunnelRecord *put[PUBLISH_BATCH_MAX];
	char *removed[PUBLISH_BATCH_MAX];
	size_t put_count;
	size_t removed_count;
};

/* The next batch (its records are freed by publish_done()); false when all has
 * been said. None may be under way. */
bool publish_next(struct publish *publish, struct publish_batch *batch_out);
/* The end of the batch. stored = false: it is to be said again. */
void publish_done(
	struct publish *publish, struct publish_batch *batch, bool stored);
/*
 * The end of a batch that authd has refused: its records are said again one by
 * one, and one that is refused alone is left out until it changes, so that no
 * agent's record keeps another's from being published. True when this was one
 * alone.
 */
bool publish_refused(struct publish *publish, struct publish_batch *batch);
/* A new lease, under which nothing has been said yet. No batch under way. */
void publish_reset(struct publish *publish);

/* Agents whose record authd has; those about whom it has not heard the last. */
size_t publish_published(const struct publish *publish);
size_t publish_pending(const struct publish *publish);
/* Calls fn with the record that each agent with a live tunnel should have, in
 * no order, until it returns nonzero. */
void publish_each(const struct publish *publish,
	int (*fn)(void *arg, const Peerway__Record__TunnelRecord *record),
	void *arg);
