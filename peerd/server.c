/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls from other proxies: see server.h. Owns the gRPC server and every call
 * until it is joined with a stream and again after that has ended; the
 * switchboard decides where a dial goes and answers by id.
 *
 * A newcomer's trap: a call object is freed only when all its batches are back,
 * RECV_CLOSE among them, whatever else has happened to it. call_settle() is
 * the last act of every function that may end one.
 */
#include "peerd/server.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerd/channel_args.h"
#include "peerd/connection_id.h"
#include "peerd/frame.h"
#include "peerd/idmap.h"
#include "peerd/meters.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* Calls of each method that may arrive while the loop is busy. */
#define POSTED_CALLS 64
/* A user's name longer than this is none. */
#define USER_MAX 256

enum method { METHOD_DIAL, METHOD_PING, METHOD_UNKNOWN, METHOD_COUNT };

enum call_state {
	CALL_POSTED,
	CALL_READING,
	CALL_DIALING,
	CALL_ESTABLISHING,
	CALL_JOINED,
	CALL_ENDING,
};

struct call {
	struct server *server;
	enum method method;
	enum call_state state;
	uint64_t id; /* in server->calls from headers on; 0: not yet */
	grpc_call *call;
	unsigned pending; /* batches */
	bool closed;
	int cancelled;

	struct rpc_tag accept_tag;
	struct rpc_tag close_tag;
	struct rpc_tag read_tag;
	struct rpc_tag reply_tag;

	grpc_metadata_array metadata;
	grpc_call_details details; /* METHOD_UNKNOWN */
	gpr_timespec deadline;
	grpc_byte_buffer *received;
	struct timer *first_frame; /* READING */

	struct host_identity caller;
	uint8_t connection_id[CONNECTION_ID_SIZE];
	char user[USER_MAX];
	char *target; /* for the log */
	int64_t since;
	int fd; /* ESTABLISHING */
	struct stream *stream;
};

struct server {
	struct peerd *peerd;
	const struct server_ops *ops;
	void *arg;
	grpc_server *server;
	void *methods[METHOD_UNKNOWN];
	struct idmap *calls;
	unsigned objects; /* calls and posted ones */
	bool stopping;
	bool stopped;
	struct rpc_tag stop_tag;
	void (*on_stopped)(void *arg);
	void *stop_arg;
};

#define CALL_OF(tag, field) \
	((struct call *)((char *)(tag)-offsetof(struct call, field)))

static void post_call(struct server *server, enum method method);

/* ---- the end of a call ---- */

static void server_settle(struct server *server)
{
	void (*done)(void *arg) = server->on_stopped;

	if (!server->stopped || server->objects > 0 || !done)
		return;
	server->on_stopped = NULL;
	done(server->stop_arg);
}

static void call_free(struct call *call)
{
	struct server *server = call->server;

	grpc_metadata_array_destroy(&call->metadata);
	if (call->method == METHOD_UNKNOWN)
		grpc_call_details_destroy(&call->details);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	if (call->call)
		grpc_call_unref(call->call);
	if (call->id)
		idmap_remove(server->calls, call->id);
	if (call->fd >= 0)
		close(call->fd);
	timer_free(call->first_frame);
	free(call->target);
	loop_free_later(server->peerd->loop, free, call);
	server->objects--;
	server_settle(server);
}

static void call_settle(struct call *call)
{
	if (call->pending == 0 && !call->stream &&
		(call->closed || !call->call))
		call_free(call);
}

static void start(struct call *call, const grpc_op *ops, size_t count,
	struct rpc_tag *tag)
{
	grpc_call_error error =
		grpc_call_start_batch(call->call, ops, count, tag, NULL);

	assert(error == GRPC_CALL_OK);
	(void)error;
	call->pending++;
}

/* The last word. reason may be NULL. */
static void end_call(struct call *call, grpc_status_code status,
	const char *reason, const char *text)
{
	grpc_slice details = grpc_slice_from_copied_string(text);
	grpc_metadata trailer;
	grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};

	call->state = CALL_ENDING;
	if (call->first_frame)
		timer_clear(call->first_frame);
	ops[1].data.send_status_from_server.status = status;
	ops[1].data.send_status_from_server.status_details = &details;
	if (reason) {
		trailer.key = grpc_slice_from_static_string(PEERD_KEY_REASON);
		trailer.value = grpc_slice_from_static_string(reason);
		ops[1].data.send_status_from_server.trailing_metadata_count = 1;
		ops[1].data.send_status_from_server.trailing_metadata =
			&trailer;
	}
	start(call, ops, 2, &call->reply_tag);
	grpc_slice_unref(details);
}

