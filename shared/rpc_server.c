/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on the loop's thread: a table of methods, each answered once or
 * with a stream. Owns the listening port, the calls waiting to be accepted and
 * the calls under way.
 *
 *   WAITING --accepted, role good--> READING --request--> OPEN --> ended
 *                     \--refused----------\--5 s, malformed---/
 *
 * The role is checked on the headers (GRPC_SRM_PAYLOAD_NONE), so a caller who
 * may not call costs no payload and no timer.
 *
 * What is easily got wrong: three things end at different times. The handler
 * is through with a call when it answered or was told that the caller has gone
 * (released); gRPC is when every batch has come back (then the grpc_call goes,
 * which the server's shutdown waits for). Only then is the struct freed.
 */

#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "shared/alloc.h"
#include "shared/rpc.h"

#define REQUEST_MAX (2 << 20) /* a Publish is at most 1.5 MiB */
#define REQUEST_MS 5000	      /* from the headers to the whole request */
#define ACCEPTS 8	      /* calls waiting to be accepted, per method */
#define CALLS_MAX 16384	      /* at once */
#define UNKNOWN_MAX 256	      /* at once, of callers without a certificate */
#define MEMORY_MAX (256 << 20)

/* One message waiting to be sent. */
struct outgoing {
	STAILQ_ENTRY(outgoing) entry;
	grpc_byte_buffer *buffer;
	int64_t size;
};

struct rpc_server_call {
	struct rpc_server *server;
	const struct rpc_method *method; /* NULL: no such method */
	grpc_call *call;		 /* NULL: waiting, or through */
	struct host_identity caller;
	unsigned pending; /* batches */
	bool counted;	  /* in server->calls */
	bool unknown;	  /* in server->unknown */
	bool released;	  /* the handler has nothing to do with it any more */
	bool closed;	  /* the other side has ended the call */
	bool ending;	  /* a status has been given */
	bool status_sent;
	bool metadata_sent;
	struct timer *deadline; /* of the request */

	struct rpc_tag accept_tag;
	struct rpc_tag close_tag;
	struct rpc_tag receive_tag;
	struct rpc_tag send_tag;

	gpr_timespec client_deadline;
	grpc_metadata_array metadata;
	grpc_call_details details; /* of a call to no method of ours */
	int cancelled;
	grpc_byte_buffer *received;

	STAILQ_HEAD(, outgoing) queue;
	int64_t queued;	 /* bytes, with what is being sent */
	int64_t sending; /* bytes of it in the batch under way */
	bool send_active;
	grpc_status_code status;
	char *message;

	int64_t low_water;
	void (*drain)(void *arg, bool gone);
	void *drain_arg;
	struct loop_task gone_task; /* tells a late rpc_on_drain() */
};

struct rpc_server {
	struct rpc_cq *cq;
	struct loop *loop;
	grpc_server *server;
	char *cluster;
	const struct rpc_method *methods;
	void **handles; /* gRPC's, one per method */
	void *arg;
	int port;
	unsigned calls;
	unsigned unknown;
	unsigned objects; /* rpc_server_call structs that exist */

	bool stopping;
	bool stopped; /* gRPC has let go of everything */
	struct rpc_tag stop_tag;
	struct timer *grace;
	void (*on_stopped)(void *arg);
	void *stop_arg;
};

#define CALL_OF(tag, member)                                \
	((struct rpc_server_call *)((char *)(tag)-offsetof( \
		struct rpc_server_call, member)))

static void accept_next(
	struct rpc_server *server, const struct rpc_method *method);

/* ---- the life of a call ---- */

static void server_forget(struct rpc_server *server)
{
	if (!server->stopped || server->objects > 0)
		return;
	free(server->cluster);
	free(server->handles);
	free(server);
}

static void queue_clear(struct rpc_server_call *call)
{
	struct outgoing *out;

	while ((out = STAILQ_FIRST(&call->queue))) {
		STAILQ_REMOVE_HEAD(&call->queue, entry);
		call->queued -= out->size;
		grpc_byte_buffer_destroy(out->buffer);
		free(out);
	}
}

static void stop_deadline(struct rpc_server_call *call)
{
	timer_free(call->deadline);
	call->deadline = NULL;
}

static void call_free(struct rpc_server_call *call)
{
	struct rpc_server *server = call->server;

	loop_cancel(server->loop, &call->gone_task);
	stop_deadline(call);
	queue_clear(call);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	free(call->message);
	free(call);
	server->objects--;
	server_forget(server);
}

/* gRPC's half of the call is over. */
static void call_through(struct rpc_server_call *call)
{
	struct rpc_server *server = call->server;

	stop_deadline(call);
	grpc_call_unref(call->call);
	call->call = NULL;
	if (call->counted)
		server->calls--;
	if (call->unknown)
		server->unknown--;
}

/* Frees what is over. The last act of every function that may end a call. */
static void call_settle(struct rpc_server_call *call)
{
	if (call->pending > 0)
		return;
	if (call->call && call->closed)
		call_through(call);
	if (!call->call && call->released)
		call_free(call);
}

static void call_tell_gone(struct rpc_server_call *call)
{
	if (call->released || !call->drain)
		return;
	call->released = true;
	call->drain(call->drain_arg, true);
}

/* ---- sending ---- */

static void start(struct rpc_server_call *call, const grpc_op *ops, size_t n,
	struct rpc_tag *tag)
{
	call->pending++;
	/* An error here means ops that contradict each other: our own bug. */
	if (grpc_call_start_batch(call->call, ops, n, tag, NULL) !=
		GRPC_CALL_OK)
		abort();
}

/* One batch of whatever is due: headers, a message, the status. */
static void call_pump(struct rpc_server_call *call)
{
	struct outgoing *out = STAILQ_FIRST(&call->queue);
	grpc_slice details;
	grpc_op ops[3] = {0};
	size_t n = 0;

	if (call->send_active || call->status_sent || call->closed ||
		(!out && !call->ending))
		return;
	if (!call->metadata_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	call->metadata_sent = true;
	if (out) {
		STAILQ_REMOVE_HEAD(&call->queue, entry);
		call->sending = out->size;
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = out->buffer;
	}
	details = grpc_slice_from_copied_string(
		call->message ? call->message : "");
	if (call->ending && STAILQ_EMPTY(&call->queue)) {
		call->status_sent = true;
		ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
		ops[n].data.send_status_from_server.status = call->status;
		ops[n++].data.send_status_from_server.status_details = &details;
	}
	call->send_active = true;
	start(call, ops, n, &call->send_tag);
	grpc_slice_unref(details);
	if (out) {
		grpc_byte_buffer_destroy(out->buffer);
		free(out);
	}
}

static void on_sent(struct rpc_tag *tag, bool ok)
{
	struct rpc_server_call *call = CALL_OF(tag, send_tag);
	int64_t before = call->queued;

	call->pending--;
	call->send_active = false;
	call->queued -= call->sending;
	call->sending = 0;
	if (!ok)
		queue_clear(call);
	else
		call_pump(call);
	if (ok && !call->released && call->drain && before >= call->low_water &&
		call->queued < call->low_water) {
		call->pending++; /* drain() may end the call */
		call->drain(call->drain_arg, false);
		call->pending--;
	}
	call_settle(call);
}

static void call_queue(
	struct rpc_server_call *call, const ProtobufCMessage *message)
{
	struct outgoing *out = xcalloc(1, sizeof(*out));

	out->buffer = rpc_pack(message);
	out->size = (int64_t)grpc_byte_buffer_length(out->buffer);
	call->queued += out->size;
	STAILQ_INSERT_TAIL(&call->queue, out, entry);
}

/* The handler's last word, or ours; takes message. */
static void call_end(
	struct rpc_server_call *call, grpc_status_code status, char *message)
{
	call->released = true;
	if (!call->call || call->closed || call->ending) {
		free(message);
		call_settle(call);
		return;
	}
	stop_deadline(call);
	call->ending = true;
	call->status = status;
	call->message = message;
	if (status != GRPC_STATUS_OK) {
		queue_clear(call);
		call->queued = call->sending;
		/* A reader that does not read would hold the status up. */
		if (call->send_active)
			grpc_call_cancel_with_status(
				call->call, status, message, NULL);
	}
	call_pump(call);
}

/* ---- receiving ---- */

static void on_request_late(void *arg)
{
	call_end(arg, GRPC_STATUS_DEADLINE_EXCEEDED,
		xstrdup("no request within 5 s"));
}

static void on_closed(struct rpc_tag *tag, bool ok)
{
	struct rpc_server_call *call = CALL_OF(tag, close_tag);

	call->closed = true;
	stop_deadline(call);
	queue_clear(call);
	call_tell_gone(call);
	call->pending--;
	call_settle(call);
}

static void on_request(struct rpc_tag *tag, bool ok)
{
	struct rpc_server_call *call = CALL_OF(tag, receive_tag);
	ProtobufCMessage *request = NULL;

	stop_deadline(call);
	if (ok && call->received)
		request = rpc_unpack(call->method->request, call->received);
	if (call->ending || call->closed) {
		call->released = true;
	} else if (!request) {
		call_end(call, GRPC_STATUS_INVALID_ARGUMENT,
			xstrdup("request is missing or malformed"));
	} else {
		call->method->handle(
			call, call->server->arg, &call->caller, request);
	}
	if (request)
		protobuf_c_message_free_unpacked(request, NULL);
	call->pending--;
	call_settle(call);
}

static void await_close(struct rpc_server_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
		.data.recv_close_on_server.cancelled = &call->cancelled};

	start(call, &op, 1, &call->close_tag);
}

static void await_request(struct rpc_server_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &call->received};

	call->deadline = timer_new(call->server->loop, on_request_late, call);
	timer_set(call->deadline, REQUEST_MS);
	start(call, &op, 1, &call->receive_tag);
}

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
	if (rpc_caller(call->call, server->cluster, &call->caller) < 0) {
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
	struct rpc_server_call *call = CALL_OF(tag, accept_tag);
	grpc_status_code status;
	const char *why;

	call->pending--;
	grpc_metadata_array_destroy(&call->metadata);
	if (!call->method)
		grpc_call_details_destroy(&call->details);
	if (!ok) {
		call->released = true;
		call_settle(call);
		return;
	}
	accept_next(call->server, call->method);
	await_close(call);
	status = admit(call, &why);
	if (status == GRPC_STATUS_OK)
		await_request(call);
	else
		call_end(call, status, xstrdup(why));
}

