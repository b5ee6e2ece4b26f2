/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The verb about users; of struct ctl_verb. */

#include "auth/authd.h"
#include "shared/ctl.h"

void control_identity_issue(struct ctl_call *call, void *auth, json_t *args);
