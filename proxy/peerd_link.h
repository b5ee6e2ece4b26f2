/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The worker's link to peerd: tunnels go out, dials go both ways. */

#include "shared/ipc_link.h"

struct worker;

/* Connects, and again whenever it is lost; sets worker->peerd. */
void peerd_link_start(struct worker *worker, const struct ipc_self *self);
