/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Why a dial failed, in the three languages that meet in peerd: the code of a
 * local message, the gRPC status the reference would give, and our word in the
 * trailer that tells apart what the reference folds into UNAVAILABLE. Pure.
 */

#include <grpc/status.h>
#include <stdbool.h>

#include "ipc.pb-c.h"

/* For a peer that asked. */
grpc_status_code refusal_status(Peerway__Ipc__DialCode code);
/* NULL for a code without a word. */
const char *refusal_word(Peerway__Ipc__DialCode code);

/* From a peer that was asked; word may be NULL (the reference's peers). */
Peerway__Ipc__DialCode refusal_code(grpc_status_code status, const char *word);

/* Whether another holder of the agent may succeed where one failed so. */
bool refusal_may_retry(Peerway__Ipc__DialCode code);
