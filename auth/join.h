/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The methods Join and Renew: how a host gets its certificate. */

#include "auth/authd.h"
#include "auth/host.h"

/* Of struct rpc_method. */
void join_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
void renew_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);

/* Issues and answers; takes neither. False, with the call answered too, when no
 * certificate could be made. */
bool join_answer(struct authd *auth, struct rpc_server_call *call,
	const struct host *host, EVP_PKEY *key);
