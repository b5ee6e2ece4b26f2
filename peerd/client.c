/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to peers: see client.h. Owns the gRPC call; its channel lives at least
 * as long. Made by dial.c, which decides whom to ask.
 *
 * A newcomer's trap: the reference has no deadline for a dial, and a gRPC
 * deadline would cut the stream as well. So a timer of ours bounds the dial
 * phase and cancels the call.
 */
#include "peerd/client.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerd/connection_id.h"
#include "peerd/ext.h"
#include "peerd/frame.h"
#include "peerd/refusal.h"
#include "peerd/trace_report.h"
#include "shared/alloc.h"
#include "shared/log.h"

enum client_state {
	CLIENT_DIALING,
	CLIENT_ANSWERED,
	CLIENT_JOINED,
	CLIENT_ENDING,
};

struct client_call {
	struct channel *channel;
	struct loop *loop;
	struct stream_hub *hub;
	enum client_state state;
	grpc_call *call;
	unsigned pending; /* batches */
	bool over;	  /* the status is here */
	bool malformed;	  /* the first answer was something else */
	struct timer *deadline;
	struct rpc_span span;

	struct rpc_tag start_tag;
	struct rpc_tag status_tag;
	grpc_metadata_array initial;
	grpc_metadata_array trailing;
	grpc_status_code status;
	grpc_slice details;
	grpc_byte_buffer *received;
	unsigned ext;	      /* announced, then what the peer announced too */
	struct credit credit; /* EXT_CREDIT; the stream's once joined */

	void (*on_answer)(void *arg, const struct client_answer *answer);
	void *arg;

	struct stream *stream;
	void (*on_end)(void *arg, const struct stream_result *result);
	void *end_arg;
};

#define CALL_OF(tag, field)                             \
	((struct client_call *)((char *)(tag)-offsetof( \
		struct client_call, field)))

/* ---- the end ---- */

static void call_settle(struct client_call *call)
{
	if (call->pending > 0 || call->stream)
		return;
	grpc_metadata_array_destroy(&call->initial);
	grpc_metadata_array_destroy(&call->trailing);
	grpc_slice_unref(call->details);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	grpc_call_unref(call->call);
	credit_end(&call->credit, &call->hub->credit);
	timer_free(call->deadline);
	channel_let_go(call->channel);
	loop_free_later(call->loop, free, call);
}

static char *text_of(grpc_slice slice)
{
	return xstrndup((const char *)GRPC_SLICE_START_PTR(slice),
		GRPC_SLICE_LENGTH(slice));
}

/* NULL: none. Gives. */
static char *value_of(const grpc_metadata_array *array, const char *key)
{
	for (size_t i = 0; i < array->count; i++) {
		if (!grpc_slice_str_cmp(array->metadata[i].key, key))
			return text_of(array->metadata[i].value);
	}
	return NULL;
}

static void tell(
	struct client_call *call, Peerway__Ipc__DialCode code, const char *text)
{
	char *trace = value_of(&call->initial, TRACE_KEY);
	struct client_answer answer = {
		.code = code, .text = text, .trace = trace};

	timer_clear(call->deadline);
	call->state = code == PEERWAY__IPC__DIAL_CODE__DIAL_CODE_NONE
			      ? CLIENT_ANSWERED
			      : CLIENT_ENDING;
	call->on_answer(call->arg, &answer);
	free(trace);
}

static void tell_failure(struct client_call *call)
{
	char *reason = value_of(&call->trailing, PEERD_KEY_REASON);
	char *details = text_of(call->details);
	char *text;

	if (call->malformed)
		text = xstrdup("received malformed connection established "
			       "frame");
	else if (channel_state(call->channel) != CHANNEL_READY)
		text = xasprintf("error starting stream: %s", details);
	else
		text = xasprintf("error receiving dial response: %s", details);
	if (call->status == GRPC_STATUS_UNAVAILABLE && !reason)
		channel_note_error(call->channel, text);
	tell(call,
		call->malformed ? PEERWAY__IPC__DIAL_CODE__DIAL_INTERNAL
				: refusal_code(call->status, reason),
		text);
	free(reason);
	free(details);
	free(text);
}

/* Both the first answer's batch and the status decide; the later one tells. */
static void decide(struct client_call *call)
{
	if (call->state == CLIENT_DIALING && call->over && call->pending == 0)
		tell_failure(call);
	call_settle(call);
}

