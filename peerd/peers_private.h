/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The table of peers from the inside, for peers.c (life and state) and
 * peers_text.c (metrics) alone.
 */

#include <sys/queue.h>

#include "peerd/health.h"
#include "peerd/peers.h"
#include "peerd/ping.h"
#include "shared/sock.h"

struct peer {
	TAILQ_ENTRY(peer) entry;
	struct peers *peers;
	char id[37];
	char hostname[256];
	char addr[SOCK_ADDR_MAX];
	bool draining;
	bool seen; /* in the records that are being read */
	bool near; /* of our own region */
	char group[64];
	struct channel *channel;
	struct tally *tally;
	struct health health;
	struct ping *ping;	/* under way */
	struct timer *ping_due; /* the next one */
};

struct peers {
	struct peerd *peerd;
	TAILQ_HEAD(, peer) list;
	bool overflow_logged;
};

/* What an operator is told, and what orders dials. */
enum peer_state {
	PEER_CONNECTING,
	PEER_READY,
	PEER_DEGRADED,
	PEER_DRAINING,
	PEER_UNREACHABLE,
	PEER_STATES,
};

enum peer_state peer_state(const struct peer *peer);
const char *peer_state_name(const struct peer *peer);
