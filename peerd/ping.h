/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One /proto.ProxyService/Ping to a peer: whether it answers and how fast. Also
 * the way to learn why a peer cannot be reached, which gRPC tells to calls
 * alone.
 */

#include "peerd/unary.h"

#define PING_LIMIT_MS 5000

/* As unary_start(). Status UNIMPLEMENTED: an older peer, alive. */
struct unary *ping_start(struct channel *channel,
	void (*on_answer)(void *arg, const struct unary_answer *answer),
	void *arg);
