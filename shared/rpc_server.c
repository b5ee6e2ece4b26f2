/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on the loop's thread: a table of methods, each answered once or
 * with a stream. Owns the listening port, the calls waiting to be accepted and
 * the counts of those under way; rpc_server_call.c has what becomes of a call.
 *
 * The role is checked on the headers (GRPC_SRM_PAYLOAD_NONE), so a caller who
 * may not call costs no payload and no timer.
 *
 * What is easily got wrong: gRPC keeps calls to methods that nobody registered
 * waiting for ever, so those are accepted too, and refused.
 */

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#include "shared/alloc.h"
#include "shared/rpc_server_call.h"

#define REQUEST_MAX (2 << 20) /* a Publish is at most 1440 KiB */
#define ACCEPTS 8	      /* calls waiting to be accepted, per method */
#define CALLS_MAX 16384	      /* at once */
#define UNKNOWN_MAX 256	      /* at once, of callers without a certificate */
#define MEMORY_MAX (256 << 20)

static void accept_next(
	struct rpc_server *server, const struct rpc_method *method);

/* ---- accepting ---- */

/* Counts the call in; GRPC_STATUS_OK or why it may not be made. */
static grpc_status_code admit(
	struct rpc_server_call *call, const char **why_out)
{
	struct rpc_server *server = call->server;

	if (!call->method) {
		*why_out = "no such method";
		return GRPC_STATUS_UNIMPLEMENTED;
	}
	if (rpc_caller(server->callers, call->call, server->cluster,
		    &call->caller) < 0) {
		call->caller = (struct host_identity){0};
		call->unknown = true;
		server->unknown++;
	}
	server->calls++;
	call->counted = true;
	if (call->method->roles &&
		!(call->method->roles & call->caller.roles)) {
		*why_out = "the caller's certificate lacks the role";
		return GRPC_STATUS_PERMISSION_DENIED;
	}
	if (server->calls > CALLS_MAX || server->unknown > UNKNOWN_MAX) {
		*why_out = "too many calls at once";
		return GRPC_STATUS_RESOURCE_EXHAUSTED;
	}
	return GRPC_STATUS_OK;
}

static void on_accepted(struct rpc_tag *tag, bool ok)
{
	struct rpc_server_call *call = RPC_SERVER_CALL(tag, accept_tag);
	grpc_status_code status;
	const char *why;

	call->pending--;
	grpc_metadata_array_destroy(&call->metadata);
	if (!call->method)
		grpc_call_details_destroy(&call->details);
	if (!ok) {
		rpc_server_call_discard(call);
		return;
	}
	accept_next(call->server, call->method);
	rpc_server_call_watch(call);
	status = admit(call, &why);
	if (status == GRPC_STATUS_OK)
		rpc_server_call_read(call);
	else
		rpc_server_call_end(call, status, xstrdup(why));
}

static void accept_next(
	struct rpc_server *server, const struct rpc_method *method)
{
	struct rpc_server_call *call;
	grpc_call_error error;

	if (server->stopping)
		return;
	call = rpc_server_call_new(server, method);
	call->accept_tag.run = on_accepted;
	grpc_metadata_array_init(&call->metadata);
	call->pending = 1;
	if (method) {
		error = grpc_server_request_registered_call(server->server,
			server->handles[method - server->methods], &call->call,
			&call->client_deadline, &call->metadata, NULL,
			rpc_cq_queue(server->cq), rpc_cq_queue(server->cq),
			&call->accept_tag);
	} else {
		grpc_call_details_init(&call->details);
		error = grpc_server_request_call(server->server, &call->call,
			&call->details, &call->metadata,
			rpc_cq_queue(server->cq), rpc_cq_queue(server->cq),
			&call->accept_tag);
	}
	assert(error == GRPC_CALL_OK);
}

/* ---- the server ---- */

