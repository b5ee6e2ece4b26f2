/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See etcd_codec.h. What a newcomer gets wrong: etcd takes an absent key for
 * one of revision 0, so a compare with that revision must be made one that
 * never holds; and what went wrong is told by text alone where the codes are
 * the same.
 */
#include <grpc/status.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/etcd_codec.h"
#include "shared/alloc.h"

static ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

/* ---- keys ---- */

void etcd_data_key(const char *root, const char *key, etcd_key out)
{
	snprintf(out, ETCD_KEY_MAX, "%sk/%s", root, key);
}

void etcd_lease_key(const char *root, uint64_t lease, etcd_key out)
{
	snprintf(out, ETCD_KEY_MAX, "%slease/%016" PRIx64, root, lease);
}

void etcd_store_key(const char *root, etcd_key out)
{
	snprintf(out, ETCD_KEY_MAX, "%sstore", root);
}

enum etcd_kind etcd_key_kind(
	const char *root, const ProtobufCBinaryData *key, etcd_key rest_out)
{
	size_t root_len = strlen(root);

	if (key->len < root_len || key->len >= ETCD_KEY_MAX ||
		memcmp(key->data, root, root_len) ||
		memchr(key->data, '\0', key->len))
		return ETCD_OTHER;
	memcpy(rest_out, key->data + root_len, key->len - root_len);
	rest_out[key->len - root_len] = '\0';
	if (!strcmp(rest_out, "store"))
		return ETCD_STORE;
	if (!strncmp(rest_out, "k/", 2)) {
		memmove(rest_out, rest_out + 2, strlen(rest_out) - 1);
		return ETCD_DATA;
	}
	if (!strncmp(rest_out, "lease/", 6)) {
		memmove(rest_out, rest_out + 6, strlen(rest_out) - 5);
		return ETCD_LEASE;
	}
	return ETCD_OTHER;
}

uint32_t etcd_lease_ttl(const ProtobufCBinaryData *value)
{
	char text[16];
	unsigned long ttl;

	if (value->len >= sizeof(text))
		return 0;
	memcpy(text, value->data, value->len);
	text[value->len] = '\0';
	ttl = strtoul(text, NULL, 10);
	return ttl >= BACKEND_TTL_MIN_MS && ttl <= BACKEND_TTL_MAX_MS
		       ? (uint32_t)ttl
		       : 0;
}

void etcd_prefix_end(const char *prefix, etcd_key out)
{
	size_t len = strlen(prefix);

	memcpy(out, prefix, len + 1);
	out[len - 1]++; /* printable ASCII, so there is a next one */
}

/* ---- range ---- */

grpc_byte_buffer *etcd_pack_range(
	const char *root, const struct backend_range *range)
{
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;
	etcd_key key, end;

	etcd_data_key(root, range->prefix, key);
	if (!range->exact) {
		etcd_prefix_end(key, end);
		request.range_end = bytes_of(end);
	}
	request.key = bytes_of(key);
	if (range->after && strcmp(range->after, range->prefix) >= 0) {
		/* the next key there can be: with a NUL behind it */
		etcd_data_key(root, range->after, key);
		request.key = bytes_of(key);
		request.key.len++;
	}
	request.limit = (int64_t)range->limit;
	request.revision = (int64_t)range->at_revision;
	return rpc_pack(&request.base);
}

grpc_byte_buffer *etcd_pack_newest(const char *root)
{
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;
	etcd_key end;

	etcd_prefix_end(root, end);
	request.key = bytes_of(root);
	request.range_end = bytes_of(end);
	request.limit = 1;
	request.sort_order = PEERWAY__ETCD__RANGE_REQUEST__SORT_ORDER__DESCEND;
	request.sort_target = PEERWAY__ETCD__RANGE_REQUEST__SORT_TARGET__MOD;
	request.keys_only = true;
	return rpc_pack(&request.base);
}

/* ---- transactions ---- */

/* A transaction as messages; values are borrowed. */
struct txn {
	Peerway__Etcd__TxnRequest request;
	Peerway__Etcd__Compare compares[BACKEND_OPS_MAX];
	Peerway__Etcd__Compare *compare_list[BACKEND_OPS_MAX];
	Peerway__Etcd__RequestOp ops[BACKEND_OPS_MAX];
	Peerway__Etcd__RequestOp *op_list[BACKEND_OPS_MAX];
	Peerway__Etcd__PutRequest puts[BACKEND_OPS_MAX];
	Peerway__Etcd__DeleteRangeRequest deletes[BACKEND_OPS_MAX];
	etcd_key keys[2 * BACKEND_OPS_MAX];
	size_t key_count;
};

static struct txn *txn_new(void)
{
	struct txn *txn = xcalloc(1, sizeof(*txn));

	peerway__etcd__txn_request__init(&txn->request);
	txn->request.compare = txn->compare_list;
	txn->request.success = txn->op_list;
	return txn;
}

static grpc_byte_buffer *txn_pack(struct txn *txn)
{
	grpc_byte_buffer *packed = rpc_pack(&txn->request.base);

	free(txn);
	return packed;
}

static Peerway__Etcd__Compare *add_compare(
	struct txn *txn, const char *key, int target, int union_case)
{
	size_t i = txn->request.n_compare++;
	Peerway__Etcd__Compare *compare = &txn->compares[i];

