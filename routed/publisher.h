/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Tells authd what publish.h says is to be told, one batch at a time, and ends
 * the lease before this one when all has been told under the new: no record of
 * a live tunnel is ever missing in between.
 */

#include <stdbool.h>

#include "routed/publish.h"
#include "routed/session.h"

struct publisher;

/* Borrows all; record, set later, is this host's own. */
struct publisher *publisher_new(
	struct loop *loop, struct session *session, struct publish *publish);
void publisher_free(struct publisher *publisher);

/* Nothing is published before both are there: the host's record (takes), and
 * the word that the workers which are there have told their tunnels. */
void publisher_set_record(
	struct publisher *publisher, Peerway__Record__ProxyRecord *record);
/* What the record says of the host: that it takes nothing new, or serves. */
void publisher_set_draining(struct publisher *publisher, bool draining);
bool publisher_has_record(const struct publisher *publisher);
void publisher_set_synced(struct publisher *publisher);

/* Something in publish has changed. Gathers for a moment. */
void publisher_poke(struct publisher *publisher);

/* With the session's events of these names. */
void publisher_on_lease(struct publisher *publisher);
void publisher_on_open(struct publisher *publisher);
