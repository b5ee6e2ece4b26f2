/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC's byte buffers from the outside: see message.h. A newcomer's trap: short
 * slices hold their bytes inside the grpc_slice itself, so pieces point into
 * the buffer's own array and live exactly as long as the message.
 */
#include "peerd/message.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <string.h>

#include "shared/alloc.h"

static grpc_slice whole(grpc_byte_buffer *message)
{
	grpc_byte_buffer_reader reader;
	grpc_slice slice;

	if (!grpc_byte_buffer_reader_init(&reader, message))
		return grpc_empty_slice();
	slice = grpc_byte_buffer_reader_readall(&reader);
	grpc_byte_buffer_reader_destroy(&reader);
	return slice;
}

size_t message_pieces(
	grpc_byte_buffer **message, struct iovec out[MESSAGE_PIECES_MAX])
{
	grpc_slice_buffer *buffer = &(*message)->data.raw.slice_buffer;

	if (buffer->count > MESSAGE_PIECES_MAX) {
		grpc_slice slice = whole(*message);

		grpc_byte_buffer_destroy(*message);
		*message = grpc_raw_byte_buffer_create(&slice, 1);
		grpc_slice_unref(slice);
		buffer = &(*message)->data.raw.slice_buffer;
	}
	for (size_t i = 0; i < buffer->count; i++) {
		out[i].iov_base = GRPC_SLICE_START_PTR(buffer->slices[i]);
		out[i].iov_len = GRPC_SLICE_LENGTH(buffer->slices[i]);
	}
	return buffer->count;
}

size_t message_trim(
	struct iovec *pieces, size_t count, size_t offset, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < count && len > 0; i++) {
		struct iovec piece = pieces[i];

		if (offset >= piece.iov_len) {
			offset -= piece.iov_len;
			continue;
		}
		piece.iov_base = (char *)piece.iov_base + offset;
		piece.iov_len -= offset;
		offset = 0;
		if (piece.iov_len > len)
			piece.iov_len = len;
		len -= piece.iov_len;
		pieces[n++] = piece;
	}
	return n;
}

grpc_byte_buffer *message_of(const void *bytes, size_t len)
{
	grpc_slice slice = grpc_slice_from_copied_buffer(bytes, len);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	return message;
}

uint8_t *message_bytes(grpc_byte_buffer *message, size_t max, size_t *len_out)
{
	size_t len = grpc_byte_buffer_length(message);
	grpc_slice slice;
	uint8_t *bytes;

	if (len > max)
		return NULL;
	slice = whole(message);
	len = GRPC_SLICE_LENGTH(slice);
	bytes = xcalloc(1, len + 1);
	memcpy(bytes, GRPC_SLICE_START_PTR(slice), len);
	grpc_slice_unref(slice);
	*len_out = len;
	return bytes;
}
