/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One /proto.ProxyService/Ping to a peer: whether it answers and how fast. Also
 * the way to learn why a peer cannot be reached, which gRPC tells to calls
 * alone.
 */

#include <grpc/grpc.h>
#include <stdint.h>

#include "peerd/channel.h"

#define PING_LIMIT_MS 5000

struct ping;

struct ping_answer {
	grpc_status_code status; /* UNIMPLEMENTED: an older peer, alive */
	const char *text;	 /* of the status */
	int64_t rtt_us;
};

/* Holds the channel until the answer is here, at most PING_LIMIT_MS. on_answer
 * once, on the loop's thread, unless cancelled before. */
struct ping *ping_start(struct channel *channel,
	void (*on_answer)(void *arg, const struct ping_answer *answer),
	void *arg);
/* No answer follows. NULL is fine. */
void ping_cancel(struct ping *ping);