static void on_closed(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, close_tag);
	struct server *server = call->server;

	call->closed = true;
	call->pending--;
	if (call->first_frame)
		timer_clear(call->first_frame);
	if (call->state == CALL_DIALING)
		server->ops->on_gone(server->arg, call->id);
	if (call->stream)
		stream_call_over(call->stream,
			call->cancelled ? GRPC_STATUS_CANCELLED
					: GRPC_STATUS_OK,
			"the peer ended the stream");
	call_settle(call);
}

static void on_replied(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, reply_tag);

	call->pending--;
	call_settle(call);
}

/* ---- the first frame ---- */

static void refuse_first_frame(
	struct call *call, grpc_status_code status, const char *text)
{
	struct peerd *peerd = call->server->peerd;

	metric_add(&peerd->metrics, METER_SERVED_REFUSED, 1);
	log_warn("peer's dial refused: %s peer=%s", text, call->caller.uuid);
	end_call(call, status, "invalid", text);
}

static void on_first_frame_late(void *arg)
{
	refuse_first_frame(arg, GRPC_STATUS_DEADLINE_EXCEEDED,
		"no dial request within 5 s");
}

/* One call metadata value as text; empty when absent or too long. */
static void metadata_value(
	const struct call *call, const char *key, char *out, size_t size)
{
	out[0] = '\0';
	for (size_t i = 0; i < call->metadata.count; i++) {
		grpc_slice value = call->metadata.metadata[i].value;
		size_t len = GRPC_SLICE_LENGTH(value);

		if (grpc_slice_str_cmp(call->metadata.metadata[i].key, key) ||
			len >= size)
			continue;
		memcpy(out, GRPC_SLICE_START_PTR(value), len);
		out[len] = '\0';
		return;
	}
}

static void take_metadata(struct call *call)
{
	char hex[2 * CONNECTION_ID_SIZE + 2];

	metadata_value(call, PEERD_KEY_CONNECTION, hex, sizeof(hex));
	if (!connection_id_parse(hex, call->connection_id))
		connection_id_make(call->connection_id);
	metadata_value(call, PEERD_KEY_USER, call->user, sizeof(call->user));
}

static void dial(struct call *call, const struct request *request)
{
	struct server *server = call->server;
	struct server_dial dial = {
		.request = request,
		.peer_id = call->caller.uuid,
		.connection_id = call->connection_id,
		.user = call->user,
	};

	take_metadata(call);
	call->target = xasprintf("agent=%.63s type=%.32s to=%.80s source=%.64s",
		request->agent_id, request->type, request->destination,
		request->source);
	call->state = CALL_DIALING;
	server->ops->on_dial(server->arg, call->id, &dial);
}

/* Gives the message's bytes; NULL when there are too many for a request. */
static uint8_t *gather(grpc_byte_buffer *buffer, size_t *len_out)
{
	grpc_byte_buffer_reader reader;
	grpc_slice slice;
	uint8_t *bytes;

	*len_out = grpc_byte_buffer_length(buffer);
	if (*len_out > REQUEST_FRAME_MAX ||
		!grpc_byte_buffer_reader_init(&reader, buffer))
		return NULL;
	slice = grpc_byte_buffer_reader_readall(&reader);
	bytes = xcalloc(1, *len_out + 1);
	memcpy(bytes, GRPC_SLICE_START_PTR(slice), *len_out);
	grpc_slice_unref(slice);
	grpc_byte_buffer_reader_destroy(&reader);
	return bytes;
}

static void on_first_frame(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, read_tag);
	struct request request;
	char *text = NULL;
	uint8_t *bytes;
	size_t len = 0;
	int status;

	call->pending--;
	timer_clear(call->first_frame);
	if (call->closed || call->state != CALL_READING || !ok) {
		call_settle(call);
		return;
	}
	bytes = call->received ? gather(call->received, &len) : NULL;
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	call->received = NULL;
	status = request_parse(bytes ? bytes : (const uint8_t *)"",
		bytes ? len : 0, &request, &text);
	if (status == REQUEST_OK) {
		dial(call, &request);
		request_deinit(&request);
	} else {
		refuse_first_frame(call, (grpc_status_code)status, text);
	}
	free(bytes);
	free(text);
	call_settle(call);
}

static void read_first_frame(struct call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &call->received};

	call->state = CALL_READING;
	call->first_frame =
		timer_new(call->server->peerd->loop, on_first_frame_late, call);
	timer_set(call->first_frame, SERVER_FIRST_FRAME_MS);
	start(call, &op, 1, &call->read_tag);
}

