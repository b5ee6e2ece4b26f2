/* SPDX-License-Identifier: Apache-2.0 */
/* One call with one message each way: see unary.h. Owns its gRPC call; the
 * object lives until gRPC has given the batch back, cancelled or not. */
#include "peerd/unary.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <time.h>

#include "shared/alloc.h"

struct unary {
	struct channel *channel;
	grpc_call *call;
	struct rpc_tag tag;
	grpc_metadata_array initial;
	grpc_metadata_array trailing;
	grpc_byte_buffer *received;
	grpc_status_code status;
	grpc_slice details;
	int64_t started_us;
	struct rpc_span span;
	void (*on_answer)(void *arg, const struct unary_answer *answer);
	void *arg;
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void unary_free(struct unary *unary)
{
	struct loop *loop = channel_peerd(unary->channel)->loop;

	grpc_metadata_array_destroy(&unary->initial);
	grpc_metadata_array_destroy(&unary->trailing);
	grpc_slice_unref(unary->details);
	if (unary->received)
		grpc_byte_buffer_destroy(unary->received);
	grpc_call_unref(unary->call);
	channel_let_go(unary->channel);
	loop_free_later(loop, free, unary);
}

static void on_done(struct rpc_tag *tag, bool ok)
{
	struct unary *unary =
		(struct unary *)((char *)tag - offsetof(struct unary, tag));
	char *text = grpc_slice_to_c_string(unary->details);
	struct unary_answer answer = {
		.status = unary->status,
		.text = text,
		.received = unary->received,
		.us = now_us() - unary->started_us,
	};

	if (unary->received && unary->span.meter)
		rpc_meter_received(unary->span.meter,
			grpc_byte_buffer_length(unary->received));
	rpc_span_end(&unary->span, unary->status);
	if (unary->on_answer)
		unary->on_answer(unary->arg, &answer);
	gpr_free(text);
	unary_free(unary);
}

static void start(struct unary *unary, grpc_byte_buffer *message)
{
	grpc_op ops[] = {
		{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE,
			.data.send_message.send_message = message},
		{.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
		{.op = GRPC_OP_RECV_INITIAL_METADATA,
			.data.recv_initial_metadata.recv_initial_metadata =
				&unary->initial},
		{.op = GRPC_OP_RECV_MESSAGE,
			.data.recv_message.recv_message = &unary->received},
		{.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			.data.recv_status_on_client = {.trailing_metadata =
							       &unary->trailing,
				.status = &unary->status,
				.status_details = &unary->details}},
	};
	grpc_call_error error = grpc_call_start_batch(unary->call, ops,
		sizeof(ops) / sizeof(ops[0]), &unary->tag, NULL);

	assert(error == GRPC_CALL_OK);
	(void)error;
}

struct unary *unary_start(
	struct channel *channel, const struct unary_setup *setup)
{
	struct unary *unary = xcalloc(1, sizeof(*unary));
	grpc_slice path = grpc_slice_from_static_string(setup->method);

	unary->channel = channel;
	unary->on_answer = setup->on_answer;
	unary->arg = setup->arg;
	unary->tag.run = on_done;
	unary->details = grpc_empty_slice();
	unary->started_us = now_us();
	grpc_metadata_array_init(&unary->initial);
	grpc_metadata_array_init(&unary->trailing);
	if (setup->meter) {
		rpc_span_start(&unary->span, setup->meter);
		rpc_meter_sent(
			setup->meter, grpc_byte_buffer_length(setup->message));
	}
	unary->call = grpc_channel_create_call(channel_hold(channel), NULL,
		GRPC_PROPAGATE_DEFAULTS,
		rpc_cq_queue(channel_peerd(channel)->cq), path, NULL,
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
			gpr_time_from_millis(setup->limit_ms, GPR_TIMESPAN)),
		NULL);
	start(unary, setup->message);
	return unary;
}

void unary_cancel(struct unary *unary)
{
	if (!unary)
		return;
	unary->on_answer = NULL;
	grpc_call_cancel(unary->call, NULL);
}
