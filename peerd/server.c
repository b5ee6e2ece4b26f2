/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC server that other proxies call: see server.h. Listens, keeps calls
 * posted for gRPC to fill, and stops in order; a call that has arrived is
 * server_call.c's.
 *
 * A newcomer's trap: posted calls are objects too. At the end gRPC gives each
 * back unfilled, and the server may be freed only after the last of them.
 */
#include <assert.h>
#include <stdlib.h>

#include "peerd/channel_args.h"
#include "peerd/idmap.h"
#include "peerd/server_private.h"
#include "shared/alloc.h"

/* Calls of each method that may arrive while the loop is busy. */
#define POSTED_CALLS 64

static void post_call(struct server *server, enum method method);

static void server_settle(struct server *server)
{
	void (*done)(void *arg) = server->on_stopped;

	if (!server->stopped || server->objects > 0 || !done)
		return;
	server->on_stopped = NULL;
	done(server->stop_arg);
}

void server_forget(struct server *server)
{
	server->objects--;
	server_settle(server);
}

static void on_accepted(struct rpc_tag *tag, bool ok)
{
	struct call *call = (struct call *)((char *)tag -
					    offsetof(struct call, accept_tag));

	call->pending--;
	if (ok) {
		post_call(call->server, call->method);
		server_call_begin(call);
	} else {
		server_call_settle(call);
	}
}

static void post_call(struct server *server, enum method method)
{
	grpc_completion_queue *queue = rpc_cq_queue(server->peerd->cq);
	grpc_call_error error;
	struct call *call;

	if (server->stopping)
		return;
	call = xcalloc(1, sizeof(*call));
	call->server = server;
	call->method = method;
	call->fd = -1;
	call->accept_tag.run = on_accepted;
	call->pending = 1;
	grpc_metadata_array_init(&call->metadata);
	server->objects++;
	if (method == METHOD_UNKNOWN) {
		grpc_call_details_init(&call->details);
		error = grpc_server_request_call(server->server, &call->call,
			&call->details, &call->metadata, queue, queue,
			&call->accept_tag);
	} else {
		error = grpc_server_request_registered_call(server->server,
			server->methods[method], &call->call, &call->deadline,
			&call->metadata, NULL, queue, queue, &call->accept_tag);
	}
	assert(error == GRPC_CALL_OK);
	(void)error;
}

/* ---- the server ---- */

static grpc_server *create(struct peerd *peerd)
{
	struct channel_args args;

	channel_args_init(&args, peerd->quota);
	channel_args_add_int(&args, GRPC_ARG_ALLOW_REUSEPORT, 0);
	/* Peers ping at least every 11 s, the reference's every 10 s. */
	channel_args_add_int(&args,
		GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
	channel_args_add_int(&args, GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
	channel_args_add_int(
		&args, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10000);
	channel_args_add_int(&args, GRPC_ARG_MAX_CONCURRENT_STREAMS, 20000);
	return grpc_server_create(&args.list, NULL);
}

static void on_stopped(struct rpc_tag *tag, bool ok)
{
	struct server *server =
		(struct server *)((char *)tag -
				  offsetof(struct server, stop_tag));

	server->stopped = true;
	server_settle(server);
}

struct server *server_new(struct peerd *peerd, const char *addr,
	const struct server_ops *ops, void *arg, char **error_out)
{
	struct server *server = xcalloc(1, sizeof(*server));
	grpc_server_credentials *creds =
		rpc_server_creds(peerd->identity, true);
	grpc_completion_queue *queue = rpc_cq_queue(peerd->cq);
	int port;

	server->peerd = peerd;
	server->ops = ops;
	server->arg = arg;
	server->calls = idmap_new();
	server->stop_tag.run = on_stopped;
	server->server = create(peerd);
	grpc_server_register_completion_queue(server->server, queue, NULL);
	server->methods[METHOD_DIAL] =
		grpc_server_register_method(server->server, PEERD_METHOD_DIAL,
			NULL, GRPC_SRM_PAYLOAD_NONE, 0);
	server->methods[METHOD_PING] =
		grpc_server_register_method(server->server, PEERD_METHOD_PING,
			NULL, GRPC_SRM_PAYLOAD_NONE, 0);
	server->methods[METHOD_ASK] =
		grpc_server_register_method(server->server, PEERD_METHOD_ASK,
			NULL, GRPC_SRM_PAYLOAD_NONE, 0);
	port = grpc_server_add_http2_port(server->server, addr, creds);
	grpc_server_credentials_release(creds);
	if (port <= 0) {
		*error_out = xasprintf("%s cannot be listened on", addr);
		grpc_server_destroy(server->server);
		idmap_free(server->calls);
		free(server);
		return NULL;
	}
	grpc_server_start(server->server);
	for (int i = 0; i < POSTED_CALLS; i++) {
		post_call(server, METHOD_DIAL);
		if (i % 8 == 0) {
			post_call(server, METHOD_PING);
			post_call(server, METHOD_ASK);
			post_call(server, METHOD_UNKNOWN);
		}
	}
	return server;
}

void server_stop(struct server *server, void (*done)(void *arg), void *arg)
{
	server->stopping = true;
	server->on_stopped = done;
	server->stop_arg = arg;
	grpc_server_shutdown_and_notify(server->server,
		rpc_cq_queue(server->peerd->cq), &server->stop_tag);
}

void server_cut(struct server *server)
{
	grpc_server_cancel_all_calls(server->server);
}

void server_free(struct server *server)
{
	if (!server)
		return;
	assert(server->stopped && server->objects == 0);
	grpc_server_destroy(server->server);
	idmap_free(server->calls);
	free(server);
}