static void on_status(struct rpc_tag *tag, bool ok)
{
	struct client_call *call = CALL_OF(tag, status_tag);

	call->pending--;
	call->over = true;
	rpc_span_end(&call->span, call->status);
	if (call->stream) {
		char *details = text_of(call->details);

		stream_call_over(call->stream, call->status,
			call->status == GRPC_STATUS_OK ? "agent closed"
						       : details);
		free(details);
	}
	decide(call);
}

/* ---- the dial phase ---- */

static bool is_established(grpc_byte_buffer *message)
{
	grpc_slice_buffer *buffer;
	struct iovec pieces[8];

	buffer = &message->data.raw.slice_buffer;
	if (buffer->count > 8)
		return false;
	for (size_t i = 0; i < buffer->count; i++) {
		pieces[i].iov_base = GRPC_SLICE_START_PTR(buffer->slices[i]);
		pieces[i].iov_len = GRPC_SLICE_LENGTH(buffer->slices[i]);
	}
	return frame_parse(pieces, buffer->count).kind == FRAME_ESTABLISHED;
}

static void on_started(struct rpc_tag *tag, bool ok)
{
	struct client_call *call = CALL_OF(tag, start_tag);
	bool answered = ok && call->received;

	call->pending--;
	if (call->state == CLIENT_DIALING && answered) {
		bool established = is_established(call->received);

		rpc_meter_received(call->span.meter,
			grpc_byte_buffer_length(call->received));
		grpc_byte_buffer_destroy(call->received);
		call->received = NULL;
		if (established) {
			tell(call, PEERWAY__IPC__DIAL_CODE__DIAL_CODE_NONE,
				NULL);
			assert(call->state != CLIENT_ANSWERED);
		} else {
			call->malformed = true;
			grpc_call_cancel(call->call, NULL);
		}
	}
	decide(call);
}

static void on_deadline(void *arg)
{
	struct client_call *call = arg;

	grpc_call_cancel_with_status(call->call, GRPC_STATUS_DEADLINE_EXCEEDED,
		"dial timeout", NULL);
}

static void start(struct client_call *call, const grpc_op *ops, size_t count,
	struct rpc_tag *tag)
{
	grpc_call_error error =
		grpc_call_start_batch(call->call, ops, count, tag, NULL);

	assert(error == GRPC_CALL_OK);
	(void)error;
	call->pending++;
}

static void await_status(struct client_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

	op.data.recv_status_on_client.trailing_metadata = &call->trailing;
	op.data.recv_status_on_client.status = &call->status;
	op.data.recv_status_on_client.status_details = &call->details;
	start(call, &op, 1, &call->status_tag);
}

static grpc_byte_buffer *first_frame(const struct request_fields *fields)
{
	size_t len;
	uint8_t *bytes = request_make(fields, &len);
	grpc_slice slice = grpc_slice_from_copied_buffer((char *)bytes, len);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	free(bytes);
	return message;
}

/* gRPC refuses metadata that is not printable ASCII, with the whole call. */
static bool is_header_text(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < 0x20 || *text > 0x7e)
			return false;
	}
	return true;
}

/* What a call says of itself, of ours only. */
struct call_metadata {
	grpc_metadata list[4];
	size_t count;
};

static void add_metadata(
	struct call_metadata *metadata, const char *key, const char *value)
{
	grpc_metadata *one = &metadata->list[metadata->count];

	if (!is_header_text(value))
		return;
	one->key = grpc_slice_from_static_string(key);
	one->value = grpc_slice_from_copied_string(value);
	metadata->count++;
}

static void make_metadata(struct client_call *call,
	const struct client_dial *dial, struct call_metadata *out)
{
	char hex[2 * CONNECTION_ID_SIZE + 1];
	char names[EXT_TEXT_MAX];
	char credit[24] = "";

	connection_id_format(dial->connection_id, hex);
	ext_format(call->ext, names);
	if (call->ext & EXT_CREDIT)
		snprintf(credit, sizeof(credit), "%lld",
			(long long)credit_begin(
				&call->credit, &call->hub->credit));
	out->count = 0;
	add_metadata(out, PEERD_KEY_CONNECTION, hex);
	add_metadata(out, PEERD_KEY_USER, dial->user);
	add_metadata(out, EXT_KEY, names);
	add_metadata(out, EXT_CREDIT_KEY, credit);
}

