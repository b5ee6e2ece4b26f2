/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to a server, on the loop's thread: one answer or a stream of them.
 * A channel is one address with one set of credentials; a new identity or
 * address is a new channel.
 *
 * A call is three batches: the status (open from the start to the end), the
 * request, and the receipt of a message, repeated for a stream. gRPC holds the
 * status back while messages are unread, so done() comes last by itself.
 *
 * What is easily got wrong: done() may free the channel, and cancelling does
 * not end a call at once. A call whose owner has let go (detached) lives on
 * until its batches have come back, and touches nothing but itself.
 */

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "shared/alloc.h"
#include "shared/rpc.h"

/* What an authd may send in one message: all changes of one revision. */
#define RECEIVE_MAX (64 << 20)
#define MEMORY_MAX (256 << 20)

struct rpc_client_call {
	LIST_ENTRY(rpc_client_call) entry; /* in its channel, until detached */
	struct rpc_channel *channel;	   /* NULL: detached */
	grpc_call *call;
	const ProtobufCMessageDescriptor *response;
	bool streaming;
	bool cancelled;
	unsigned pending; /* batches */

	struct rpc_tag status_tag;
	struct rpc_tag start_tag;
	struct rpc_tag receive_tag;

	grpc_metadata_array initial;
	grpc_metadata_array trailing;
	grpc_status_code status;
	grpc_slice details;
	grpc_byte_buffer *received;
	ProtobufCMessage *answer; /* unary */
	bool malformed;

	void (*on_answer)(void *arg, int status, const char *message,
		const ProtobufCMessage *response);
	void (*on_message)(void *arg, const ProtobufCMessage *message);
	void (*on_end)(void *arg, int status, const char *message);
	void *arg;
};

struct rpc_channel {
	struct rpc_cq *cq;
	grpc_channel *channel;
	LIST_HEAD(, rpc_client_call) calls;
	grpc_metadata metadata[RPC_METADATA_MAX];
	size_t metadata_count;
};

/* ---- channel ---- */

static grpc_arg int_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER,
		.key = (char *)key,
		.value.integer = value};
}

/*
 * The minimum reconnect "backoff" is in truth the time one attempt may take,
 * so it must leave room for a TLS handshake across the world.
 */
static grpc_channel *channel_create(const char *address,
	const char *server_name, grpc_channel_credentials *creds)
{
	grpc_resource_quota *quota = grpc_resource_quota_create("rpc_channel");
	/* the name stands last: a server of no name of ours has none */
	grpc_arg args[] = {
		{.type = GRPC_ARG_POINTER,
			.key = (char *)GRPC_ARG_RESOURCE_QUOTA,
			.value.pointer = {quota,
				grpc_resource_quota_arg_vtable()}},
		int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, 10000),
		int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000),
		int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS,
			server_name != NULL),
		int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
		int_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200),
		int_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000),
		int_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000),
		int_arg(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX),
		int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RECEIVE_MAX),
		int_arg(GRPC_ARG_ENABLE_RETRIES, 0),
		int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
		int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
		int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
		int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
		{.type = GRPC_ARG_STRING,
			.key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
			.value.string = (char *)server_name},
	};
	grpc_channel_args list = {
		.num_args = sizeof(args) / sizeof(args[0]) - !server_name,
		.args = args};
	grpc_channel *channel;

	grpc_resource_quota_resize(quota, MEMORY_MAX);
	channel = grpc_channel_create(address, creds, &list);
	grpc_resource_quota_unref(quota);
	return channel;
}

struct rpc_channel *rpc_channel_new(struct rpc_cq *cq, const char *address,
	const char *server_name, grpc_channel_credentials *creds)
{
	struct rpc_channel *channel = xcalloc(1, sizeof(*channel));

	channel->cq = cq;
	channel->channel = channel_create(address, server_name, creds);
	LIST_INIT(&channel->calls);
	grpc_channel_credentials_release(creds);
	return channel;
}

void rpc_channel_metadata(
	struct rpc_channel *channel, const char *key, const char *value)
{
	grpc_metadata *entry = &channel->metadata[channel->metadata_count];

