/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The proxies as one list said, in the form in which the agent uses it: sorted,
 * compact, and with everything worked out that is the same for every agent.
 * Never changed once made, so many agents of a process share one. Pure.
 *
 *   desired = the serving proxies of the highest generation of each group
 *             (peering-reference 9.3)
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/discovery.h"

/*
 * A fleet changes its strategy one restarted proxy after another. As long as
 * one proxy runs agent_mesh it reaches no agent without a tunnel of its own, so
 * one such voice opens a tunnel to every proxy, and only a proxy_peering from
 * all of them lets a tunnel be closed.
 */
struct strategy {
	enum discovery_strategy type;
	uint32_t count; /* 0: a tunnel to every proxy */
};

struct fleet_proxy {
	char id[37];
	bool desired;
	/* Where it takes tunnels, "host:port" each; the first one stands for
	 * the proxy. */
	char **addrs;
	unsigned addr_count;
	char *region;
	char *zone;
};

struct fleet {
	unsigned refs;
	struct fleet_proxy *proxies; /* by id */
	size_t count;
	size_t desired; /* how many are */
	struct strategy
		strategy; /* in force; with different counts the largest */
	/* How new the list is; revision 0: the proxy could not tell. */
	char store_id[64];
	uint64_t revision;
	/* Those with an address, by it: who share one stand behind one name. */
	const struct fleet_proxy **by_addr;
	size_t addr_count;
};

/* Copies. Gives one reference. */
struct fleet *fleet_new(const struct discovery *discovery);
struct fleet *fleet_ref(struct fleet *fleet);
/* NULL is fine. */
void fleet_unref(struct fleet *fleet);

/* NULL: not in the list. */
const struct fleet_proxy *fleet_find(const struct fleet *fleet, const char *id);
/* One with that address; NULL: none. */
const struct fleet_proxy *fleet_at(const struct fleet *fleet, const char *addr);
/* Whether b is to be believed, by one who has a (may be NULL): not older than
 * a of the same store, and not the word of a proxy without knowledge. */
bool fleet_is_news(const struct fleet *a, const struct fleet *b);

/* text as "host:port", "[v6]:port"; as it is when it is neither. */
void fleet_address(
	const char *text, uint16_t default_port, char *out, size_t size);
