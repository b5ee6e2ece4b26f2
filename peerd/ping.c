/* SPDX-License-Identifier: Apache-2.0 */
/* One Ping to a peer: see ping.h. Owns its call; health.c keeps the score. */
#include "peerd/ping.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <time.h>

#include "shared/alloc.h"

struct ping {
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
	void (*on_answer)(void *arg, const struct ping_answer *answer);
	void *arg;
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void ping_free(struct ping *ping)
{
	struct loop *loop = channel_peerd(ping->channel)->loop;

	grpc_metadata_array_destroy(&ping->initial);
	grpc_metadata_array_destroy(&ping->trailing);
	grpc_slice_unref(ping->details);
	if (ping->received)
		grpc_byte_buffer_destroy(ping->received);
	grpc_call_unref(ping->call);
	channel_let_go(ping->channel);
	loop_free_later(loop, free, ping);
}

static void on_done(struct rpc_tag *tag, bool ok)
{
	struct ping *ping =
		(struct ping *)((char *)tag - offsetof(struct ping, tag));
	char *text = grpc_slice_to_c_string(ping->details);
	struct ping_answer answer = {
		.status = ping->status,
		.text = text,
		.rtt_us = now_us() - ping->started_us,
	};

	if (ping->received)
		rpc_meter_received(ping->span.meter,
			grpc_byte_buffer_length(ping->received));
	rpc_span_end(&ping->span, ping->status);
	if (ping->on_answer)
		ping->on_answer(ping->arg, &answer);
	gpr_free(text);
	ping_free(ping);
}

static void start(struct ping *ping)
{
	grpc_slice empty = grpc_empty_slice();
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&empty, 1);
	grpc_op ops[] = {
		{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE,
			.data.send_message.send_message = message},
		{.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
		{.op = GRPC_OP_RECV_INITIAL_METADATA,
			.data.recv_initial_metadata.recv_initial_metadata =
				&ping->initial},
		{.op = GRPC_OP_RECV_MESSAGE,
			.data.recv_message.recv_message = &ping->received},
		{.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			.data.recv_status_on_client = {.trailing_metadata =
							       &ping->trailing,
				.status = &ping->status,
				.status_details = &ping->details}},
	};
	grpc_call_error error = grpc_call_start_batch(ping->call, ops,
		sizeof(ops) / sizeof(ops[0]), &ping->tag, NULL);

	assert(error == GRPC_CALL_OK);
	(void)error;
	grpc_byte_buffer_destroy(message);
}

struct ping *ping_start(struct channel *channel,
	void (*on_answer)(void *arg, const struct ping_answer *answer),
	void *arg)
{
	struct ping *ping = xcalloc(1, sizeof(*ping));
	grpc_slice path = grpc_slice_from_static_string(PEERD_METHOD_PING);

	ping->channel = channel;
	ping->on_answer = on_answer;
	ping->arg = arg;
	ping->tag.run = on_done;
	ping->details = grpc_empty_slice();
	ping->started_us = now_us();
	grpc_metadata_array_init(&ping->initial);
	grpc_metadata_array_init(&ping->trailing);
	rpc_span_start(&ping->span,
		rpc_meter(&channel_peerd(channel)->rpc, RPC_CLIENT, RPC_PING));
	rpc_meter_sent(ping->span.meter, 0);
	ping->call = grpc_channel_create_call(channel_hold(channel), NULL,
		GRPC_PROPAGATE_DEFAULTS,
		rpc_cq_queue(channel_peerd(channel)->cq), path, NULL,
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
			gpr_time_from_millis(PING_LIMIT_MS, GPR_TIMESPAN)),
		NULL);
	start(ping);
	return ping;
}

void ping_cancel(struct ping *ping)
{
	if (!ping)
		return;
	ping->on_answer = NULL;
	grpc_call_cancel(ping->call, NULL);
}
