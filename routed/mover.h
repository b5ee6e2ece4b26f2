/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Asks agents of this host to have their tunnel at another, when it holds more
 * than its share of what those hold that it is compared with (rebalance.h).
 */

#include <stdbool.h>
#include <stdint.h>

struct mover;
struct routed;

/* Looks from time to time, by itself. Borrows routed. */
struct mover *mover_new(struct routed *routed);
void mover_free(struct mover *mover);

/* More than its share is held, and agents are asked. */
bool mover_is_active(const struct mover *mover);
