/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protobuf-c messages to and from gRPC byte buffers. A buffer may come in any
 * number of slices, so unpacking gathers them first; sizes are bounded by the
 * channel's and server's GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH.
 */

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#include "shared/rpc.h"

grpc_byte_buffer *rpc_pack(const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	grpc_slice slice = grpc_slice_malloc(size);
	grpc_byte_buffer *buffer;

	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

ProtobufCMessage *rpc_unpack(
	const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer)
{
	ProtobufCMessage *message;
	grpc_byte_buffer_reader reader;
	grpc_slice slice;

	if (!grpc_byte_buffer_reader_init(&reader, buffer))
		return NULL;
	slice = grpc_byte_buffer_reader_readall(&reader);
	message = protobuf_c_message_unpack(descriptor, NULL,
		GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
	grpc_slice_unref(slice);
	grpc_byte_buffer_reader_destroy(&reader);
	return message;
}
