/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The gRPC service of proto/auth.proto: which method is whose, by role. */

#include "auth/authd.h"

/* Listens. False and *error_out (gives) when it cannot. */
bool service_start(struct authd *auth, char **error_out);
/* Ends watches and calls, then done(auth). */
void service_stop(struct authd *auth, void (*done)(void *auth));