	peerway__etcd__compare__init(compare);
	compare->key = bytes_of(key);
	compare->target = target;
	compare->target_union_case = union_case;
	txn->compare_list[i] = compare;
	return compare;
}

static void add_absent(struct txn *txn, const char *key)
{
	add_compare(txn, key, PEERWAY__ETCD__COMPARE__TARGET__CREATE,
		PEERWAY__ETCD__COMPARE__TARGET_UNION_CREATE_REVISION);
}

static void add_value(
	struct txn *txn, const char *key, const void *value, size_t len)
{
	add_compare(txn, key, PEERWAY__ETCD__COMPARE__TARGET__VALUE,
		PEERWAY__ETCD__COMPARE__TARGET_UNION_VALUE)
		->value = (ProtobufCBinaryData){len, (uint8_t *)value};
}

static Peerway__Etcd__RequestOp *add_op(struct txn *txn)
{
	size_t i = txn->request.n_success++;

	peerway__etcd__request_op__init(&txn->ops[i]);
	txn->op_list[i] = &txn->ops[i];
	return &txn->ops[i];
}

static void add_put(struct txn *txn, const char *key, const void *value,
	size_t len, uint64_t lease)
{
	Peerway__Etcd__PutRequest *put = &txn->puts[txn->request.n_success];
	Peerway__Etcd__RequestOp *op = add_op(txn);

	peerway__etcd__put_request__init(put);
	put->key = bytes_of(key);
	put->value = (ProtobufCBinaryData){len, (uint8_t *)value};
	put->lease = (int64_t)lease;
	op->request_case = PEERWAY__ETCD__REQUEST_OP__REQUEST_PUT;
	op->put = put;
}

static void add_delete(struct txn *txn, const char *key)
{
	Peerway__Etcd__DeleteRangeRequest *del =
		&txn->deletes[txn->request.n_success];
	Peerway__Etcd__RequestOp *op = add_op(txn);

	peerway__etcd__delete_range_request__init(del);
	del->key = bytes_of(key);
	op->request_case = PEERWAY__ETCD__REQUEST_OP__REQUEST_DELETE_RANGE;
	op->delete_range = del;
}

static const char *next_key(struct txn *txn, const char *root, const char *key)
{
	char *out = txn->keys[txn->key_count++];

	etcd_data_key(root, key, out);
	return out;
}

static void translate_compare(
	struct txn *txn, const char *key, const struct backend_compare *from)
{
	switch (from->kind) {
	case BACKEND_ABSENT:
		add_absent(txn, key);
		break;
	case BACKEND_MOD_REVISION:
		add_compare(txn, key, PEERWAY__ETCD__COMPARE__TARGET__MOD,
			PEERWAY__ETCD__COMPARE__TARGET_UNION_MOD_REVISION)
			->mod_revision =
			from->mod_revision ? (int64_t)from->mod_revision : -1;
		break;
	case BACKEND_VALUE:
		add_value(txn, key, from->value, from->len);
		break;
	}
}

grpc_byte_buffer *etcd_pack_txn(
	const char *root, const struct backend_txn *from)
{
	struct txn *txn = txn_new();

	for (size_t i = 0; i < from->compare_count; i++)
		translate_compare(txn,
			next_key(txn, root, from->compares[i].key),
			&from->compares[i]);
	for (size_t i = 0; i < from->op_count; i++) {
		const struct backend_op *op = &from->ops[i];
		const char *key = next_key(txn, root, op->key);

		if (op->kind == BACKEND_PUT)
			add_put(txn, key, op->value, op->len, op->lease);
		else
			add_delete(txn, key);
	}
	return txn_pack(txn);
}

grpc_byte_buffer *etcd_pack_put(
	const char *key, const char *value, uint64_t lease, const char *old)
{
	struct txn *txn = txn_new();

	if (old)
		add_value(txn, key, old, strlen(old));
	else if (!lease)
		add_absent(txn, key);
	add_put(txn, key, value, strlen(value), lease);
	return txn_pack(txn);
}

/* ---- watch ---- */

void etcd_watch_request(Peerway__Etcd__WatchRequest *request,
	Peerway__Etcd__WatchCreateRequest *create, char *prefix, char *end,
	uint64_t from)
{
	peerway__etcd__watch_request__init(request);
	peerway__etcd__watch_create_request__init(create);
	create->key = bytes_of(prefix);
	create->range_end = bytes_of(end);
	create->start_revision = (int64_t)from;
	create->fragment = true;
	request->request_case = PEERWAY__ETCD__WATCH_REQUEST__REQUEST_CREATE;
	request->create = create;
}

/* ---- statuses ---- */

enum backend_status etcd_status(int status, const char *message)
{
	static const struct {
		const char *text;
		enum backend_status status;
	} known[] = {
		{"requested lease not found", BACKEND_NO_LEASE},
		{"has been compacted", BACKEND_COMPACTED},
		{"is a future revision", BACKEND_FUTURE},
		{"database space exceeded", BACKEND_FULL},
		{"request is too large", BACKEND_INVALID},
		{"too many operations", BACKEND_INVALID},
	};

	if (status == GRPC_STATUS_OK)
		return BACKEND_OK;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strstr(message, known[i].text))
			return known[i].status;
	return BACKEND_UNAVAILABLE;
}
