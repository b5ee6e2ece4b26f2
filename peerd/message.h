/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A gRPC message as frame.h and sendmsg() want it: pieces of memory, borrowed
 * from the message.
 */

#include <grpc/grpc.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* A message in more pieces is made one first. */
#define MESSAGE_PIECES_MAX 64

/* The message's pieces as they lie; their number. May replace *message by an
 * equal one. */
size_t message_pieces(
	grpc_byte_buffer **message, struct iovec out[MESSAGE_PIECES_MAX]);
/* Keeps of the pieces what lies from offset on, len bytes; their number. */
size_t message_trim(
	struct iovec *pieces, size_t count, size_t offset, size_t len);

/* A message of these bytes, copied. Gives. */
grpc_byte_buffer *message_of(const void *bytes, size_t len);
/* The bytes of one of at most max; NULL when it is longer. Gives, to free(). */
uint8_t *message_bytes(grpc_byte_buffer *message, size_t max, size_t *len_out);
