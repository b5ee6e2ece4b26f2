/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of backend.h, in etcd's hands. Each goes off at once unless one
 * before it that is still under way touches the same keys; they complete in the
 * order in which they were made.
 *
 *   WAITING --nothing before it is in its way--> SENT --answered--> DONE
 *   DONE and first of all --end of the turn--> completed
 *
 * What a newcomer gets wrong: etcd carries out what is under way together in
 * any order, so "each sees the effects of those before it" is made here.
 */
#include <grpc/byte_buffer.h>
#include <grpc/status.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/backend_etcd_impl.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* How long etcd itself keeps a lease that no process ends. */
#define KEEP_S (7 * 24 * 3600)
/* Its caller wants to know: a lease of 5 s is kept alive three times in it. */
#define KEEPALIVE_MS 1500

enum op_kind { RANGE, TXN, GRANT, KEEPALIVE, REVOKE, COMPACT, OP_KINDS };

/* What of the store a call touches. */
struct footprint {
	bool all;    /* it may be anything */
	bool prefix; /* reads more than can be told by name */
	size_t reads, writes;
	uint64_t names[2 * BACKEND_OPS_MAX]; /* hashes; reads, then writes */
};

struct etcd_op {
	TAILQ_ENTRY(etcd_op) entry;
	struct etcd_backend *b;
	enum op_kind kind;
	enum { WAITING, SENT, DONE } state;
	grpc_byte_buffer *request;   /* NULL once it is sent */
	struct footprint *footprint; /* NULL: none */
	union {
		backend_range_done *range;
		backend_txn_done *txn;
		backend_lease_done *lease;
	} done;
	void *arg;
	int64_t deadline; /* while WAITING; loop_now() */

	enum backend_status status;
	uint64_t revision;
	uint64_t lease;
	uint32_t ttl_ms;
	struct backend_kv *kvs; /* of a range, as is more: copies */
	size_t count;
	bool more;
};

/* ---- who waits for whom ---- */

/* FNV-1a: two keys of one hash wait for each other, which harms nobody. */
static uint64_t name_of(const char *key)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (; *key; key++)
		hash = (hash ^ (uint8_t)*key) * 0x100000001b3;
	return hash;
}

static struct footprint *footprint_of_txn(const struct backend_txn *txn)
{
	struct footprint *footprint = xcalloc(1, sizeof(*footprint));

	for (size_t i = 0; i < txn->compare_count; i++)
		footprint->names[footprint->reads++] =
			name_of(txn->compares[i].key);
	for (size_t i = 0; i < txn->op_count; i++)
		footprint->names[footprint->reads + footprint->writes++] =
			name_of(txn->ops[i].key);
	return footprint;
}

static bool share(
	const uint64_t *a, size_t a_count, const uint64_t *b, size_t b_count)
{
	for (size_t i = 0; i < a_count; i++)
		for (size_t j = 0; j < b_count; j++)
			if (a[i] == b[j])
				return true;
	return false;
}

static bool in_the_way(const struct footprint *a, const struct footprint *b)
{
	const uint64_t *a_writes = a->names + a->reads;
	const uint64_t *b_writes = b->names + b->reads;

	return a->all || b->all || (a->prefix && b->writes) ||
	       (b->prefix && a->writes) ||
	       share(a->names, a->reads + a->writes, b_writes, b->writes) ||
	       share(a_writes, a->writes, b->names, b->reads);
}

static bool must_wait(const struct etcd_op *op)
{
	const struct etcd_op *before;

	if (!op->footprint)
		return false;
	TAILQ_FOREACH (before, &op->b->ops, entry) {
		if (before == op)
			return false;
		if (before->state != DONE && before->footprint &&
			in_the_way(before->footprint, op->footprint))
			return true;
	}
	return false;
}

/* ---- answers, by kind ---- */

static void op_done(struct etcd_op *op, enum backend_status status)
{
	op->status = status;
	op->state = DONE;
	loop_defer(op->b->loop, &op->b->flush);
}

