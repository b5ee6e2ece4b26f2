/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The worker's link to routed: tunnels and joins go out; cache, certificate and
 * the joins' answers come in.
 */

#include "shared/ipc_link.h"

struct worker;

/* Connects, and again whenever it is lost; sets worker->routed. */
void routed_link_start(struct worker *worker, const struct ipc_self *self);
