/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * backend.h's terms in those of etcd's v3 API, and back. Pure. Below the
 * configured prefix lie
 *
 *   <prefix>/k/<key>      the store's keys
 *   <prefix>/lease/<id>   a lease's TTL in ms, hanging on that lease
 *   <prefix>/store        the store's id
 */

#include "auth/backend.h"
#include "etcd.pb-c.h"
#include "shared/rpc.h"

/* "<prefix>/"; prefix begins with a slash and does not end with one. */
#define ETCD_PREFIX_MAX 64
#define ETCD_KEY_MAX (ETCD_PREFIX_MAX + 16 + BACKEND_KEY_MAX)
typedef char etcd_key[ETCD_KEY_MAX];

enum etcd_kind { ETCD_DATA, ETCD_LEASE, ETCD_STORE, ETCD_OTHER };

void etcd_data_key(const char *root, const char *key, etcd_key out);
void etcd_lease_key(const char *root, uint64_t lease, etcd_key out);
void etcd_store_key(const char *root, etcd_key out);
/* What a key below root is; rest_out (an etcd_key): what identifies it. */
enum etcd_kind etcd_key_kind(
	const char *root, const ProtobufCBinaryData *key, etcd_key rest_out);
/* The value of a lease's key; 0: none of ours. */
uint32_t etcd_lease_ttl(const ProtobufCBinaryData *value);

/* Requests; each gives. */
grpc_byte_buffer *etcd_pack_range(
	const char *root, const struct backend_range *range);
grpc_byte_buffer *etcd_pack_txn(
	const char *root, const struct backend_txn *txn);
/* One key, put when it is absent (or whatever it is, with old NULL and lease
 * set; or holds old). */
grpc_byte_buffer *etcd_pack_put(
	const char *key, const char *value, uint64_t lease, const char *old);
/* Everything below root: keys only, the newest first. */
grpc_byte_buffer *etcd_pack_newest(const char *root);
/* Everything that begins with prefix, from revision from on. */
void etcd_watch_request(Peerway__Etcd__WatchRequest *request,
	Peerway__Etcd__WatchCreateRequest *create, char *prefix, char *end,
	uint64_t from);
/* The first key behind all that begin with prefix. */
void etcd_prefix_end(const char *prefix, etcd_key out);

/* What a gRPC status of etcd's means. */
enum backend_status etcd_status(int status, const char *message);
