/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The method Watch: everything below pub/, first as a snapshot unless the
 * caller can resume, then change by change.
 *
 *   SNAPSHOT --last part sent--> CATCHING UP   (resumed: CATCHING UP at once)
 *   CATCHING UP --as far as all others--> FOLLOWING --too slow--> CATCHING UP
 *      any --caller gone, too slow, store away--> ended
 *
 * CATCHING UP is a feed of its own, FOLLOWING the common one.
 *
 * While more than WATCH_HIGH bytes wait for a caller, nothing is read for it;
 * it goes on below WATCH_LOW. A caller that takes nothing for WATCH_STALL_MS is
 * dropped with RESOURCE_EXHAUSTED.
 */

#include "auth/authd.h"

#define WATCH_HIGH (1 << 20)
#define WATCH_LOW (256 << 10)
#define WATCH_STALL_MS 30000
/* Of one proxy at once: the oldest gives way. */
#define WATCH_PER_CALLER 4

/* Of struct rpc_method. */
void watch_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
/* Ends all of them: authd stops. */
void watch_end_all(struct authd *auth);
