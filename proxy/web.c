/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that are answered here. Talks to routed by IPC_JOIN. What a newcomer
 * gets wrong: a proxy that passes a join on learns nothing it could use: the
 * key stays with the agent, and a renewal proves the old key to authd.
 */
#include <stdlib.h>
#include <string.h>

#include "proxy/answer.h"
#include "proxy/client.h"
#include "proxy/discover.h"
#include "proxy/join.h"
#include "proxy/web.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

static void serve_find(struct client *client)
{
	client_answer(client,
		answer_text(200, "application/json",
			discover_find(client->worker->discover)),
		false);
}

static void pass_on(struct client *client, bool renew)
{
	struct worker *worker = client->worker;
	Peerway__Ipc__Join message = PEERWAY__IPC__JOIN__INIT;
	const char *reason = NULL;
	const uint8_t *body;
	size_t len;
	int ret;

	body = http_body(client->request, &len);
	message.request.data = join_request_pack(
		renew, body, len, &message.request.len, &reason);
	if (!message.request.data) {
		client_refuse(client, 400, "%s", reason);
		return;
	}
	message.id = ++worker->last_id;
	message.renew = renew;
	ret = ipc_link_send(worker->routed, IPC_JOIN, &message.base, -1);
	wipe(message.request.data, message.request.len);
	free(message.request.data);
	if (ret)
		client_refuse(client, 503, "routed is not reachable");
	else
		client_ask(client, message.id);
}

static void serve_join(struct client *client)
{
	pass_on(client, false);
}

static void serve_renew(struct client *client)
{
	pass_on(client, true);
}

static const struct {
	const char *method;
	const char *path;
	bool agents_only;
	void (*serve)(struct client *client);
} requests[] = {
	{"GET", "/webapi/find", false, serve_find},
	{"POST", "/v1/agent/join", true, serve_join},
	{"POST", "/v1/agent/renew", true, serve_renew},
};

void web_serve(struct client *client)
{
	const char *path = http_target(client->request);
	size_t len = strcspn(path, "?");
	bool path_known = false;

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		if (strlen(requests[i].path) != len ||
			strncmp(requests[i].path, path, len) != 0)
			continue;
		path_known = true;
		if (strcmp(requests[i].method, http_method(client->request)) !=
			0)
			continue;
		if (requests[i].agents_only && client->kind != TRUST_AGENT)
			client_refuse(
				client, 403, "only with ALPN " TLS_ALPN_AGENT);
		else
			requests[i].serve(client);
		return;
	}
	if (path_known)
		client_refuse(client, 405, "not with this method");
	else
		client_refuse(client, 404, "nothing is here");
}

void web_handle_join_reply(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__JoinReply *reply =
		(Peerway__Ipc__JoinReply *)msg->payload;
	struct client *client =
		reply->id ? client_asking(arg, reply->id) : NULL;
	char *json;

	if (!client)
		return;
	if (reply->status) {
		client_refuse(client, join_http_status(reply->status), "%s",
			reply->error);
		return;
	}
	json = join_response_to_json(reply->response.data, reply->response.len);
	if (!json) {
		client_refuse(client, 502, "the auth server's answer is torn");
		return;
	}
	log_info("agent got its certificate: source=%s", client->source);
	client_answer(
		client, answer_text(200, "application/json", json), false);
	free(json);
}

void web_routed_lost(struct worker *worker)
{
	struct client *client;

	while ((client = client_asking(worker, 0)))
		client_refuse(client, 503, "the link to routed was lost");
}
