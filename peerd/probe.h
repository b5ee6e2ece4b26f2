/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Why a peer cannot be reached: gRPC says so only to calls, so a Ping is sent
 * that fails at once. The text goes to the channel and to the log.
 */

#include "peerd/channel.h"

/* Holds the channel until the answer is here, at most PROBE_MS. */
#define PROBE_MS 6000
void probe_start(struct channel *channel);