	assert(channel->metadata_count < RPC_METADATA_MAX);
	channel->metadata_count++;
	entry->key = grpc_slice_from_copied_string(key);
	entry->value = grpc_slice_from_copied_string(value);
}

/* ---- the end of a call ---- */

static void call_free(struct rpc_client_call *call)
{
	grpc_metadata_array_destroy(&call->initial);
	grpc_metadata_array_destroy(&call->trailing);
	grpc_slice_unref(call->details);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	if (call->answer)
		protobuf_c_message_free_unpacked(call->answer, NULL);
	grpc_call_unref(call->call);
	free(call);
}

/* Tells the owner, who hears nothing of this call afterwards. */
static void call_detach(
	struct rpc_client_call *call, int status, const char *message)
{
	LIST_REMOVE(call, entry);
	call->channel = NULL;
	if (call->on_end)
		call->on_end(call->arg, status, message);
	if (call->on_answer)
		call->on_answer(call->arg, status, message,
			status == GRPC_STATUS_OK ? call->answer : NULL);
}

static void call_conclude(struct rpc_client_call *call)
{
	char *details;

	if (call->cancelled) {
		call_detach(call, GRPC_STATUS_CANCELLED, "cancelled");
	} else if (call->malformed) {
		call_detach(call, GRPC_STATUS_INTERNAL, "malformed answer");
	} else if (call->status == GRPC_STATUS_OK && !call->streaming &&
		   !call->answer) {
		call_detach(call, GRPC_STATUS_INTERNAL, "no answer");
	} else {
		details = grpc_slice_to_c_string(call->details);
		call_detach(call, call->status, details);
		gpr_free(details);
	}
}

static void batch_done(struct rpc_client_call *call)
{
	if (--call->pending > 0)
		return;
	if (call->channel)
		call_conclude(call);
	call_free(call);
}

/* ---- batches ---- */

static void start(struct rpc_client_call *call, const grpc_op *ops, size_t n,
	struct rpc_tag *tag)
{
	call->pending++;
	/* An error here means ops that contradict each other: our own bug. */
	if (grpc_call_start_batch(call->call, ops, n, tag, NULL) !=
		GRPC_CALL_OK)
		abort();
}

static void receive(struct rpc_client_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &call->received};

	start(call, &op, 1, &call->receive_tag);
}

static void on_started(struct rpc_tag *tag, bool ok)
{
	batch_done((void *)((char *)tag -
			    offsetof(struct rpc_client_call, start_tag)));
}

static void on_status(struct rpc_tag *tag, bool ok)
{
	batch_done((void *)((char *)tag -
			    offsetof(struct rpc_client_call, status_tag)));
}

static void take_message(struct rpc_client_call *call)
{
	ProtobufCMessage *message = rpc_unpack(call->response, call->received);

	grpc_byte_buffer_destroy(call->received);
	call->received = NULL;
	if (!message) {
		call->malformed = true;
		grpc_call_cancel(call->call, NULL);
	} else if (!call->streaming) {
		call->answer = message;
	} else {
		call->on_message(call->arg, message);
		protobuf_c_message_free_unpacked(message, NULL);
	}
}

static void on_received(struct rpc_tag *tag, bool ok)
{
	struct rpc_client_call *call =
		(void *)((char *)tag -
			 offsetof(struct rpc_client_call, receive_tag));

	if (ok && call->received && call->channel && !call->cancelled) {
		take_message(call);
		/* on_message may have cancelled the call or its channel */
		if (call->streaming && call->channel && !call->cancelled &&
			!call->malformed)
			receive(call);
	}
	batch_done(call);
}

/* ---- calls ---- */

static gpr_timespec deadline_after(uint32_t ms)
{
	return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
		gpr_time_from_millis(ms, GPR_TIMESPAN));
}

