/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes questions on and answers back. Owns what it needs to find the asker
 * again: the link's id and the question's.
 *
 * What is easily got wrong: peerd is not told more than fits into one message,
 * and an agent_mesh fleet has a record per proxy; so an answer that is too long
 * is cut, which costs peerd candidates but never the answer.
 */

#include <errno.h>
#include <stdlib.h>

#include "auth.pb-c.h"
#include "routed/forward.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define SERVICE "/peerway.auth.AuthService/"
#define LOOKUP_MS 2000
#define JOIN_MS 10000

struct forward {
	struct session *session;
	struct links *links;
	unsigned under_way;
};

struct question {
	struct forward *forward;
	uint64_t link;
	uint64_t id; /* the asker's own */
};

struct forward *forward_new(struct session *session)
{
	struct forward *forward = xcalloc(1, sizeof(*forward));

	forward->session = session;
	return forward;
}

void forward_set_links(struct forward *forward, struct links *links)
{
	forward->links = links;
}

void forward_free(struct forward *forward)
{
	free(forward);
}

/* The channel, or NULL and the status and text of a refusal. */
static struct rpc_channel *channel_for(
	struct forward *forward, int *status_out, const char **why_out)
{
	struct rpc_channel *channel = session_channel(forward->session);

	if (!channel) {
		*status_out = GRPC_STATUS_UNAVAILABLE;
		*why_out = "no auth server can be reached";
	} else if (forward->under_way >= FORWARD_MAX) {
		*status_out = GRPC_STATUS_RESOURCE_EXHAUSTED;
		*why_out = "too many questions to the auth server at once";
		channel = NULL;
	}
	return channel;
}

static struct question *question_new(
	struct forward *forward, uint64_t link, uint64_t id)
{
	struct question *question = xcalloc(1, sizeof(*question));

	question->forward = forward;
	question->link = link;
	question->id = id;
	forward->under_way++;
	return question;
}

static void question_free(struct question *question)
{
	question->forward->under_way--;
	free(question);
}

/* ---- lookup ---- */

static void fail_lookup(
	struct forward *forward, uint64_t link, uint64_t id, const char *why)
{
	Peerway__Ipc__LookupReply reply = PEERWAY__IPC__LOOKUP_REPLY__INIT;

	reply.id = id;
	reply.error = (char *)why;
	links_send(forward->links, link, IPC_LOOKUP_REPLY, &reply.base);
}

static void on_looked_up(void *arg, int status, const char *message,
	const ProtobufCMessage *base)
{
	const Peerway__Auth__LookupResponse *response = (const void *)base;
	Peerway__Ipc__LookupReply reply = PEERWAY__IPC__LOOKUP_REPLY__INIT;
	struct question *question = arg;
	struct forward *forward = question->forward;

	if (status != GRPC_STATUS_OK) {
		fail_lookup(forward, question->link, question->id,
			message[0] ? message : "lookup failed");
		question_free(question);
		return;
	}
	reply.id = question->id;
	reply.revision = response->revision;
	reply.tunnels = response->tunnels;
	reply.n_tunnels = response->n_tunnels;
	while (links_send(forward->links, question->link, IPC_LOOKUP_REPLY,
		       &reply.base) == -EMSGSIZE &&
		reply.n_tunnels > 0)
		reply.n_tunnels /= 2;
	question_free(question);
}

void forward_lookup(struct forward *forward, uint64_t link,
	const Peerway__Ipc__Lookup *lookup)
{
	Peerway__Auth__LookupRequest request =
		PEERWAY__AUTH__LOOKUP_REQUEST__INIT;
	const char *why;
	int status;
	struct rpc_channel *channel = channel_for(forward, &status, &why);

	if (!channel) {
		fail_lookup(forward, link, lookup->id, why);
		return;
	}
	request.agent_id = lookup->agent_id;
	rpc_unary(channel, SERVICE "Lookup", &request.base,
		&peerway__auth__lookup_response__descriptor, LOOKUP_MS,
		on_looked_up, question_new(forward, link, lookup->id));
}

/* ---- join, renew ---- */

static void fail_join(struct forward *forward, uint64_t link, uint64_t id,
	int status, const char *why)
{
	Peerway__Ipc__JoinReply reply = PEERWAY__IPC__JOIN_REPLY__INIT;

	reply.id = id;
	reply.status = (uint32_t)status;
	reply.error = (char *)why;
	links_send(forward->links, link, IPC_JOIN_REPLY, &reply.base);
}

static void on_join_answered(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	Peerway__Ipc__JoinReply reply = PEERWAY__IPC__JOIN_REPLY__INIT;
	struct question *question = arg;
	struct forward *forward = question->forward;
	size_t size;

	if (status != GRPC_STATUS_OK) {
		fail_join(
			forward, question->link, question->id, status, message);
		question_free(question);
		return;
	}
	size = protobuf_c_message_get_packed_size(response);
	reply.id = question->id;
	reply.response.data = xcalloc(1, size + 1);
	reply.response.len = size;
	protobuf_c_message_pack(response, reply.response.data);
	if (links_send(forward->links, question->link, IPC_JOIN_REPLY,
		    &reply.base) == -EMSGSIZE)
		fail_join(forward, question->link, question->id,
			GRPC_STATUS_INTERNAL, "the answer is too long");
	free(reply.response.data);
	question_free(question);
}

static const struct {
	const char *method;
	const ProtobufCMessageDescriptor *request;
} join_calls[] = {
	{SERVICE "Join", &peerway__auth__join_request__descriptor},
	{SERVICE "Renew", &peerway__auth__renew_request__descriptor},
};

void forward_join(
	struct forward *forward, uint64_t link, const Peerway__Ipc__Join *join)
{
	const char *why = "the request is malformed";
	int status = GRPC_STATUS_INVALID_ARGUMENT;
	ProtobufCMessage *request =
		protobuf_c_message_unpack(join_calls[join->renew].request, NULL,
			join->request.len, join->request.data);
	struct rpc_channel *channel =
		request ? channel_for(forward, &status, &why) : NULL;

	if (channel)
		rpc_unary(channel, join_calls[join->renew].method, request,
			&peerway__auth__join_response__descriptor, JOIN_MS,
			on_join_answered,
			question_new(forward, link, join->id));
	else
		fail_join(forward, link, join->id, status, why);
	if (request)
		protobuf_c_message_free_unpacked(request, NULL);
}
