/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Questions of this host's processes that only authd can answer: peerd's
 * LOOKUP, agents' joins and renewals through a worker. Each is answered within
 * its deadline, with an error when no auth server is at hand; at most
 * FORWARD_MAX are under way.
 */

#include "routed/links.h"
#include "routed/session.h"

#define FORWARD_MAX 512

struct forward;

/* Borrows both. */
struct forward *forward_new(struct session *session);
/* Links, to which late errors go, is set before the first question. */
void forward_set_links(struct forward *forward, struct links *links);
void forward_free(struct forward *forward);

void forward_lookup(struct forward *forward, uint64_t link,
	const Peerway__Ipc__Lookup *lookup);
void forward_join(
	struct forward *forward, uint64_t link, const Peerway__Ipc__Join *join);
