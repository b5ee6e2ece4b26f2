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

/* Writes the host down, with the CA that is about to sign, if nobody else has
 * since mod_revision (0: it was not there). */
void join_store(struct authd *auth, struct host *host, uint64_t mod_revision,
	backend_txn_done *done, void *arg);
/* Issues and answers; takes neither. False, with the call answered too, when no
 * certificate could be made, or another CA signs now than is in host. */
bool join_answer(struct authd *auth, struct rpc_server_call *call,
	const struct host *host, EVP_PKEY *key);
