/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The table of peers from the inside, for peers.c (life and state),
 * peers_text.c (metrics) and peers_ask.c (names, duplicate addresses) alone.
 */

#include <sys/queue.h>

#include "peerd/duplicates.h"
#include "peerd/line.h"
#include "peerd/peers.h"
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
	struct line *lines[CONF_PEER_CONNECTIONS_MAX];
	unsigned line_count;
	struct health past; /* pings of lines that are gone */
	struct tally *tally;
	int state;     /* enum peer_state when last looked at */
	int64_t since; /* loop_now() of its last change */
};

struct peers {
	struct peerd *peerd;
	TAILQ_HEAD(, peer) list;
	bool overflow_logged;
	json_t *duplicates; /* NULL: none seen yet */
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
/* Over all lines: the sums of pings; the latency of the fastest. */
struct health peer_health(const struct peer *peer);
/* peers_ask.c: every record that takes part, our own too. Sorts adverts. */
void peers_note_duplicates(
	struct peers *peers, struct advert *adverts, size_t count);