static void take_range(struct etcd_op *op, const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	etcd_key key;

	/* of a state of the past etcd tells today's revision */
	if (!op->revision && range->header)
		op->revision = (uint64_t)range->header->revision;
	op->more = range->more;
	op->kvs = xcalloc(range->n_kvs + 1, sizeof(*op->kvs));
	for (size_t i = 0; i < range->n_kvs; i++) {
		const Peerway__Etcd__KeyValue *from = range->kvs[i];
		struct backend_kv *kv = &op->kvs[op->count];
		uint8_t *value;

		if (etcd_key_kind(op->b->root, &from->key, key) != ETCD_DATA)
			continue;
		value = xcalloc(1, from->value.len + 1);
		if (from->value.len)
			memcpy(value, from->value.data, from->value.len);
		*kv = (struct backend_kv){.key = xstrdup(key),
			.value = value,
			.len = from->value.len,
			.mod_revision = (uint64_t)from->mod_revision,
			.lease = (uint64_t)from->lease};
		op->count++;
	}
	op_done(op, BACKEND_OK);
}

static void take_txn(struct etcd_op *op, const ProtobufCMessage *response)
{
	const Peerway__Etcd__TxnResponse *txn = (const void *)response;

	op->revision = txn->header ? (uint64_t)txn->header->revision : 0;
	op->b->writes += txn->succeeded && op->footprint->writes;
	op_done(op, txn->succeeded ? BACKEND_OK : BACKEND_COMPARE_FAILED);
}

/* The log may not know more than the store. */
static void take_compacted(struct etcd_op *op)
{
	struct etcd_backend *b = op->b;

	if (op->revision > b->compacted)
		b->compacted = op->revision;
	if (b->log && b->compacted <= b->seen)
		change_log_forget(b->log, b->compacted);
	op_done(op, BACKEND_OK);
}

static void take_compact(struct etcd_op *op, const ProtobufCMessage *response)
{
	op->b->writes++;
	take_compacted(op);
}

static void on_marked(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct etcd_op *op = arg;

	op->b->granting--;
	op->b->writes += 2; /* the lease, and its key */
	if (status == GRPC_STATUS_OK)
		etcd_lease_seen(op->b, op->lease, op->ttl_ms);
	op_done(op, etcd_status(status, message));
}

static const struct etcd_method methods[OP_KINDS];

/* The second half of a grant: so that every process knows of the lease. */
static void take_grant(struct etcd_op *op, const ProtobufCMessage *response)
{
	const Peerway__Etcd__LeaseGrantResponse *grant = (const void *)response;
	etcd_key key;
	char ttl[16];

	op->lease = (uint64_t)grant->id;
	etcd_lease_key(op->b->root, op->lease, key);
	snprintf(ttl, sizeof(ttl), "%" PRIu32, op->ttl_ms);
	etcd_call(op->b->client, &methods[TXN],
		etcd_pack_put(key, ttl, op->lease, NULL), on_marked, op);
}

/* A lease that another process has granted a moment ago. */
static void on_lease_read(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	struct etcd_op *op = arg;

	if (status != GRPC_STATUS_OK) {
		op_done(op, etcd_status(status, message));
		return;
	}
	op->ttl_ms = range->n_kvs ? etcd_lease_ttl(&range->kvs[0]->value) : 0;
	if (op->ttl_ms)
		etcd_lease_seen(op->b, op->lease, op->ttl_ms);
	op_done(op, op->ttl_ms ? BACKEND_OK : BACKEND_NO_LEASE);
}

static void take_keepalive(struct etcd_op *op, const ProtobufCMessage *response)
{
	const Peerway__Etcd__LeaseKeepAliveResponse *kept =
		(const void *)response;
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;
	etcd_key key;

	if (kept->ttl_s <= 0) {
		etcd_lease_gone(op->b, op->lease);
		op_done(op, BACKEND_NO_LEASE);
		return;
	}
	op->ttl_ms = etcd_lease_kept(op->b, op->lease);
	if (op->ttl_ms) {
		op_done(op, BACKEND_OK);
		return;
	}
	etcd_lease_key(op->b->root, op->lease, key);
	request.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
	etcd_call(op->b->client, &methods[RANGE], rpc_pack(&request.base),
		on_lease_read, op);
}

static void take_revoke(struct etcd_op *op, const ProtobufCMessage *response)
{
	op->b->writes++;
	etcd_lease_gone(op->b, op->lease);
	op_done(op, BACKEND_OK);
}

/* ---- the calls ---- */

static void complete_range(struct etcd_op *op)
{
	struct backend_range_result result = {.status = op->status,
		.revision = op->revision,
		.kvs = op->kvs,
		.count = op->count,
		.more = op->more};

	if (op->done.range)
		op->done.range(op->arg, &result);
}

static void complete_txn(struct etcd_op *op)
{
	if (op->done.txn)
		op->done.txn(op->arg, op->status, op->revision);
}