static void send_request(
	struct client_call *call, const struct client_dial *dial)
{
	grpc_byte_buffer *message = first_frame(dial->fields);
	struct call_metadata metadata;
	grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE},
		{.op = GRPC_OP_RECV_INITIAL_METADATA},
		{.op = GRPC_OP_RECV_MESSAGE}};

	make_metadata(call, dial, &metadata);
	ops[0].data.send_initial_metadata.metadata = metadata.list;
	ops[0].data.send_initial_metadata.count = metadata.count;
	ops[1].data.send_message.send_message = message;
	ops[2].data.recv_initial_metadata.recv_initial_metadata =
		&call->initial;
	ops[3].data.recv_message.recv_message = &call->received;
	rpc_meter_sent(call->span.meter, grpc_byte_buffer_length(message));
	start(call, ops, 4, &call->start_tag);
	for (size_t i = 0; i < metadata.count; i++)
		grpc_slice_unref(metadata.list[i].value);
	grpc_byte_buffer_destroy(message);
}

struct client_call *client_dial(
	struct channel *channel, const struct client_dial *dial)
{
	struct client_call *call = xcalloc(1, sizeof(*call));
	struct peerd *peerd = channel_peerd(channel);
	grpc_slice path = grpc_slice_from_static_string(PEERD_METHOD_DIAL);

	call->channel = channel;
	call->loop = peerd->loop;
	call->hub = &peerd->hub;
	call->ext = peerd->ext;
	call->on_answer = dial->on_answer;
	call->arg = dial->arg;
	call->details = grpc_empty_slice();
	call->start_tag.run = on_started;
	call->status_tag.run = on_status;
	grpc_metadata_array_init(&call->initial);
	grpc_metadata_array_init(&call->trailing);
	call->deadline = timer_new(call->loop, on_deadline, call);
	timer_set(call->deadline, dial->deadline_ms);
	call->call = grpc_channel_create_call(channel_hold(channel), NULL,
		GRPC_PROPAGATE_DEFAULTS, rpc_cq_queue(peerd->cq), path, NULL,
		gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	rpc_span_start(
		&call->span, rpc_meter(&peerd->rpc, RPC_CLIENT, RPC_DIAL));
	await_status(call);
	send_request(call, dial);
	return call;
}

void client_cancel(struct client_call *call)
{
	assert(call->state == CLIENT_DIALING || call->state == CLIENT_ANSWERED);
	call->state = CLIENT_ENDING;
	timer_clear(call->deadline);
	grpc_call_cancel(call->call, NULL);
}

/* ---- joined ---- */

static void on_stream_end(void *arg, const struct stream_result *result)
{
	struct client_call *call = arg;

	call->stream = NULL;
	channel_count_stream(call->channel, -1);
	call->on_end(call->end_arg, result);
	call_settle(call);
}

/* What both have announced. */
static void settle_extensions(struct client_call *call, uint64_t *allowed_out)
{
	char *names = value_of(&call->initial, EXT_KEY);
	char *credit = value_of(&call->initial, EXT_CREDIT_KEY);

	call->ext &= names ? ext_parse(names, strlen(names)) : 0;
	*allowed_out =
		credit ? ext_parse_credit(credit, strlen(credit), CREDIT_MAX)
		       : 0;
	if (!(call->ext & EXT_CREDIT))
		credit_end(&call->credit, &call->hub->credit);
	free(names);
	free(credit);
}

struct stream *client_join(struct client_call *call, int fd, bool raw,
	void (*on_end)(void *arg, const struct stream_result *result),
	void *arg)
{
	struct stream_setup setup = {
		.side = STREAM_CALLER,
		.call = call->call,
		.fd = fd,
		.raw = raw,
		.totals = channel_totals(call->channel),
		.on_end = on_stream_end,
		.arg = call,
	};

	assert(call->state == CLIENT_ANSWERED);
	settle_extensions(call, &setup.allowed);
	setup.ext = call->ext;
	setup.credit = call->credit;
	call->credit.out = 0; /* the stream's now */
	call->state = CLIENT_JOINED;
	channel_count_stream(call->channel, 1);
	call->on_end = on_end;
	call->end_arg = arg;
	call->stream = stream_new(call->hub, &setup);
	/* The status may have overtaken the answer on its way to us. */
	if (call->over) {
		char *details = text_of(call->details);

		stream_call_over(call->stream, call->status, details);
		free(details);
	}
	return call->stream;
}
