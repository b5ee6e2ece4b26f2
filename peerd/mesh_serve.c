/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers the questions of other proxies (peerway.Mesh/Ask): what they may ask
 * is the table in control.c, nothing of which changes anything. Owns nothing.
 *
 * A newcomer's trap: these verbs answer before they return, so a call cannot go
 * meanwhile. One that answers later would need the call's id instead.
 */
#include <stdlib.h>

#include "mesh.pb-c.h"
#include "peerd/control.h"
#include "peerd/frame.h"
#include "peerd/mesh.h"
#include "peerd/server_private.h"
#include "shared/ctl.h"
#include "shared/log.h"
#include "shared/rpc.h"

static void on_answer(void *arg, bool ok, const char *text)
{
	struct call *call = arg;
	Peerway__AskReply reply = PEERWAY__ASK_REPLY__INIT;
	grpc_byte_buffer *message;

	reply.json = (char *)text;
	if (!ok) {
		server_call_fail(call, GRPC_STATUS_INVALID_ARGUMENT, text);
	} else if (peerway__ask_reply__get_packed_size(&reply) >
		   MESH_REPLY_MAX) {
		server_call_fail(call, GRPC_STATUS_RESOURCE_EXHAUSTED,
			"the answer is too long: ask on that host");
	} else {
		message = rpc_pack(&reply.base);
		server_call_reply(call, message);
		grpc_byte_buffer_destroy(message);
	}
}

void mesh_serve(struct call *call, const uint8_t *bytes, size_t len)
{
	Peerway__AskRequest *request =
		bytes && len <= MESH_REQUEST_MAX
			? peerway__ask_request__unpack(NULL, len, bytes)
			: NULL;

	if (!request) {
		server_call_fail(call, GRPC_STATUS_INVALID_ARGUMENT,
			"not a question, or too long");
		return;
	}
	log_debug("question of a peer: peer=%s verb=%.64s", call->caller.uuid,
		request->verb);
	ctl_run(control_mesh_verbs, call->server->peerd, request->verb,
		request->args, on_answer, call);
	peerway__ask_request__free_unpacked(request, NULL);
}
