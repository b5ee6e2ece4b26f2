/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/frame: our bytes against protobuf-c's own, in any cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "peer.pb-c.h"
#include "peerd/frame.h"

static uint8_t packed[1 << 20];

static size_t pack_data(const uint8_t *bytes, size_t len)
{
	Proto__Data data = PROTO__DATA__INIT;
	Proto__Frame frame = PROTO__FRAME__INIT;

	data.bytes.data = (uint8_t *)bytes;
	data.bytes.len = len;
	frame.message_case = PROTO__FRAME__MESSAGE_DATA;
	frame.data = &data;
	return proto__frame__pack(&frame, packed);
}

static struct frame parse(const void *bytes, size_t len)
{
	struct iovec piece = {.iov_base = (void *)bytes, .iov_len = len};

	return frame_parse(&piece, 1);
}

static void header_is_what_protobuf_c_writes(void **state)
{
	static const size_t lengths[] = {
		1, 2, 124, 125, 126, 127, 128, 129, 16380, 16383, 16384, 65536};
	static uint8_t bytes[FRAME_DATA_64K];

	memset(bytes, 0xa5, sizeof(bytes));
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint8_t header[FRAME_HEADER_MAX];
		size_t n = frame_data_header(header, lengths[i]);
		size_t len = pack_data(bytes, lengths[i]);

		assert_int_equal(len, n + lengths[i]);
		assert_memory_equal(packed, header, n);
	}
}

static void data_is_found_however_it_is_cut(void **state)
{
	uint8_t bytes[300];
	size_t len;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	len = pack_data(bytes, sizeof(bytes));
	for (size_t a = 0; a <= len; a++) {
		for (size_t b = a; b <= len; b += 7) {
			struct iovec pieces[] = {
				{packed, a},
				{packed + a, 0},
				{packed + a, b - a},
				{packed + b, len - b},
			};
			struct frame frame = frame_parse(pieces, 4);

			assert_int_equal(frame.kind, FRAME_DATA);
			assert_int_equal(frame.len, sizeof(bytes));
			assert_int_equal(frame.offset, len - sizeof(bytes));
		}
	}
}

static void four_mebibytes_are_accepted(void **state)
{
	size_t len = 4 << 20;
	uint8_t *bytes = calloc(1, len + 32);
	uint8_t header[] = {
		0x1a, 0x85, 0x80, 0x80, 0x02, 0x0a, 0x80, 0x80, 0x80, 0x02};
	struct frame frame;

	memcpy(bytes, header, sizeof(header));
	frame = parse(bytes, len + sizeof(header));
	assert_int_equal(frame.kind, FRAME_DATA);
	assert_int_equal(frame.len, len);
	free(bytes);
}

static void each_variant_has_its_kind(void **state)
{
	assert_int_equal(parse("\x0a\x00", 2).kind, FRAME_DIAL_REQUEST);
	assert_int_equal(parse("\x12\x00", 2).kind, FRAME_ESTABLISHED);
	assert_int_equal(parse("\x1a\x00", 2).kind, FRAME_DATA);
	assert_int_equal(parse("\x1a\x00", 2).len, 0);
	/* field 1001, Eof; field 1002, Credit */
	assert_int_equal(parse("\xca\x3e\x00", 3).kind, FRAME_EOF);
	assert_int_equal(parse("\xd2\x3e\x00", 3).kind, FRAME_CREDIT);
	assert_int_equal(parse("", 0).kind, FRAME_NONE);
}

static void control_frames_are_what_protobuf_c_writes(void **state)
{
	static const uint64_t grants[] = {0, 1, 127, 128, 65536, UINT64_MAX};
	Proto__Frame frame = PROTO__FRAME__INIT;
	Proto__Credit credit = PROTO__CREDIT__INIT;
	Proto__Eof eof = PROTO__EOF__INIT;
	uint8_t out[FRAME_CONTROL_MAX];
	size_t len;

	frame.message_case = PROTO__FRAME__MESSAGE_EOF;
	frame.eof = &eof;
	len = frame_eof(out);
	assert_int_equal(len, proto__frame__pack(&frame, packed));
	assert_memory_equal(out, packed, len);
	frame.message_case = PROTO__FRAME__MESSAGE_CREDIT;
	frame.credit = &credit;
	for (size_t i = 0; i < sizeof(grants) / sizeof(grants[0]); i++) {
		struct frame read;

		credit.bytes = grants[i];
		credit.blocked = i % 2;
		len = frame_credit(out, grants[i], i % 2);
		assert_int_equal(len, proto__frame__pack(&frame, packed));
		assert_memory_equal(out, packed, len);
		read = parse(out, len);
		assert_int_equal(read.kind, FRAME_CREDIT);
		assert_true(read.credit == grants[i]);
		assert_int_equal(read.blocked, i % 2);
	}
}

static void unknown_fields_are_skipped(void **state)
{
	/* 9: varint 300, 10: 8 bytes, 11: 2 bytes, 12: 4 bytes, then Data "x"
	 * with an unknown field of its own before its Bytes */
	static const char bytes[] = "\x48\xac\x02"
				    "\x51\1\2\3\4\5\6\7\x08"
				    "\x5a\x02hi"
				    "\x65\1\2\3\4"
				    "\x1a\x05\x10\x01\x0a\x01x";
	struct frame frame = parse(bytes, sizeof(bytes) - 1);

	assert_int_equal(frame.kind, FRAME_DATA);
	assert_int_equal(frame.len, 1);
	assert_int_equal(bytes[frame.offset], 'x');
}

static void the_last_variant_counts(void **state)
{
	static const char established[] = "\x1a\x03\x0a\x01x\x12\x00";
	static const char merged[] = "\x1a\x03\x0a\x01x\x1a\x02\x10\x01";
	static const char replaced[] = "\x1a\x03\x0a\x01x\x1a\x03\x0a\x01y";
	struct frame frame;

	assert_int_equal(parse(established, sizeof(established) - 1).kind,
		FRAME_ESTABLISHED);
	frame = parse(merged, sizeof(merged) - 1);
	assert_int_equal(frame.len, 1);
	frame = parse(replaced, sizeof(replaced) - 1);
	assert_int_equal(replaced[frame.offset], 'y');
}

static void nonsense_is_malformed(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {
		{"\x1a", 1},		     /* no length */
		{"\x1a\x05xx", 4},	     /* longer than the message */
		{"\x1a\x02\x0a\x05", 4},     /* Bytes longer than their Data */
		{"\x18\x01", 2},	     /* Data as a number */
		{"\x1a\x02\x08\x01", 4},     /* Bytes as a number */
		{"\x00\x00", 2},	     /* field 0 */
		{"\xd2\x3e\x01\x08", 4},     /* Credit cut short */
		{"\xd2\x3e\x02\x0a\x00", 5}, /* Credit's Bytes as text */
		{"\x4b", 1},		     /* a group */
		{"\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12},
		{"\x51\1\2", 3}, /* eight bytes cut short */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(parse(cases[i].bytes, cases[i].len).kind,
			FRAME_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_is_what_protobuf_c_writes),
		cmocka_unit_test(data_is_found_however_it_is_cut),
		cmocka_unit_test(four_mebibytes_are_accepted),
		cmocka_unit_test(each_variant_has_its_kind),
		cmocka_unit_test(control_frames_are_what_protobuf_c_writes),
		cmocka_unit_test(unknown_fields_are_skipped),
		cmocka_unit_test(the_last_variant_counts),
		cmocka_unit_test(nonsense_is_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