static void send_request(
	struct rpc_client_call *call, grpc_byte_buffer *request)
{
	grpc_op ops[] = {
		{.op = GRPC_OP_SEND_INITIAL_METADATA,
			.data.send_initial_metadata =
				{.metadata = call->channel->metadata,
					.count =
						call->channel->metadata_count}},
		{.op = GRPC_OP_SEND_MESSAGE,
			.data.send_message.send_message = request},
		{.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
		{.op = GRPC_OP_RECV_INITIAL_METADATA,
			.data.recv_initial_metadata.recv_initial_metadata =
				&call->initial},
	};

	start(call, ops, sizeof(ops) / sizeof(ops[0]), &call->start_tag);
}

static struct rpc_client_call *call_new(struct rpc_channel *channel,
	const char *method, gpr_timespec deadline,
	const ProtobufCMessageDescriptor *response, void *arg)
{
	struct rpc_client_call *call = xcalloc(1, sizeof(*call));
	grpc_slice path = grpc_slice_from_copied_string(method);

	call->channel = channel;
	call->response = response;
	call->arg = arg;
	call->details = grpc_empty_slice();
	call->status_tag.run = on_status;
	call->start_tag.run = on_started;
	call->receive_tag.run = on_received;
	grpc_metadata_array_init(&call->initial);
	grpc_metadata_array_init(&call->trailing);
	call->call = grpc_channel_create_call(channel->channel, NULL,
		GRPC_PROPAGATE_DEFAULTS, rpc_cq_queue(channel->cq), path, NULL,
		deadline, NULL);
	grpc_slice_unref(path);
	LIST_INSERT_HEAD(&channel->calls, call, entry);
	return call;
}

static void call_begin(struct rpc_client_call *call, grpc_byte_buffer *request)
{
	grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
		.data.recv_status_on_client = {
			.trailing_metadata = &call->trailing,
			.status = &call->status,
			.status_details = &call->details,
		}};

	start(call, &status, 1, &call->status_tag);
	send_request(call, request);
	receive(call);
}

struct rpc_client_call *rpc_unary_packed(struct rpc_channel *channel,
	const char *method, grpc_byte_buffer *request,
	const ProtobufCMessageDescriptor *response, uint32_t deadline_ms,
	void (*done)(void *arg, int status, const char *message,
		const ProtobufCMessage *response),
	void *arg)
{
	struct rpc_client_call *call = call_new(
		channel, method, deadline_after(deadline_ms), response, arg);

	/* sending empties it */
	grpc_byte_buffer *copy = grpc_byte_buffer_copy(request);

	call->on_answer = done;
	call_begin(call, copy);
	grpc_byte_buffer_destroy(copy);
	return call;
}

struct rpc_client_call *rpc_unary(struct rpc_channel *channel,
	const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *response, uint32_t deadline_ms,
	void (*done)(void *arg, int status, const char *message,
		const ProtobufCMessage *response),
	void *arg)
{
	grpc_byte_buffer *packed = rpc_pack(request);
	struct rpc_client_call *call = rpc_unary_packed(
		channel, method, packed, response, deadline_ms, done, arg);

	grpc_byte_buffer_destroy(packed);
	return call;
}

struct rpc_client_call *rpc_stream(struct rpc_channel *channel,
	const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *response,
	void (*on_message)(void *arg, const ProtobufCMessage *message),
	void (*done)(void *arg, int status, const char *message), void *arg)
{
	struct rpc_client_call *call = call_new(channel, method,
		gpr_inf_future(GPR_CLOCK_MONOTONIC), response, arg);
	grpc_byte_buffer *packed = rpc_pack(request);

	call->streaming = true;
	call->on_message = on_message;
	call->on_end = done;
	call_begin(call, packed);
	grpc_byte_buffer_destroy(packed);
	return call;
}

void rpc_client_cancel(struct rpc_client_call *call)
{
	call->cancelled = true;
	grpc_call_cancel(call->call, NULL);
}

void rpc_channel_free(struct rpc_channel *channel)
{
	struct rpc_client_call *call;

	if (!channel)
		return;
	while ((call = LIST_FIRST(&channel->calls))) {
		rpc_client_cancel(call);
		call_detach(call, GRPC_STATUS_CANCELLED, "channel closed");
	}
	for (size_t i = 0; i < channel->metadata_count; i++) {
		grpc_slice_unref(channel->metadata[i].key);
		grpc_slice_unref(channel->metadata[i].value);
	}
	grpc_channel_destroy(channel->channel);
	free(channel);
}
