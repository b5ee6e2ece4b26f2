/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever a peer sends as a Frame: our reader, cut into pieces at every place
 * the first byte says, finds the same payload in each cut, and never accepts
 * as Data what protobuf-c reads as something else.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "peer.pb-c.h"
#include "peerd/ext.h"
#include "peerd/frame.h"
#include "peerd/request.h"

static void require(int condition)
{
	if (!condition)
		abort();
}

static void same_in_pieces(const uint8_t *data, size_t size, size_t step)
{
	struct iovec whole = {.iov_base = (void *)data, .iov_len = size};
	struct iovec pieces[64];
	struct frame one = frame_parse(&whole, 1);
	struct frame cut;
	size_t count = 0;
	size_t at = 0;

	while (at < size) {
		size_t len = step;

		if (len > size - at || count == 63)
			len = size - at;
		pieces[count].iov_base = (void *)(data + at);
		pieces[count++].iov_len = len;
		at += len;
	}
	cut = frame_parse(pieces, count);
	require(cut.kind == one.kind && cut.len == one.len &&
		cut.offset == one.offset && cut.credit == one.credit &&
		cut.blocked == one.blocked);
	require(one.offset <= size && one.len <= size - one.offset);
}

static void same_as_protobuf_c(const uint8_t *data, size_t size)
{
	struct iovec whole = {.iov_base = (void *)data, .iov_len = size};
	struct frame frame = frame_parse(&whole, 1);
	Proto__Frame *theirs = proto__frame__unpack(NULL, size, data);

	if (theirs && frame.kind == FRAME_DATA) {
		require(theirs->message_case == PROTO__FRAME__MESSAGE_DATA);
		/* protobuf-c does not merge a variant given twice: a second
		 * Data without Bytes hides those of the first. */
		require(theirs->data->bytes.len == frame.len ||
			theirs->data->bytes.len == 0);
		require(theirs->data->bytes.len == 0 ||
			memcmp(theirs->data->bytes.data, data + frame.offset,
				theirs->data->bytes.len) == 0);
	}
	if (theirs)
		proto__frame__free_unpacked(theirs, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct request request;
	char *text;

	if (size == 0)
		return 0;
	same_in_pieces(data + 1, size - 1, 1 + data[0] % 16);
	same_as_protobuf_c(data + 1, size - 1);
	require(!(ext_parse((const char *)data, size) & ~(unsigned)EXT_ALL));
	require(ext_parse_credit((const char *)data, size, 1000) <= 1000);
	if (request_parse(data + 1, size - 1, &request, &text) == REQUEST_OK) {
		char service[64];
		uint32_t port;

		request_service(
			request.destination, service, sizeof(service), &port);
		request_deinit(&request);
	} else {
		free(text);
	}
	return 0;
}
