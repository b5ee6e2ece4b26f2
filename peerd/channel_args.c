/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC settings common to both sides of the mesh. A newcomer's trap: what is
 * not here was left at its default on purpose. The BDP probe above all: without
 * it a connection keeps 64 KiB under way, which is 3 MB/s at 20 ms.
 */
#include "peerd/channel_args.h"

#include <assert.h>

#include "peerd/frame.h"

static grpc_arg *next(struct channel_args *args, const char *key)
{
	assert(args->list.num_args < CHANNEL_ARGS_MAX);
	args->list.args = args->args;
	args->args[args->list.num_args].key = (char *)key;
	return &args->args[args->list.num_args++];
}

void channel_args_add_int(struct channel_args *args, const char *key, int value)
{
	grpc_arg *arg = next(args, key);

	arg->type = GRPC_ARG_INTEGER;
	arg->value.integer = value;
}

void channel_args_add_string(
	struct channel_args *args, const char *key, const char *value)
{
	grpc_arg *arg = next(args, key);

	arg->type = GRPC_ARG_STRING;
	arg->value.string = (char *)value;
}

void channel_args_init(struct channel_args *args, grpc_resource_quota *quota)
{
	grpc_arg *arg;

	*args = (struct channel_args){0};
	/* Without it each stalled stream may hold megabytes. */
	arg = next(args, GRPC_ARG_RESOURCE_QUOTA);
	arg->type = GRPC_ARG_POINTER;
	arg->value.pointer.p = quota;
	arg->value.pointer.vtable = grpc_resource_quota_arg_vtable();
	/* The reference's server allows one ping in 10 s and ends the
	 * connection of whoever sends more. */
	channel_args_add_int(args, GRPC_ARG_KEEPALIVE_TIME_MS, 11000);
	channel_args_add_int(args, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 9000);
	channel_args_add_int(args, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
	channel_args_add_int(args, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
	channel_args_add_int(
		args, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, FRAME_RECEIVE_MAX);
	/* 20 KB less for each idle stream */
	channel_args_add_int(args, GRPC_ARG_ENABLE_CHANNELZ, 0);
	channel_args_add_int(args, GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
}
