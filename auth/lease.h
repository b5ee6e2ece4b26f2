/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The methods by which routed keeps a proxy's records: a lease of its own, its
 * epoch, batches of records. Of struct rpc_method. */

#include "auth/authd.h"

void lease_grant_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
void lease_keepalive_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
void lease_revoke_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
void publish_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
void lookup_handle(struct rpc_server_call *call, void *auth,
	const struct host_identity *caller, const ProtobufCMessage *request);
