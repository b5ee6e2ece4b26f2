/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A worker that is to lose its work: make before break. Its host's record says
 * draining, so agents open tunnels elsewhere and then leave by themselves;
 * until then their tunnels here serve as before. Clients that come are served
 * too, for as long as somebody listens.
 *
 *   SERVING --begin--> DRAINING --empty, or the time is over--> DRAINED
 *      ^                  |                                        |
 *      +----- cancel -----+----------------------------------------+
 *
 *   stop: the listeners are closed, there is no way back, and DRAINED ends the
 *   worker. It need not be empty of tunnels: those whose agents are reachable
 *   elsewhere are no reason to wait, nor are any when no other proxy serves.
 *
 * When the time is over, what is left is cut.
 */

#include <stdbool.h>
#include <stdint.h>

struct drain;
struct worker;

/* Borrows worker. */
struct drain *drain_new(struct worker *worker);
void drain_free(struct drain *drain);

/* timeout_ms from now; no effect while it is on. */
void drain_begin(struct drain *drain, uint32_t timeout_ms);
/* No effect once it stops. */
void drain_cancel(struct drain *drain);
/* Begins if need be; the worker's loop is stopped at the end. The time that is
 * left of a drain under way holds. */
void drain_stop(struct drain *drain, uint32_t timeout_ms);

/* The time is over now. */
void drain_hurry(struct drain *drain);

/* DRAINING or DRAINED. */
bool drain_is_on(const struct drain *drain);
