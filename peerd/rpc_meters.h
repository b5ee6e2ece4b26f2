/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The calls between proxies, counted under the reference's names: how many are
 * under way, how they ended and after what time, the sizes of their messages.
 * Calls of unknown methods are not counted, whose names are the caller's, nor
 * are our own questions (mesh.h).
 *
 * All of it from any thread.
 */

#include <grpc/status.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/histogram.h"

enum rpc_side { RPC_CLIENT, RPC_SERVER, RPC_SIDES };
enum rpc_kind { RPC_DIAL, RPC_PING, RPC_KINDS };

#define RPC_CODES (GRPC_STATUS_UNAUTHENTICATED + 1)

/* One side of one method. Sent and received are different threads' much of the
 * time, so they share no cache line. */
struct rpc_meter {
	_Alignas(64) struct histogram sent;
	_Alignas(64) struct histogram received;
	_Alignas(64) struct histogram seconds[RPC_CODES];
	_Atomic int64_t running;
};

struct rpc_meters {
	struct rpc_meter meters[RPC_SIDES][RPC_KINDS];
};

struct rpc_meter *rpc_meter(
	struct rpc_meters *meters, enum rpc_side side, enum rpc_kind kind);

/* A message has been sent, or received: its length with our framing. */
void rpc_meter_sent(struct rpc_meter *meter, size_t len);
void rpc_meter_received(struct rpc_meter *meter, size_t len);

/* One call, embedded in whatever owns it. */
struct rpc_span {
	struct rpc_meter *meter; /* stays when the span has ended */
	int64_t started_us;	 /* 0: not counted, or no more */
};

void rpc_span_start(struct rpc_span *span, struct rpc_meter *meter);
/* Counts the first time only. */
void rpc_span_end(struct rpc_span *span, grpc_status_code status);

/* Prometheus text. */
void rpc_meters_text(const struct rpc_meters *meters, FILE *out);