void rpc_server_forget(struct rpc_server *server)
{
	if (!server->stopped || server->objects > 0)
		return;
	rpc_callers_free(server->callers);
	free(server->cluster);
	free(server->handles);
	free(server);
}

static grpc_arg int_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER,
		.key = (char *)key,
		.value.integer = value};
}

static grpc_server *server_create(void)
{
	grpc_resource_quota *quota = grpc_resource_quota_create("rpc_server");
	grpc_arg args[] = {
		{.type = GRPC_ARG_POINTER,
			.key = (char *)GRPC_ARG_RESOURCE_QUOTA,
			.value.pointer = {quota,
				grpc_resource_quota_arg_vtable()}},
		int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
		int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, 10000),
		int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000),
		int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
		int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
		int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
			5000),
		int_arg(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0),
		int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10000),
		int_arg(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 60000),
		int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256),
		int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, REQUEST_MAX),
		int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
		int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
	};
	grpc_channel_args list = {
		.num_args = sizeof(args) / sizeof(args[0]), .args = args};
	grpc_server *server;

	grpc_resource_quota_resize(quota, MEMORY_MAX);
	server = grpc_server_create(&list, NULL);
	grpc_resource_quota_unref(quota);
	return server;
}

static void register_methods(struct rpc_server *server)
{
	size_t count = 0;

	while (server->methods[count].path)
		count++;
	server->handles = xcalloc(count, sizeof(*server->handles));
	for (size_t i = 0; i < count; i++)
		server->handles[i] = grpc_server_register_method(server->server,
			server->methods[i].path, NULL, GRPC_SRM_PAYLOAD_NONE,
			0);
}

static void on_stopped(struct rpc_tag *tag, bool ok)
{
	struct rpc_server *server =
		(void *)((char *)tag - offsetof(struct rpc_server, stop_tag));
	void (*done)(void *) = server->on_stopped;
	void *arg = server->stop_arg;

	timer_free(server->grace);
	grpc_server_destroy(server->server);
	server->stopped = true;
	rpc_server_forget(server);
	if (done)
		done(arg);
}

static void on_grace_over(void *arg)
{
	struct rpc_server *server = arg;

	grpc_server_cancel_all_calls(server->server);
}

void rpc_server_stop(struct rpc_server *server, uint32_t grace_ms,
	void (*done)(void *arg), void *arg)
{
	server->stopping = true;
	server->on_stopped = done;
	server->stop_arg = arg;
	server->stop_tag.run = on_stopped;
	grpc_server_shutdown_and_notify(
		server->server, rpc_cq_queue(server->cq), &server->stop_tag);
	server->grace = timer_new(server->loop, on_grace_over, server);
	timer_set(server->grace, grace_ms);
}

struct rpc_server *rpc_server_new(struct rpc_cq *cq, const char *addr,
	grpc_server_credentials *creds, const char *cluster,
	const struct rpc_method *methods, void *arg, char **error_out)
{
	struct rpc_server *server = xcalloc(1, sizeof(*server));

	server->cq = cq;
	server->loop = rpc_cq_loop(cq);
	server->cluster = xstrdup(cluster);
	server->callers = rpc_callers_new();
	server->methods = methods;
	server->arg = arg;
	server->server = server_create();
	grpc_server_register_completion_queue(
		server->server, rpc_cq_queue(cq), NULL);
	register_methods(server);
	server->port = grpc_server_add_http2_port(server->server, addr, creds);
	grpc_server_credentials_release(creds);
	grpc_server_start(server->server);
	if (server->port <= 0) {
		*error_out = xasprintf("%s cannot be listened on", addr);
		rpc_server_stop(server, 0, NULL, NULL);
		return NULL;
	}
	for (unsigned i = 0; i < ACCEPTS; i++) {
		for (const struct rpc_method *m = methods; m->path; m++)
			accept_next(server, m);
		accept_next(server, NULL);
	}
	return server;
}

int rpc_server_port(const struct rpc_server *server)
{
	return server->port;
}
