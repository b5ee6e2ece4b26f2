/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The one place that decides who may reach what. Every dial for a client asks
 * here after its target is known and before anything is opened for it.
 *
 * There are no rules yet: whoever the user CA names may reach every service,
 * and a plain TCP client that its listener's allow_from let in may reach that
 * listener's target.
 */

#include <stdbool.h>

#include "shared/identity.h"
#include "shared/target.h"

struct access_request {
	const struct user_identity
		*user;	   /* of a verified certificate, or NULL */
	bool allowed_from; /* came through a tcp_listener's allow_from */
	const struct target_match *target;
};

/* *reason_out: a static text when it is refused. */
bool access_is_allowed(
	const struct access_request *request, const char **reason_out);
