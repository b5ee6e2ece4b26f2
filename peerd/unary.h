/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One call to a peer with one message each way, and a deadline: Ping, and the
 * questions of the Mesh service.
 */

#include <grpc/grpc.h>
#include <stdint.h>

#include "peerd/channel.h"

struct unary;

struct unary_answer {
	grpc_status_code status;
	const char *text;	    /* of the status */
	grpc_byte_buffer *received; /* borrowed; NULL: none */
	int64_t us;		    /* from the start to here */
};

struct unary_setup {
	const char *method;	   /* static */
	grpc_byte_buffer *message; /* borrowed */
	uint32_t limit_ms;
	struct rpc_meter *meter; /* NULL: not counted */
	/* Once, on the loop's thread, unless cancelled before. */
	void (*on_answer)(void *arg, const struct unary_answer *answer);
	void *arg;
};

/* Holds the channel until the answer is here, at most limit_ms. */
struct unary *unary_start(
	struct channel *channel, const struct unary_setup *setup);
/* No answer follows. NULL is fine. */
void unary_cancel(struct unary *unary);