/* ---- arrival ---- */

static void reply_ping(struct call *call)
{
	grpc_slice empty = grpc_empty_slice();
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&empty, 1);
	grpc_op ops[3] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE},
		{.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};

	call->state = CALL_ENDING;
	ops[1].data.send_message.send_message = message;
	ops[2].data.send_status_from_server.status = GRPC_STATUS_OK;
	start(call, ops, 3, &call->reply_tag);
	grpc_byte_buffer_destroy(message);
}

static void deny(struct call *call)
{
	struct peerd *peerd = call->server->peerd;
	char *peer = grpc_call_get_peer(call->call);

	metric_add(&peerd->metrics, METER_SERVED_DENIED, 1);
	log_debug("call refused: expected Proxy client credentials addr=%s",
		peer);
	gpr_free(peer);
	end_call(call, GRPC_STATUS_PERMISSION_DENIED, NULL,
		"expected Proxy client credentials");
}

static void await_close(struct call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
		.data.recv_close_on_server.cancelled = &call->cancelled};

	start(call, &op, 1, &call->close_tag);
}

static void on_accepted(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, accept_tag);
	struct server *server = call->server;
	const char *cluster = server->peerd->conf->cluster_name;

	call->pending--;
	if (!ok) {
		call_settle(call);
		return;
	}
	post_call(server, call->method);
	call->id = idmap_add(server->calls, call);
	call->since = loop_now(server->peerd->loop);
	await_close(call);
	if (rpc_caller(call->call, cluster, &call->caller) < 0 ||
		!(call->caller.roles & IDENTITY_PROXY))
		deny(call);
	else if (call->method == METHOD_DIAL)
		read_first_frame(call);
	else if (call->method == METHOD_PING)
		reply_ping(call);
	else
		end_call(call, GRPC_STATUS_UNIMPLEMENTED, NULL,
			"unknown method");
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
	call->close_tag.run = on_closed;
	call->read_tag.run = on_first_frame;
	call->reply_tag.run = on_replied;
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

/* ---- the switchboard's answer ---- */

static void on_stream_end(void *arg, const struct stream_result *result)
{
	struct call *call = arg;
	char hex[2 * CONNECTION_ID_SIZE + 1];

	connection_id_format(call->connection_id, hex);
	log_info("stream ended: %s side=callee peer=%s %s user=%s sent=%llu "
		 "received=%llu ms=%lld conn=%s",
		result->why, call->caller.uuid, call->target, call->user,
		(unsigned long long)result->sent,
		(unsigned long long)result->received,
		(long long)(loop_now(call->server->peerd->loop) - call->since),
		hex);
	call->stream = NULL;
	call_settle(call);
}

static void on_established(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, reply_tag);
	struct stream_setup setup = {
		.side = STREAM_CALLEE,
		.call = call->call,
		.fd = call->fd,
		.on_end = on_stream_end,
		.arg = call,
	};

	call->pending--;
	if (ok && !call->closed) {
		call->fd = -1;
		call->state = CALL_JOINED;
		call->stream = stream_new(&call->server->peerd->hub, &setup);
	}
	call_settle(call);
}

static struct call *find_dialing(struct server *server, uint64_t id)
{
	struct call *call = idmap_find(server->calls, id);

	return call && call->state == CALL_DIALING && !call->closed ? call
								    : NULL;
}

void server_accept(struct server *server, uint64_t id, int fd)
{
	static const char established[] = {0x12, 0x00};
	struct call *call = find_dialing(server, id);
	grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE}};
	grpc_byte_buffer *message;
	grpc_slice slice;

	if (!call) {
		close(fd);
		return;
	}
	metric_add(&server->peerd->metrics, METER_SERVED_OK, 1);
	call->state = CALL_ESTABLISHING;
	call->fd = fd;
	slice = grpc_slice_from_copied_buffer(established, sizeof(established));
	message = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	ops[1].data.send_message.send_message = message;
	call->reply_tag.run = on_established;
	start(call, ops, 2, &call->reply_tag);
	grpc_byte_buffer_destroy(message);
}

void server_refuse(struct server *server, uint64_t id, grpc_status_code status,
	const char *reason, const char *text)
{
	struct call *call = find_dialing(server, id);
	char hex[2 * CONNECTION_ID_SIZE + 1];

	if (!call)
		return;
	metric_add(&server->peerd->metrics, METER_SERVED_REFUSED, 1);
	connection_id_format(call->connection_id, hex);
	log_info("peer's dial failed: %s peer=%s %s conn=%s", text,
		call->caller.uuid, call->target, hex);
	end_call(call, status, reason, text);
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
