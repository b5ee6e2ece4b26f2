/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Dials of peers for agents whose tunnels end on this host: a socketpair, one
 * end to the tunnel's worker, the other to the peer's stream. One hop: what a
 * peer asks for is never asked of another peer.
 */

#include "peerd/server.h"

/* So many peers' dials may wait for workers at once; further ones get status
 * RESOURCE_EXHAUSTED. */
#define SERVES_MAX 4096

struct serves;

struct serves *serves_new(struct peerd *peerd);
/* None may be waiting. */
void serves_free(struct serves *serves);
/* Gives up those that wait for a worker. */
void serves_cancel_all(struct serves *serves);

/* For server_new(), with the struct serves as its arg. */
extern const struct server_ops serves_ops;
