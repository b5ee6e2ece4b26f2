/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must be known of the store before it can be used:
 *
 *   member answers --> store's id (made by the first) --> its last revision
 *      --> its leases --> followed from there: open
 *
 * and, each time that a member answers again, whether it is still the same
 * store. What a newcomer gets wrong: an etcd that was set back to an older copy
 * can have the same ids and fewer revisions, and then what watchers know of it
 * has never been. It gets another id.
 */
#include <grpc/status.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/backend_etcd_impl.h"
#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/log.h"

#define AGAIN_MS 500

static const struct etcd_method range_method = {"/etcdserverpb.KV/Range",
	&peerway__etcd__range_response__descriptor, true, ETCD_CALL_MS};
static const struct etcd_method txn_method = {"/etcdserverpb.KV/Txn",
	&peerway__etcd__txn_response__descriptor, false, ETCD_CALL_MS};

static void read_id(struct etcd_backend *b);

void etcd_open_again(struct etcd_backend *b, const char *why)
{
	/* once for as long as it is the same */
	if (strncmp(b->again_why, why, sizeof(b->again_why) - 1))
		log_warn("store is looked at anew: %s", why);
	snprintf(b->again_why, sizeof(b->again_why), "%s", why);
	b->open = false;
	timer_set(b->reopen, AGAIN_MS);
}

/* False when the answer is none: it is tried again. */
static bool is_answer(struct etcd_backend *b, int status, const char *message)
{
	if (b->ending)
		return false;
	if (status == GRPC_STATUS_OK)
		return true;
	if (etcd_client_is_ready(b->client))
		etcd_open_again(b, message);
	return false; /* or the next member that answers begins anew */
}

/* ---- leases ---- */

/* As they are now, which may be later than what will be followed from: what
 * changed in between comes once more, and changes nothing. A state of the past
 * may have been compacted, when a deletion was the last that happened. */

static void on_leases(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	struct etcd_backend *b = arg;
	etcd_key id;

	if (!is_answer(b, status, message))
		return;
	etcd_leases_forget(b);
	for (size_t i = 0; i < range->n_kvs; i++) {
		uint32_t ttl_ms = etcd_lease_ttl(&range->kvs[i]->value);

		if (ttl_ms && etcd_key_kind(b->root, &range->kvs[i]->key, id) ==
				      ETCD_LEASE)
			etcd_lease_seen(b, strtoull(id, NULL, 16), ttl_ms);
	}
	etcd_leases_steady(b);
	b->again_why[0] = '\0';
	b->open = true;
	etcd_follow(b);
	etcd_calls_dispatch(b);
}

static void read_leases(struct etcd_backend *b)
{
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;
	etcd_key prefix, end;

	snprintf(prefix, sizeof(prefix), "%slease/", b->root);
	etcd_prefix_end(prefix, end);
	request.key = (ProtobufCBinaryData){strlen(prefix), (uint8_t *)prefix};
	request.range_end = (ProtobufCBinaryData){strlen(end), (uint8_t *)end};
	etcd_call(b->client, &range_method, rpc_pack(&request.base), on_leases,
		b);
}

/* ---- the last revision of ours ---- */

static void on_newest(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	struct etcd_backend *b = arg;

	if (!is_answer(b, status, message))
		return;
	/* there is one, the store's id: what has been deleted since comes by
	 * the watch */
	if (range->n_kvs)
		b->seen = (uint64_t)range->kvs[0]->mod_revision;
	if (b->seen < b->compacted)
		b->seen = b->compacted;
	read_leases(b);
}

static void read_newest(struct etcd_backend *b)
{
	etcd_call(b->client, &range_method, etcd_pack_newest(b->root),
		on_newest, b);
}

/* ---- the id ---- */

static void on_id_made(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct etcd_backend *b = arg;

	/* by whom does not matter */
	if (is_answer(b, status, message))
		read_id(b);
}

static void make_id(struct etcd_backend *b, const char *old)
{
	char uuid[37];
	etcd_key key;

	identity_uuid_make(uuid);
	etcd_store_key(b->root, key);
	etcd_call(b->client, &txn_method, etcd_pack_put(key, uuid, 0, old),
		on_id_made, b);
}

static void use_id(struct etcd_backend *b, const char *uuid)
{
	bool other = b->uuid[0] && strcmp(b->uuid, uuid);

	snprintf(b->uuid, sizeof(b->uuid), "%s", uuid);
	snprintf(b->store_id, sizeof(b->store_id), "%llx-%s",
		(unsigned long long)b->cluster_id, uuid);
	if (other) {
		log_warn("store is another one now: id=%s", b->store_id);
		etcd_watches_end(b, BACKEND_UNAVAILABLE);
	}
	read_newest(b);
}

static void on_id(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	struct etcd_backend *b = arg;
	const ProtobufCBinaryData *value;
	char uuid[37];
	bool set_back;

	if (!is_answer(b, status, message))
		return;
	if (!range->n_kvs) {
		make_id(b, NULL);
		return;
	}
	value = &range->kvs[0]->value;
	snprintf(uuid, sizeof(uuid), "%.*s", (int)value->len, value->data);
	set_back = !strcmp(uuid, b->uuid) && range->header &&
		   range->header->cluster_id == b->cluster_id &&
		   (uint64_t)range->header->revision < b->seen;
	if (set_back) {
		log_warn(
			"store was set back: it had revision=%llu and has %lld",
			(unsigned long long)b->seen,
			(long long)range->header->revision);
		b->compacted = 0;
		make_id(b, uuid);
	} else {
		use_id(b, uuid);
	}
}

static void read_id(struct etcd_backend *b)
{
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;
	etcd_key key;

	etcd_store_key(b->root, key);
	request.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
	etcd_call(b->client, &range_method, rpc_pack(&request.base), on_id, b);
}

/* ---- again ---- */

void etcd_open_start(
	struct etcd_backend *b, uint64_t cluster_id, int64_t revision)
{
	etcd_leases_steady(b);
	if (b->open && cluster_id == b->cluster_id &&
		(uint64_t)revision >= b->seen) {
		etcd_follow(b);
		return;
	}
	if (b->cluster_id && cluster_id != b->cluster_id) {
		log_warn("etcd is another cluster now: id=%llx before=%llx",
			(unsigned long long)cluster_id,
			(unsigned long long)b->cluster_id);
		b->uuid[0] = '\0';
		b->seen = 0;
		b->compacted = 0;
		etcd_watches_end(b, BACKEND_UNAVAILABLE);
	}
	b->open = false;
	b->cluster_id = cluster_id;
	read_id(b);
}
