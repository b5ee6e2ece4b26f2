/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether a worker that has just started can reach the agents of the fleet, so
 * that whoever balances load sends it clients only then. In agent_mesh that
 * takes a tunnel of every agent to this host, and a moment; in proxy_peering a
 * holder that peers is as good.
 *
 *   COLD --a way to every agent, or WARMUP_MAX_MS--> WARM, for good
 */

#define WARMUP_MAX_MS 15000

struct warmup;
struct worker;

/* Borrows worker; looks by itself. */
struct warmup *warmup_new(struct worker *worker);
void warmup_free(struct warmup *warmup);

/* routed has said that the cache is of this life of the host. */
void warmup_cache_is_current(struct warmup *warmup);
