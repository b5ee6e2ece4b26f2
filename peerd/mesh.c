/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to another proxy: see mesh.h. mesh_serve.c is the other end. */
#include "peerd/mesh.h"

#include <grpc/byte_buffer.h>
#include <stdlib.h>

#include "mesh.pb-c.h"
#include "shared/rpc.h"

struct unary *mesh_ask(struct channel *channel, const char *verb,
	const json_t *args,
	void (*on_answer)(void *arg, const struct unary_answer *answer),
	void *arg)
{
	Peerway__AskRequest request = PEERWAY__ASK_REQUEST__INIT;
	struct unary_setup setup = {
		.method = PEERD_METHOD_ASK,
		.limit_ms = MESH_LIMIT_MS,
		.on_answer = on_answer,
		.arg = arg,
	};
	char *text = args ? json_dumps(args, JSON_COMPACT) : NULL;
	struct unary *unary = NULL;

	request.verb = (char *)verb;
	if (text)
		request.args = text;
	if (peerway__ask_request__get_packed_size(&request) <=
		MESH_REQUEST_MAX) {
		setup.message = rpc_pack(&request.base);
		unary = unary_start(channel, &setup);
		grpc_byte_buffer_destroy(setup.message);
	}
	free(text);
	return unary;
}

json_t *mesh_answer(const struct unary_answer *answer, const char **why_out)
{
	Peerway__AskReply *reply;
	json_t *json;

	*why_out = answer->text;
	if (answer->status == GRPC_STATUS_UNIMPLEMENTED)
		*why_out = "it cannot be asked: not a proxy of Peerway, or an "
			   "older one";
	if (answer->status != GRPC_STATUS_OK || !answer->received)
		return NULL;
	*why_out = "its answer cannot be read";
	reply = (void *)rpc_unpack(
		&peerway__ask_reply__descriptor, answer->received);
	if (!reply)
		return NULL;
	json = json_loads(reply->json, JSON_DECODE_ANY, NULL);
	peerway__ask_reply__free_unpacked(reply, NULL);
	return json;
}
