/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* peerctl's questions to peerd, and other proxies' (docs/protocol.md). */

#include "peerd/peerd.h"
#include "shared/ctl.h"

/* Once per process, before worker_links_new(). */
void control_serve(struct peerd *peerd);

/* What other proxies may ask: verbs that change nothing and answer before they
 * return. For ctl_run(), with the struct peerd as argument. */
extern const struct ctl_verb control_mesh_verbs[];
