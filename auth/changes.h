/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Keys and values of the store on their way into a message to watchers. */

#include "auth.pb-c.h"

struct changes {
	Peerway__Auth__Change *items; /* own what is in them */
	Peerway__Auth__Change **list; /* lent to a message */
	size_t count;
	size_t room;
	size_t bytes; /* of keys and values, about */
};

/* value NULL: deleted. What is none of a watcher's business is left out. */
void changes_add(struct changes *changes, const char *key, const uint8_t *value,
	size_t len, uint64_t revision);
/* Into response, which borrows them until changes_clear(). */
void changes_lend(
	struct changes *changes, Peerway__Auth__WatchResponse *response);
/* Empty, and usable again; holds no memory. */
void changes_clear(struct changes *changes);
