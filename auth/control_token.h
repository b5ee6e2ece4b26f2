/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The verbs about join tokens; of struct ctl_verb. */

#include "auth/authd.h"
#include "shared/ctl.h"

void control_token_add(struct ctl_call *call, void *auth, json_t *args);
void control_token_list(struct ctl_call *call, void *auth, json_t *args);
void control_token_remove(struct ctl_call *call, void *auth, json_t *args);