static void complete_lease(struct etcd_op *op)
{
	if (op->done.lease)
		op->done.lease(op->arg, op->status, op->lease, op->ttl_ms);
}

static const struct etcd_method methods[OP_KINDS] = {
	[RANGE] = {"/etcdserverpb.KV/Range",
		&peerway__etcd__range_response__descriptor, true, ETCD_CALL_MS},
	[TXN] = {"/etcdserverpb.KV/Txn",
		&peerway__etcd__txn_response__descriptor, false, ETCD_CALL_MS},
	[GRANT] = {"/etcdserverpb.Lease/LeaseGrant",
		&peerway__etcd__lease_grant_response__descriptor, false,
		ETCD_CALL_MS},
	[KEEPALIVE] = {"/etcdserverpb.Lease/LeaseKeepAlive",
		&peerway__etcd__lease_keep_alive_response__descriptor, true,
		KEEPALIVE_MS},
	[REVOKE] = {"/etcdserverpb.Lease/LeaseRevoke",
		&peerway__etcd__lease_revoke_response__descriptor, false,
		ETCD_CALL_MS},
	[COMPACT] = {"/etcdserverpb.KV/Compact",
		&peerway__etcd__compaction_response__descriptor, true,
		ETCD_CALL_MS},
};

static const struct {
	void (*take)(struct etcd_op *op, const ProtobufCMessage *response);
	void (*complete)(struct etcd_op *op);
} kinds[OP_KINDS] = {
	[RANGE] = {take_range, complete_range},
	[TXN] = {take_txn, complete_txn},
	[GRANT] = {take_grant, complete_lease},
	[KEEPALIVE] = {take_keepalive, complete_lease},
	[REVOKE] = {take_revoke, complete_lease},
	[COMPACT] = {take_compact, complete_txn},
};

static void on_answer(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct etcd_op *op = arg;
	enum backend_status meaning = etcd_status(status, message);

	if (status == GRPC_STATUS_OK) {
		kinds[op->kind].take(op, response);
		return;
	}
	if (meaning == BACKEND_UNAVAILABLE)
		log_debug("store has not answered: %s status=%d", message,
			status);
	if (op->kind == GRANT)
		op->b->granting--;
	if (op->kind == REVOKE && meaning == BACKEND_NO_LEASE)
		etcd_lease_gone(op->b, op->lease);
	/* what has been compacted before is compacted */
	if (op->kind == COMPACT && meaning == BACKEND_COMPACTED)
		take_compacted(op);
	else
		op_done(op, meaning);
}

void etcd_calls_dispatch(struct etcd_backend *b)
{
	struct etcd_op *op;

	if (!b->open || !b->waiting)
		return;
	TAILQ_FOREACH (op, &b->ops, entry) {
		grpc_byte_buffer *request = op->request;

		if (op->state != WAITING || must_wait(op))
			continue;
		op->state = SENT;
		op->request = NULL;
		b->waiting--;
		etcd_call(
			b->client, &methods[op->kind], request, on_answer, op);
	}
}

static void op_free(struct etcd_op *op)
{
	for (size_t i = 0; i < op->count; i++) {
		free((char *)op->kvs[i].key);
		free((uint8_t *)op->kvs[i].value);
	}
	free(op->kvs);
	free(op->footprint);
	free(op);
}

static void flush(struct etcd_backend *b)
{
	struct etcd_op *op;

	while ((op = TAILQ_FIRST(&b->ops)) && op->state == DONE) {
		TAILQ_REMOVE(&b->ops, op, entry);
		kinds[op->kind].complete(op);
		op_free(op);
	}
	etcd_calls_dispatch(b);
}

static void on_flush(struct loop_task *task)
{
	flush((void *)((char *)task - offsetof(struct etcd_backend, flush)));
}

void etcd_calls_init(struct etcd_backend *b)
{
	TAILQ_INIT(&b->ops);
	b->flush.run = on_flush;
}

static struct etcd_op *op_add(
	struct etcd_backend *b, enum op_kind kind, void *arg)
{
	struct etcd_op *op = xcalloc(1, sizeof(*op));

	op->b = b;
	op->kind = kind;
	op->arg = arg;
	TAILQ_INSERT_TAIL(&b->ops, op, entry);
	return op;
}

static void op_send(struct etcd_op *op, grpc_byte_buffer *request)
{
	op->request = request;
	op->deadline = loop_now(op->b->loop) + methods[op->kind].ms;
	op->b->waiting++;
	etcd_calls_dispatch(op->b);
}

