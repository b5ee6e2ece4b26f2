/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One accepted connection until its TLS handshake is done: then it becomes a
 * client or a tunnel, by what its ALPN chose, and is forgotten here.
 *
 * At most max_handshakes at once, each for at most handshake_timeout: this is
 * all that somebody without a certificate can make a worker hold.
 */

#include <stdbool.h>

#include "shared/sock.h"

struct handshake;
struct worker;

/* Takes fd. tunnels_only: 3024. */
void handshake_start(struct worker *worker, int fd,
	const struct sock_addr *from, bool tunnels_only);
bool handshake_has_room(const struct worker *worker);
/* Drops all, at the end of a worker. */
void handshake_drop_all(struct worker *worker);
