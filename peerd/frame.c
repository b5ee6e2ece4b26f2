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

enum wire { WIRE_VARINT, WIRE_64BIT, WIRE_LENGTH, WIRE_32BIT = 5 };

enum field {
	FIELD_DIAL_REQUEST = 1,
	FIELD_ESTABLISHED = 2,
	FIELD_DATA = 3,
	FIELD_EOF = 1001,
	FIELD_CREDIT = 1002,
};

#define DATA_FIELD_BYTES 1
#define CREDIT_FIELD_BYTES 1
#define CREDIT_FIELD_BLOCKED 2

static size_t put_varint(uint8_t *out, uint64_t value)
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

	assert(len > 0 && len <= FRAME_DATA_64K);
	inner[inner_len++] = DATA_FIELD_BYTES << 3 | WIRE_LENGTH;
	inner_len += put_varint(inner + inner_len, len);

	out[n++] = FIELD_DATA << 3 | WIRE_LENGTH;
	n += put_varint(out + n, inner_len + len);
	for (size_t i = 0; i < inner_len; i++)
		out[n++] = inner[i];
	return n;
}

/* A variant's tag, and its length when that is below 128. */
static size_t put_head(uint8_t *out, enum field field, size_t len)
{
	size_t n = put_varint(out, (uint64_t)field << 3 | WIRE_LENGTH);

	out[n++] = (uint8_t)len;
	return n;
}

size_t frame_eof(uint8_t out[FRAME_CONTROL_MAX])
{
	return put_head(out, FIELD_EOF, 0);
}

size_t frame_credit(
	uint8_t out[FRAME_CONTROL_MAX], uint64_t bytes, bool blocked)
{
	uint8_t inner[FRAME_CONTROL_MAX];
	size_t len = 0;
	size_t n;

	if (bytes) {
		inner[len++] = CREDIT_FIELD_BYTES << 3 | WIRE_VARINT;
		len += put_varint(inner + len, bytes);
	}
	if (blocked) {
		inner[len++] = CREDIT_FIELD_BLOCKED << 3 | WIRE_VARINT;
		inner[len++] = 1;
	}
	n = put_head(out, FIELD_CREDIT, len);
	for (size_t i = 0; i < len; i++)
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
		return FRAME_EOF;
	case FIELD_CREDIT:
		return FRAME_CREDIT;
	}
	return FRAME_NONE;
}

/* Reads one field of a Data; what has no Bytes leaves the payload as it was. */
static bool take_data(struct cursor *c, uint64_t number, unsigned wire,
	size_t len, struct frame *frame)
{
	if (number != DATA_FIELD_BYTES)
		return true;
	frame->offset = c->at;
	frame->len = len;
	return wire == WIRE_LENGTH;
}

static bool take_credit(struct cursor *c, uint64_t number, unsigned wire,
	size_t len, struct frame *frame)
{
	struct cursor look = *c;
	uint64_t value;

	if (number != CREDIT_FIELD_BYTES && number != CREDIT_FIELD_BLOCKED)
		return true;
	if (wire != WIRE_VARINT || !next_varint(&look, &value))
		return false;
	if (number == CREDIT_FIELD_BYTES)
		frame->credit = value;
	else
		frame->blocked = value != 0;
	return true;
}

/* Reads a variant's message of len bytes, field by field; each is shown to take
 * and then skipped. */
static bool read_fields(struct cursor *c, size_t len, struct frame *frame,
	bool (*take)(struct cursor *c, uint64_t number, unsigned wire,
		size_t len, struct frame *frame))
{
	size_t outer_end = c->end;
	bool ok = true;

	c->end = c->at + len;
	while (ok && c->at < c->end) {
		uint64_t number;
		unsigned wire;
		size_t field_len;

		ok = next_field(c, &number, &wire, &field_len) &&
		     take(c, number, wire, field_len, frame) &&
		     skip_field(c, wire, field_len);
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
		if (kind == FRAME_DATA || kind == FRAME_CREDIT) {
			if (!read_fields(&c, len, &frame,
				    kind == FRAME_DATA ? take_data
						       : take_credit))
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