void etcd_range(struct backend *backend, const struct backend_range *range,
	backend_range_done *done, void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_op *op = op_add(b, RANGE, arg);

	op->done.range = done;
	op->revision = range->at_revision;
	if (!backend_range_is_valid(range)) {
		op_done(op, BACKEND_INVALID);
		return;
	}
	if (!range->at_revision) { /* the past does not change */
		op->footprint = xcalloc(1, sizeof(*op->footprint));
		op->footprint->prefix = !range->exact;
		if (range->exact)
			op->footprint->names[op->footprint->reads++] =
				name_of(range->prefix);
	}
	op_send(op, etcd_pack_range(b->root, range));
}

void etcd_txn(struct backend *backend, const struct backend_txn *txn,
	backend_txn_done *done, void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_op *op = op_add(b, TXN, arg);

	op->done.txn = done;
	if (!backend_txn_is_valid(txn)) {
		op_done(op, BACKEND_INVALID);
		return;
	}
	op->footprint = footprint_of_txn(txn);
	op_send(op, etcd_pack_txn(b->root, txn));
}

void etcd_lease_grant(struct backend *backend, uint32_t ttl_ms,
	backend_lease_done *done, void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_op *op = op_add(b, GRANT, arg);
	Peerway__Etcd__LeaseGrantRequest request =
		PEERWAY__ETCD__LEASE_GRANT_REQUEST__INIT;

	op->done.lease = done;
	op->ttl_ms = ttl_ms;
	if (!backend_ttl_is_valid(ttl_ms)) {
		op_done(op, BACKEND_INVALID);
	} else if (b->lease_count + b->granting >= BACKEND_LEASES_MAX) {
		op_done(op, BACKEND_FULL);
	} else {
		b->granting++;
		request.ttl_s = KEEP_S;
		op_send(op, rpc_pack(&request.base));
	}
}

void etcd_lease_keepalive(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_op *op = op_add(b, KEEPALIVE, arg);
	Peerway__Etcd__LeaseKeepAliveRequest request =
		PEERWAY__ETCD__LEASE_KEEP_ALIVE_REQUEST__INIT;

	op->done.lease = done;
	op->lease = lease;
	request.id = (int64_t)lease;
	/* behind a revocation, whatever that takes away */
	op->footprint = xcalloc(1, sizeof(*op->footprint));
	op_send(op, rpc_pack(&request.base));
}

void etcd_lease_revoke(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_op *op = op_add(b, REVOKE, arg);
	Peerway__Etcd__LeaseRevokeRequest request =
		PEERWAY__ETCD__LEASE_REVOKE_REQUEST__INIT;

	op->done.lease = done;
	op->lease = lease;
	request.id = (int64_t)lease;
	op->footprint = xcalloc(1, sizeof(*op->footprint));
	op->footprint->all = true;
	op_send(op, rpc_pack(&request.base));
}

void etcd_compact(struct backend *backend, uint64_t revision,
	backend_txn_done *done, void *arg)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;
	struct etcd_op *op = op_add(b, COMPACT, arg);
	Peerway__Etcd__CompactionRequest request =
		PEERWAY__ETCD__COMPACTION_REQUEST__INIT;

	op->done.txn = done;
	op->revision = revision;
	request.revision = (int64_t)revision;
	op->footprint = xcalloc(1, sizeof(*op->footprint));
	op->footprint->all = true;
	op_send(op, rpc_pack(&request.base));
}

/* ---- the end ---- */

void etcd_calls_expire(struct etcd_backend *b)
{
	int64_t now = loop_now(b->loop);
	struct etcd_op *op;

	if (b->open || !b->waiting)
		return;
	TAILQ_FOREACH (op, &b->ops, entry) {
		if (op->state != WAITING || (now < op->deadline && !b->ending))
			continue;
		grpc_byte_buffer_destroy(op->request);
		op->request = NULL;
		b->waiting--;
		on_answer(op, GRPC_STATUS_UNAVAILABLE, "not open", NULL);
	}
}

void etcd_calls_finish(struct etcd_backend *b, int64_t ms)
{
	int64_t deadline = loop_now(b->loop) + ms;

	/* the leases' timer wakes the loop */
	while (!TAILQ_EMPTY(&b->ops) && loop_now(b->loop) < deadline)
		loop_turn(b->loop, true);
}

void etcd_calls_end(struct etcd_backend *b)
{
	b->open = false;
	b->ending = true;
	etcd_calls_expire(b);
	flush(b);
	loop_cancel(b->loop, &b->flush);
}
