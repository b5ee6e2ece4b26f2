/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One Ping to a peer that has become unreachable: see probe.h. Owns its call;
 * nobody waits for it.
 */
#include "peerd/probe.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdlib.h>

#include "shared/alloc.h"
#include "shared/log.h"

struct probe {
	struct channel *channel;
	grpc_call *call;
	struct rpc_tag tag;
	grpc_metadata_array initial;
	grpc_metadata_array trailing;
	grpc_byte_buffer *received;
	grpc_status_code status;
	grpc_slice details;
};

static void probe_free(struct probe *probe)
{
	struct loop *loop = channel_peerd(probe->channel)->loop;

	grpc_metadata_array_destroy(&probe->initial);
	grpc_metadata_array_destroy(&probe->trailing);
	grpc_slice_unref(probe->details);
	if (probe->received)
		grpc_byte_buffer_destroy(probe->received);
	grpc_call_unref(probe->call);
	channel_let_go(probe->channel);
	loop_free_later(loop, free, probe);
}

static void on_answer(struct rpc_tag *tag, bool ok)
{
	struct probe *probe =
		(struct probe *)((char *)tag - offsetof(struct probe, tag));
	char *details = grpc_slice_to_c_string(probe->details);

	if (probe->status == GRPC_STATUS_UNAVAILABLE ||
		probe->status == GRPC_STATUS_DEADLINE_EXCEEDED) {
		channel_note_error(probe->channel, details);
		log_warn("peer unreachable: %s peer=%s", details,
			channel_peer_id(probe->channel));
	}
	gpr_free(details);
	probe_free(probe);
}

static void start(struct probe *probe)
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
				&probe->initial},
		{.op = GRPC_OP_RECV_MESSAGE,
			.data.recv_message.recv_message = &probe->received},
		{.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			.data.recv_status_on_client = {.trailing_metadata =
							       &probe->trailing,
				.status = &probe->status,
				.status_details = &probe->details}},
	};
	grpc_call_error error = grpc_call_start_batch(probe->call, ops,
		sizeof(ops) / sizeof(ops[0]), &probe->tag, NULL);

	assert(error == GRPC_CALL_OK);
	(void)error;
	grpc_byte_buffer_destroy(message);
}

void probe_start(struct channel *channel)
{
	struct probe *probe = xcalloc(1, sizeof(*probe));
	grpc_slice path = grpc_slice_from_static_string(PEERD_METHOD_PING);

	probe->channel = channel;
	probe->tag.run = on_answer;
	probe->details = grpc_empty_slice();
	grpc_metadata_array_init(&probe->initial);
	grpc_metadata_array_init(&probe->trailing);
	probe->call = grpc_channel_create_call(channel_hold(channel), NULL,
		GRPC_PROPAGATE_DEFAULTS,
		rpc_cq_queue(channel_peerd(channel)->cq), path, NULL,
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
			gpr_time_from_millis(PROBE_MS, GPR_TIMESPAN)),
		NULL);
	start(probe);
}
