/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What other authd on the same store change: the CAs, which this one then uses
 * too, and the cluster's settings. */

#include "auth/authd.h"

/* Once this authd has its own CAs and settings in force. */
struct follow *follow_new(struct authd *auth);
/* NULL is fine. */
void follow_free(struct follow *follow);
