/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peerctl's `trace`: what a worker would do for a client that names this
 * target, done and told. The dial is a real one, by way of dial.h; the
 * connection to the service is closed as soon as it stands.
 */

#include "peerd/peerd.h"
#include "shared/ctl.h"

/* Takes the call and answers it when the dial has ended, at most dial_timeout
 * later (docs/protocol.md has the JSON). */
void trace_start(
	struct peerd *peerd, struct ctl_call *call, const char *target);
