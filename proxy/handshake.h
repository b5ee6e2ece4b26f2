/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Accepted connections until their TLS handshake is done: then each becomes a
 * client or a tunnel, by what its ALPN chose, and is forgotten here.
 *
 *   accepted --ClientHello--> client ----------------------------> handed on
 *                   |
 *                   +--tunnel--> admitted --waits for its turn---> handed on
 *                          +---> refused: comes back in so many seconds
 *
 * Of those not known to be agents at most max_handshakes at once, of agents at
 * most max_tunnel_handshakes, each for at most handshake_timeout: this is all
 * that somebody without a certificate can make a worker hold. And of one turn
 * of the loop handshakes take a millisecond, so that everybody who is in
 * already is served between them; clients' come before agents'.
 */

#include <stdbool.h>

#include "shared/sock.h"

struct handshakes;
struct worker;

struct handshakes *handshakes_new(struct worker *worker);
/* max_tunnel_handshakes is another; what is under way goes on. */
void handshakes_set_bound(struct worker *worker);
/* Drops all; NULL is fine. */
void handshakes_free(struct handshakes *handshakes);

/* Takes fd. tunnels_only: 3024. */
void handshake_start(struct worker *worker, int fd,
	const struct sock_addr *from, bool tunnels_only);
bool handshake_has_room(const struct worker *worker);
