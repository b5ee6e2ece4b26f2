/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * gRPC settings that the server and every channel share; why each has its
 * value is said in channel_args.c.
 */

#include <grpc/grpc.h>

#define CHANNEL_ARGS_MAX 32

struct channel_args {
	grpc_channel_args list; /* points into args */
	grpc_arg args[CHANNEL_ARGS_MAX];
};

/* Borrows quota for as long as args is used. */
void channel_args_init(struct channel_args *args, grpc_resource_quota *quota);
/* key is a string constant. */
void channel_args_add_int(
	struct channel_args *args, const char *key, int value);
/* Borrows value. */
void channel_args_add_string(
	struct channel_args *args, const char *key, const char *value);