static void accept_next(
	struct rpc_server *server, const struct rpc_method *method)
{
	struct rpc_server_call *call;
	grpc_call_error error;

	if (server->stopping)
		return;
	call = xcalloc(1, sizeof(*call));
	call->server = server;
	call->method = method;
	call->accept_tag.run = on_accepted;
	call->close_tag.run = on_closed;
	call->receive_tag.run = on_request;
	call->send_tag.run = on_sent;
	STAILQ_INIT(&call->queue);
	grpc_metadata_array_init(&call->metadata);
	call->pending = 1;
	server->objects++;
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

/* ---- what handlers use ---- */

void rpc_reply(struct rpc_server_call *call, const ProtobufCMessage *response)
{
	if (call->call && !call->closed && !call->ending)
		call_queue(call, response);
	call_end(call, GRPC_STATUS_OK, NULL);
}

void rpc_fail(struct rpc_server_call *call, int status, const char *format, ...)
{
	va_list ap;
	char *message;

	va_start(ap, format);
	message = xvasprintf(format, ap);
	va_end(ap);
	call_end(call, status, message);
}

int64_t rpc_push(struct rpc_server_call *call, const ProtobufCMessage *message)
{
	if (!call->call || call->closed || call->ending)
		return -EPIPE;
	call_queue(call, message);
	call_pump(call);
	return call->queued;
}

static void on_gone_task(struct loop_task *task)
{
	struct rpc_server_call *call = CALL_OF(task, gone_task);

	call_tell_gone(call);
	call_settle(call);
}

void rpc_on_drain(struct rpc_server_call *call, int64_t low_water,
	void (*fn)(void *arg, bool gone), void *arg)
{
	call->low_water = low_water;
	call->drain = fn;
	call->drain_arg = arg;
	if (call->closed) {
		call->gone_task.run = on_gone_task;
		loop_defer(call->server->loop, &call->gone_task);
	}
}

/* ---- the server ---- */

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
	server_forget(server);
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
