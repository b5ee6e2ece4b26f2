/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peerctl's questions: status, ls, routes, proxies. Answered from the cache
 * and from what the parts say of themselves; from authd only validate.
 */

#include "shared/ctl.h"

/* For ctl_serve(), with the struct routed as argument. */
extern const struct ctl_verb control_verbs[];
