/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves peers: see serve.h. Between the server (which owns the call) and the
 * worker (which owns the tunnel); owns our end of the socketpair meanwhile.
 */
#include "peerd/serve.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "peerd/connection_id.h"
#include "peerd/listener.h"
#include "peerd/refusal.h"
#include "peerd/switchboard.h"
#include "shared/alloc.h"
#include "shared/sock.h"

struct serve {
	TAILQ_ENTRY(serve) entry;
	struct serves *serves;
	uint64_t call; /* server.h's id */
	uint64_t ask;
	int fd; /* our end */
};

struct serves {
	struct peerd *peerd;
	TAILQ_HEAD(, serve) waiting;
	unsigned count;
};

struct serves *serves_new(struct peerd *peerd)
{
	struct serves *serves = xcalloc(1, sizeof(*serves));

	serves->peerd = peerd;
	TAILQ_INIT(&serves->waiting);
	return serves;
}

static void serve_end(struct serve *serve)
{
	struct serves *serves = serve->serves;

	TAILQ_REMOVE(&serves->waiting, serve, entry);
	serves->count--;
	if (serve->fd >= 0)
		close(serve->fd);
	loop_free_later(serves->peerd->loop, free, serve);
}

void serves_cancel_all(struct serves *serves)
{
	struct serve *serve;

	while ((serve = TAILQ_FIRST(&serves->waiting))) {
		asks_cancel(serves->peerd->switchboard->asks, serve->ask);
		server_refuse(serves->peerd->server, serve->call,
			GRPC_STATUS_UNAVAILABLE, "offline",
			"this proxy is stopping");
		serve_end(serve);
	}
}

void serves_free(struct serves *serves)
{
	free(serves);
}

static void on_answer(void *arg, const struct ask_answer *answer)
{
	struct serve *serve = arg;
	struct server *server = serve->serves->peerd->server;

	if (answer->code == PEERWAY__IPC__DIAL_CODE__DIAL_CODE_NONE) {
		int fd = serve->fd;

		serve->fd = -1;
		server_accept(server, serve->call, fd, answer->worker);
	} else {
		server_refuse(server, serve->call, refusal_status(answer->code),
			refusal_word(answer->code), answer->message);
	}
	serve_end(serve);
}

/* Asks the worker of the tunnel; takes fd, its end of the pair. 0: it cannot
 * be asked. */
static uint64_t ask_worker(struct serve *serve, const struct server_dial *from,
	const struct tunnel_entry *tunnel, int fd)
{
	struct peerd *peerd = serve->serves->peerd;
	Peerway__Ipc__Dial dial = PEERWAY__IPC__DIAL__INIT;
	char service[IDENTITY_NAME_MAX];
	uint32_t port;

	request_service(
		from->request->destination, service, sizeof(service), &port);
	dial.connection_id.data = (uint8_t *)from->connection_id;
	dial.connection_id.len = CONNECTION_ID_SIZE;
	dial.agent_id = tunnel->record->agent_id;
	dial.service = service;
	dial.port = port;
	dial.type = (char *)from->request->type;
	dial.source = (char *)from->request->source;
	dial.user = (char *)from->user;
	dial.deadline_ms = peerd->conf->proxy.dial_timeout;
	dial.from_peer = true;
	return asks_start(peerd->switchboard->asks, tunnel->link, &dial, fd,
		on_answer, serve);
}

/* NULL, or why there is none. */
static const char *make_pair(const struct serves *serves, int pair[2])
{
	if (serves->count >= SERVES_MAX)
		return "too many dials wait for this proxy's agents";
	if (sock_pair(pair) < 0)
		return "this proxy is out of descriptors";
	if (!listener_needs_fd(pair[1]))
		return NULL;
	close(pair[0]);
	close(pair[1]);
	return "this proxy is out of descriptors";
}

static void begin(struct serves *serves, uint64_t call,
	const struct server_dial *from, const struct tunnel_entry *tunnel)
{
	struct server *server = serves->peerd->server;
	struct serve *serve;
	const char *why;
	int pair[2];

	why = make_pair(serves, pair);
	if (why) {
		server_refuse(server, call, GRPC_STATUS_RESOURCE_EXHAUSTED,
			"offline", why);
		return;
	}
	serve = xcalloc(1, sizeof(*serve));
	serve->serves = serves;
	serve->call = call;
	serve->fd = pair[0];
	TAILQ_INSERT_TAIL(&serves->waiting, serve, entry);
	serves->count++;
	serve->ask = ask_worker(serve, from, tunnel, pair[1]);
	if (!serve->ask) {
		server_refuse(server, call, GRPC_STATUS_UNAVAILABLE, "offline",
			"the worker that held the tunnel has gone");
		serve_end(serve);
	}
}

static void on_dial(void *arg, uint64_t call, const struct server_dial *dial)
{
	struct serves *serves = arg;
	struct peerd *peerd = serves->peerd;
	const struct request *request = dial->request;
	const struct tunnel_entry *tunnel =
		tunnels_find(peerd->switchboard->tunnels, request->agent_id);
	char service[IDENTITY_NAME_MAX];
	const char *type = request->type[0] ? request->type : "node";
	uint32_t port;
	char *text;

	if (!tunnel ||
		strcmp(request->cluster, peerd->conf->cluster_name) != 0) {
		text = xasprintf("no %.32s reverse tunnel for %.300s found",
			type, request->node_id);
		server_refuse(peerd->server, call, GRPC_STATUS_UNAVAILABLE,
			"offline", text);
		free(text);
	} else if (!request_service(request->destination, service,
			   sizeof(service), &port)) {
		text = xasprintf("no service of the agent can be called \"%.64s"
				 "\"",
			request->destination);
		server_refuse(peerd->server, call, GRPC_STATUS_UNAVAILABLE,
			"not-found", text);
		free(text);
	} else {
		begin(serves, call, dial, tunnel);
	}
}

static void on_gone(void *arg, uint64_t call)
{
	struct serves *serves = arg;
	struct serve *serve;

	TAILQ_FOREACH (serve, &serves->waiting, entry) {
		if (serve->call == call) {
			asks_cancel(
				serves->peerd->switchboard->asks, serve->ask);
			serve_end(serve);
			return;
		}
	}
}

const struct server_ops serves_ops = {
	.on_dial = on_dial,
	.on_gone = on_gone,
};
