/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes the Frame of proto/peer.proto by hand, because protobuf-c
 * would copy every payload twice. Talks to nobody, owns nothing.
 *
 * A newcomer's trap: protobuf allows more than the reference writes. Unknown
 * fields are skipped, a later variant replaces an earlier one, and one variant
 * given twice is merged, so the last Bytes count. gRPC cuts a message into
 * slices anywhere, even inside a varint.
 */
#include "peerd/frame.h"

#include <assert.h>
#include <stdbool.h>

enum wire { WIRE_VARINT, WIRE_64BIT, WIRE_LENGTH, WIRE_32BIT = 5 };

enum field {
	FIELD_DIAL_REQUEST = 1,
	FIELD_ESTABLISHED = 2,
	FIELD_DATA = 3,
	FIELD_EOF = 1001,
	FIELD_CREDIT = 1002,
};

#define DATA_FIELD_BYTES 1

static size_t put_varint(uint8_t *out, size_t value)
{
	size_t n = 0;

	while (value >= 0x80) {
		out[n++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	out[n++] = (uint8_t)value;
	return n;
}

size_t frame_data_header(uint8_t out[FRAME_HEADER_MAX], size_t len)
{
	uint8_t inner[FRAME_HEADER_MAX];
	size_t inner_len = 0;
	size_t n = 0;

	assert(len > 0 && len <= FRAME_DATA_MAX);
	inner[inner_len++] = DATA_FIELD_BYTES << 3 | WIRE_LENGTH;
	inner_len += put_varint(inner + inner_len, len);

	out[n++] = FIELD_DATA << 3 | WIRE_LENGTH;
	n += put_varint(out + n, inner_len + len);
	for (size_t i = 0; i < inner_len; i++)
		out[n++] = inner[i];
	return n;
}

struct cursor {
	const struct iovec *pieces;
	size_t count;
	size_t piece;  /* we are in this one, */
	size_t within; /* here */
	size_t at;     /* counted over all pieces */
	size_t end;    /* of the message being read */
};

static bool next_byte(struct cursor *c, uint8_t *out)
{
	if (c->at == c->end)
		return false;
	while (c->within == c->pieces[c->piece].iov_len) {
		c->piece++;
		c->within = 0;
	}
	*out = ((const uint8_t *)c->pieces[c->piece].iov_base)[c->within++];
	c->at++;
	return true;
}

static bool skip(struct cursor *c, size_t len)
{
	if (len > c->end - c->at)
		return false;
	c->at += len;
	while (len > 0) {
		size_t left = c->pieces[c->piece].iov_len - c->within;

		if (left >= len) {
			c->within += len;
			return true;
		}
		len -= left;
		c->piece++;
		c->within = 0;
	}
	return true;
}

static bool next_varint(struct cursor *c, uint64_t *out)
{
	uint64_t value = 0;
	uint8_t byte;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (!next_byte(c, &byte))
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*out = value;
			return true;
		}
	}
	return false;
}

/* One field's number and wire type; of a WIRE_LENGTH one also its length,
 * checked to lie inside the message. */
static bool next_field(
	struct cursor *c, uint64_t *number, unsigned *wire, size_t *len)
{
	uint64_t tag, value;

	if (!next_varint(c, &tag) || tag >> 3 == 0 || tag >> 3 >= 1u << 29)
		return false;
	*number = tag >> 3;
	*wire = tag & 7;
	*len = 0;
	if (*wire != WIRE_LENGTH)
		return true;
	if (!next_varint(c, &value) || value > c->end - c->at)
		return false;
	*len = (size_t)value;
	return true;
}

static bool skip_field(struct cursor *c, unsigned wire, size_t len)
{
	uint64_t ignored;

	switch (wire) {
	case WIRE_VARINT:
		return next_varint(c, &ignored);
	case WIRE_64BIT:
		return skip(c, 8);
	case WIRE_LENGTH:
		return skip(c, len);
	case WIRE_32BIT:
		return skip(c, 4);
	}
	return false; /* groups are not of proto3 */
}

static enum frame_kind kind_of_field(uint64_t number)
{
	switch (number) {
	case FIELD_DIAL_REQUEST:
		return FRAME_DIAL_REQUEST;
	case FIELD_ESTABLISHED:
		return FRAME_ESTABLISHED;
	case FIELD_DATA:
		return FRAME_DATA;
	case FIELD_EOF:
	case FIELD_CREDIT:
		return FRAME_EXTENSION;
	}
	return FRAME_NONE;
}

/* Reads a Data message of len bytes; leaves frame's payload as it was when it
 * has no Bytes. */
static bool read_data(struct cursor *c, size_t len, struct frame *frame)
{
	size_t outer_end = c->end;
	bool ok = true;

	c->end = c->at + len;
	while (ok && c->at < c->end) {
		uint64_t number;
		unsigned wire;
		size_t field_len;

		ok = next_field(c, &number, &wire, &field_len);
		if (ok && number == DATA_FIELD_BYTES) {
			if (wire != WIRE_LENGTH)
				return false;
			frame->offset = c->at;
			frame->len = field_len;
		}
		ok = ok && skip_field(c, wire, field_len);
	}
	c->end = outer_end;
	return ok;
}

struct frame frame_parse(const struct iovec *pieces, size_t count)
{
	const struct frame malformed = {.kind = FRAME_MALFORMED};
	struct cursor c = {.pieces = pieces, .count = count};
	struct frame frame = {.kind = FRAME_NONE};

	for (size_t i = 0; i < count; i++)
		c.end += pieces[i].iov_len;
	while (c.at < c.end) {
		enum frame_kind kind;
		uint64_t number;
		unsigned wire;
		size_t len;

		if (!next_field(&c, &number, &wire, &len))
			return malformed;
		kind = kind_of_field(number);
		if (kind != FRAME_NONE && wire != WIRE_LENGTH)
			return malformed;
		if (kind != FRAME_NONE && kind != frame.kind)
			frame = (struct frame){.kind = kind};
		if (kind == FRAME_DATA) {
			if (!read_data(&c, len, &frame))
				return malformed;
			continue;
		}
		if (kind != FRAME_NONE) {
			frame.offset = c.at;
			frame.len = len;
		}
		if (!skip_field(&c, wire, len))
			return malformed;
	}
	return frame;
}
