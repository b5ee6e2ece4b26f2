/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of the gRPC server from its headers to its end: request, answers,
 * the handler's functions of rpc.h. Owns what is queued for the caller.
 *
 * What is easily got wrong: any of these functions may be the one after which
 * the call is over, so the last thing each does is to settle it, and none
 * touches it afterwards.
 */

#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdlib.h>

#include "shared/alloc.h"
#include "shared/rpc_server_call.h"

#define REQUEST_MS 5000 /* from the headers to the whole request */

/* ---- life and end ---- */

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
	rpc_server_forget(server);
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
	struct rpc_server_call *call = RPC_SERVER_CALL(tag, send_tag);
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

/* Takes buffer. */
static void call_queue(struct rpc_server_call *call, grpc_byte_buffer *buffer)
{
	struct outgoing *out = xcalloc(1, sizeof(*out));

	out->buffer = buffer;
	out->size = (int64_t)grpc_byte_buffer_length(out->buffer);
	call->queued += out->size;
	STAILQ_INSERT_TAIL(&call->queue, out, entry);
}

void rpc_server_call_end(
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
	rpc_server_call_end(arg, GRPC_STATUS_DEADLINE_EXCEEDED,
		xstrdup("no request within 5 s"));
}

static void on_closed(struct rpc_tag *tag, bool ok)
{
	struct rpc_server_call *call = RPC_SERVER_CALL(tag, close_tag);

	call->closed = true;
	stop_deadline(call);
	queue_clear(call);
	call_tell_gone(call);
	call->pending--;
	call_settle(call);
}

static void on_request(struct rpc_tag *tag, bool ok)
{
	struct rpc_server_call *call = RPC_SERVER_CALL(tag, receive_tag);
	ProtobufCMessage *request = NULL;

	stop_deadline(call);
	if (ok && call->received)
		request = rpc_unpack(call->method->request, call->received);
	if (call->ending || call->closed) {
		call->released = true;
	} else if (!request) {
		rpc_server_call_end(call, GRPC_STATUS_INVALID_ARGUMENT,
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

struct rpc_server_call *rpc_server_call_new(
	struct rpc_server *server, const struct rpc_method *method)
{
	struct rpc_server_call *call = xcalloc(1, sizeof(*call));

	call->server = server;
	call->method = method;
	call->close_tag.run = on_closed;
	call->receive_tag.run = on_request;
	call->send_tag.run = on_sent;
	STAILQ_INIT(&call->queue);
	server->objects++;
	return call;
}

void rpc_server_call_discard(struct rpc_server_call *call)
{
	call->released = true;
	call_settle(call);
}

void rpc_server_call_watch(struct rpc_server_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
		.data.recv_close_on_server.cancelled = &call->cancelled};

	start(call, &op, 1, &call->close_tag);
}

void rpc_server_call_read(struct rpc_server_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &call->received};

	call->deadline = timer_new(call->server->loop, on_request_late, call);
	timer_set(call->deadline, REQUEST_MS);
	start(call, &op, 1, &call->receive_tag);
}

/* ---- what handlers use ---- */

void rpc_reply(struct rpc_server_call *call, const ProtobufCMessage *response)
{
	if (call->call && !call->closed && !call->ending)
		call_queue(call, rpc_pack(response));
	rpc_server_call_end(call, GRPC_STATUS_OK, NULL);
}

void rpc_fail(struct rpc_server_call *call, int status, const char *format, ...)
{
	va_list ap;
	char *message;

	va_start(ap, format);
	message = xvasprintf(format, ap);
	va_end(ap);
	rpc_server_call_end(call, status, message);
}

int64_t rpc_push(struct rpc_server_call *call, const ProtobufCMessage *message)
{
	if (!call->call || call->closed || call->ending)
		return -EPIPE;
	call_queue(call, rpc_pack(message));
	call_pump(call);
	return call->queued;
}

int64_t rpc_push_packed(struct rpc_server_call *call, grpc_byte_buffer *packed)
{
	if (!call->call || call->closed || call->ending)
		return -EPIPE;
	call_queue(call, grpc_byte_buffer_copy(packed));
	call_pump(call);
	return call->queued;
}

static void on_gone_task(struct loop_task *task)
{
	struct rpc_server_call *call = RPC_SERVER_CALL(task, gone_task);

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
