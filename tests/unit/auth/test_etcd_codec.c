/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as etcd reads them, and its keys and errors as we do. */
#include "tests/unit/test.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <string.h>

#include "auth/etcd_codec.h"

#define ROOT "/pw/"

#define assert_bytes(expected, expected_len, data_)                       \
	do {                                                              \
		assert_int_equal(expected_len, (data_).len);              \
		assert_memory_equal(expected, (data_).data, (data_).len); \
	} while (0)

static void *unpack(
	grpc_byte_buffer *packed, const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *message = rpc_unpack(descriptor, packed);

	grpc_byte_buffer_destroy(packed);
	assert_non_null(message);
	return message;
}

static Peerway__Etcd__RangeRequest *range_of(const struct backend_range *range)
{
	return unpack(etcd_pack_range(ROOT, range),
		&peerway__etcd__range_request__descriptor);
}

static void a_prefix_is_a_range(void **state)
{
	struct backend_range range = {
		.prefix = "a/", .limit = 5, .at_revision = 7};
	Peerway__Etcd__RangeRequest *request = range_of(&range);

	assert_bytes("/pw/k/a/", 8, request->key);
	assert_bytes("/pw/k/a0", 8, request->range_end);
	assert_int_equal(5, request->limit);
	assert_int_equal(7, request->revision);
	protobuf_c_message_free_unpacked(&request->base, NULL);
	/* the next key behind "a/x" */
	range.after = "a/x";
	request = range_of(&range);
	assert_bytes("/pw/k/a/x", 10, request->key);
	assert_bytes("/pw/k/a0", 8, request->range_end);
	protobuf_c_message_free_unpacked(&request->base, NULL);
	/* everything of ours, and nothing else */
	range = (struct backend_range){.prefix = "", .limit = 1};
	request = range_of(&range);
	assert_bytes("/pw/k/", 6, request->key);
	assert_bytes("/pw/k0", 6, request->range_end);
	protobuf_c_message_free_unpacked(&request->base, NULL);
}

static void an_exact_range_is_a_key(void **state)
{
	struct backend_range range = {.prefix = "a", .exact = true, .limit = 1};
	Peerway__Etcd__RangeRequest *request = range_of(&range);

	assert_bytes("/pw/k/a", 7, request->key);
	assert_int_equal(0, request->range_end.len);
	protobuf_c_message_free_unpacked(&request->base, NULL);
}

static void a_transaction_is_one(void **state)
{
	struct backend_compare compares[] = {
		{.kind = BACKEND_ABSENT, .key = "a"},
		{.kind = BACKEND_MOD_REVISION, .key = "b", .mod_revision = 9},
		/* never holds: of an absent key etcd would say that it does */
		{.kind = BACKEND_MOD_REVISION, .key = "c"},
		{.kind = BACKEND_VALUE, .key = "d", .value = "", .len = 0},
	};
	struct backend_op ops[] = {
		{.kind = BACKEND_PUT,
			.key = "p",
			.value = "v\0w",
			.len = 3,
			.lease = 77},
		{.kind = BACKEND_DELETE, .key = "q"},
	};
	struct backend_txn txn = {compares, 4, ops, 2};
	Peerway__Etcd__TxnRequest *request = unpack(etcd_pack_txn(ROOT, &txn),
		&peerway__etcd__txn_request__descriptor);

	assert_int_equal(4, request->n_compare);
	assert_bytes("/pw/k/a", 7, request->compare[0]->key);
	assert_int_equal(PEERWAY__ETCD__COMPARE__TARGET__CREATE,
		request->compare[0]->target);
	assert_int_equal(0, request->compare[0]->create_revision);
	assert_int_equal(9, request->compare[1]->mod_revision);
	assert_int_equal(-1, request->compare[2]->mod_revision);
	assert_int_equal(PEERWAY__ETCD__COMPARE__TARGET_UNION_VALUE,
		request->compare[3]->target_union_case);
	assert_int_equal(2, request->n_success);
	assert_bytes("/pw/k/p", 7, request->success[0]->put->key);
	assert_bytes("v\0w", 3, request->success[0]->put->value);
	assert_int_equal(77, request->success[0]->put->lease);
	assert_bytes("/pw/k/q", 7, request->success[1]->delete_range->key);
	protobuf_c_message_free_unpacked(&request->base, NULL);
}

static enum etcd_kind kind_of(const char *key, size_t len, etcd_key rest)
{
	ProtobufCBinaryData data = {len, (uint8_t *)key};

	return etcd_key_kind(ROOT, &data, rest);
}

static void keys_are_told_apart(void **state)
{
	etcd_key rest;
	char longest[ETCD_KEY_MAX + 8];

	assert_int_equal(ETCD_DATA, kind_of("/pw/k/pub/x", 11, rest));
	assert_string_equal("pub/x", rest);
	assert_int_equal(ETCD_LEASE, kind_of("/pw/lease/00ff", 14, rest));
	assert_string_equal("00ff", rest);
	assert_int_equal(ETCD_STORE, kind_of("/pw/store", 9, rest));
	assert_int_equal(ETCD_OTHER, kind_of("/pw/what", 8, rest));
	assert_int_equal(ETCD_OTHER, kind_of("/other/k/x", 10, rest));
	assert_int_equal(ETCD_OTHER, kind_of("/p", 2, rest));
	assert_int_equal(ETCD_OTHER, kind_of("/pw/k/a\0b", 9, rest));
	memset(longest, 'x', sizeof(longest));
	memcpy(longest, "/pw/k/", 6);
	assert_int_equal(ETCD_OTHER, kind_of(longest, sizeof(longest), rest));
}

static void a_leases_ttl_has_bounds(void **state)
{
	static const struct {
		const char *text;
		uint32_t ttl_ms;
	} cases[] = {{"5000", 5000}, {"", 0}, {"1", 0}, {"3600001", 0},
		{"99999999999999999999", 0}, {"x", 0}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ProtobufCBinaryData value = {
			strlen(cases[i].text), (uint8_t *)cases[i].text};

		assert_int_equal(cases[i].ttl_ms, etcd_lease_ttl(&value));
	}
}

static void errors_are_told_by_text(void **state)
{
	assert_int_equal(BACKEND_OK, etcd_status(0, ""));
	assert_int_equal(BACKEND_NO_LEASE,
		etcd_status(5, "etcdserver: requested lease not found"));
	assert_int_equal(BACKEND_COMPACTED,
		etcd_status(11, "etcdserver: mvcc: required revision has been "
				"compacted"));
	assert_int_equal(BACKEND_FUTURE,
		etcd_status(11, "etcdserver: mvcc: required revision is a "
				"future revision"));
	assert_int_equal(BACKEND_FULL,
		etcd_status(8, "etcdserver: mvcc: database space exceeded"));
	assert_int_equal(BACKEND_UNAVAILABLE,
		etcd_status(8, "etcdserver: too many requests"));
	assert_int_equal(
		BACKEND_UNAVAILABLE, etcd_status(14, "etcdserver: no leader"));
}

static int begin(void **state)
{
	grpc_init();
	return 0;
}

static int end(void **state)
{
	grpc_shutdown();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prefix_is_a_range),
		cmocka_unit_test(an_exact_range_is_a_key),
		cmocka_unit_test(a_transaction_is_one),
		cmocka_unit_test(keys_are_told_apart),
		cmocka_unit_test(a_leases_ttl_has_bounds),
		cmocka_unit_test(errors_are_told_by_text),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
