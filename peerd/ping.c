/* SPDX-License-Identifier: Apache-2.0 */
/* One Ping to a peer: see ping.h. health.c keeps the score. */
#include "peerd/ping.h"

#include <grpc/byte_buffer.h>

#include "peerd/message.h"

struct unary *ping_start(struct channel *channel,
	void (*on_answer)(void *arg, const struct unary_answer *answer),
	void *arg)
{
	grpc_byte_buffer *message = message_of("", 0);
	const struct unary_setup setup = {
		.method = PEERD_METHOD_PING,
		.message = message,
		.limit_ms = PING_LIMIT_MS,
		.meter = rpc_meter(
			&channel_peerd(channel)->rpc, RPC_CLIENT, RPC_PING),
		.on_answer = on_answer,
		.arg = arg,
	};
	struct unary *unary = unary_start(channel, &setup);

	grpc_byte_buffer_destroy(message);
	return unary;
}
