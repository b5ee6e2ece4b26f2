/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* peerctl's questions to peerd: `status`, `tunnels` (docs/protocol.md). */

#include "peerd/peerd.h"

/* Once per process, before worker_links_new(). */
void control_serve(struct peerd *peerd);
