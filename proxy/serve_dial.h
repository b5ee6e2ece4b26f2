/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Dials that peerd sends: a client of a sibling worker or of another proxy
 * wants a tunnel that ends here. The message's descriptor is joined to a stream
 * of that tunnel.
 *
 *   WAITING --the agent says 200: DIAL_OK--> JOINED --session ends--> gone
 *      +-----refused, tunnel lost, deadline: DIAL_FAILED, or DIAL_CANCEL-->
 * gone
 */

#include "shared/ipc_link.h"

struct worker;

ipc_handler serve_dial_handle;
ipc_handler serve_dial_handle_cancel;
/* Ends those that still wait; joined ones go on without peerd. */
void serve_dial_peerd_lost(struct worker *worker);
