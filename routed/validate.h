/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peerctl's `validate`: whether the cache is what authd has. A fresh snapshot
 * of all records, by a watch of its own that ends with it, goes into a file of
 * the cache's own kind, and the two are compared.
 *
 *   IDLE --validate_start()--> GATHERING --last part--> compared, answered,
 * IDLE GATHERING --call ended, VALIDATE_MS over--> failed, IDLE
 */

#include "shared/ctl.h"

/* For the snapshot. */
#define VALIDATE_MS 10000

struct routed;
struct validate;

struct validate *validate_new(struct routed *routed);
/* Fails what is under way; while the links are there. NULL is fine. */
void validate_free(struct validate *validate);

/* Takes the call and answers it:
 * {"backend": {"store_id", "revision"}, "cache": {"path", "store_id",
 * "revision"}, "differences": [{"kind", "record", ...}],
 * "tunnels": {"cache": [...], "routed": [...]}}. One at a time. */
void validate_start(struct validate *validate, struct ctl_call *call);
