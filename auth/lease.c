/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy's lease: granted with a new epoch, kept alive, revoked. Whose lease
 * it is stands in the store, on the lease itself, so that it needs no cleaning
 * up and survives a restart. A proxy whose routed starts again and again does
 * not use up the leases of all: its oldest gives way. What a newcomer gets
 * wrong: a grant is refused to nobody who may have one; it is the epoch that
 * makes the proxy's earlier life harmless, from the moment the grant is
 * answered.
 */
#include <grpc/status.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "auth/lease.h"
#include "auth/records.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define ATTEMPTS 3
#define LEASES_PER_PROXY 4

/* ---- grant ---- */

struct grant {
	struct authd *auth;
	struct rpc_server_call *call;
	char proxy[37];
	unsigned attempts;
	enum backend_status failed; /* of the reads */
	uint64_t epoch;		    /* the last one given, 0: none */
	uint64_t epoch_revision;
	uint64_t previous; /* lease of the proxy record */
	uint64_t lease;
	uint32_t ttl_ms;
	uint64_t surplus; /* the oldest of too many leases; 0: none */
};

static void read_epoch(struct grant *grant);

static void grant_fail(struct grant *grant, enum backend_status status)
{
	/* it would end by itself; sooner is better */
	if (grant->lease)
		backend_lease_revoke(
			grant->auth->backend, grant->lease, NULL, NULL);
	rpc_fail(grant->call, authd_status(status), "%s",
		backend_status_text(status));
	free(grant);
}

static void on_epoch_written(
	void *arg, enum backend_status status, uint64_t revision)
{
	struct grant *grant = arg;
	Peerway__Auth__LeaseGrantResponse response =
		PEERWAY__AUTH__LEASE_GRANT_RESPONSE__INIT;
	struct backend_info info;

	if (status == BACKEND_COMPARE_FAILED && grant->attempts < ATTEMPTS) {
		read_epoch(grant);
		return;
	}
	if (status != BACKEND_OK) {
		grant_fail(grant, status);
		return;
	}
	backend_info(grant->auth->backend, &info);
	response.store_id = info.store_id;
	response.lease_id = grant->lease;
	response.epoch = grant->epoch + 1;
	response.ttl_ms = grant->ttl_ms;
	response.previous_lease_id = grant->previous;
	metric_add(&grant->auth->metrics, METRIC_GRANTS, 1);
	log_info("lease granted: proxy=%s lease=%016" PRIx64 " epoch=%" PRIu64
		 " ttl_ms=%u previous=%016" PRIx64,
		grant->proxy, grant->lease, response.epoch, grant->ttl_ms,
		grant->previous);
	if (grant->surplus)
		backend_lease_revoke(
			grant->auth->backend, grant->surplus, NULL, NULL);
	rpc_reply(grant->call, &response.base);
	free(grant);
}

static void write_epoch(struct grant *grant)
{
	records_key epoch_key, lease_key;
	char epoch[24];
	struct backend_compare unchanged = {
		.kind = grant->epoch_revision ? BACKEND_MOD_REVISION
					      : BACKEND_ABSENT,
		.key = epoch_key,
		.mod_revision = grant->epoch_revision};
	struct backend_op ops[] = {
		{.kind = BACKEND_PUT, .key = epoch_key, .value = epoch},
		{.kind = BACKEND_PUT,
			.key = lease_key,
			.value = grant->proxy,
			.len = strlen(grant->proxy),
			.lease = grant->lease},
	};
	struct backend_txn txn = {&unchanged, 1, ops, 2};

	records_epoch_key(grant->proxy, epoch_key);
	records_lease_key(grant->proxy, grant->lease, lease_key);
	records_epoch_text(grant->epoch + 1, epoch);
	ops[0].len = strlen(epoch);
	backend_txn(grant->auth->backend, &txn, on_epoch_written, grant);
}

static void on_granted(
	void *arg, enum backend_status status, uint64_t lease, uint32_t ttl_ms)
{
	struct grant *grant = arg;

	grant->lease = status == BACKEND_OK ? lease : 0;
	grant->ttl_ms = ttl_ms;
	if (status != BACKEND_OK)
		grant_fail(grant, status);
	else
		write_epoch(grant);
}

/* The oldest but the one that the proxy's record hangs on, if there are many.
 */
static uint64_t find_surplus(
	const struct backend_range_result *leases, uint64_t previous)
{
	uint64_t oldest = UINT64_MAX;
	uint64_t surplus = 0;

	if (leases->count < LEASES_PER_PROXY)
		return 0;
	for (size_t i = 0; i < leases->count; i++) {
		const struct backend_kv *kv = &leases->kvs[i];

		if (kv->mod_revision >= oldest || kv->lease == previous)
			continue;
		oldest = kv->mod_revision;
		surplus = kv->lease;
	}
	return surplus;
}

static void on_leases(void *arg, const struct backend_range_result *result)
{
	struct grant *grant = arg;

	if (result->status != BACKEND_OK)
		grant->failed = result->status;
	grant->surplus = find_surplus(result, grant->previous);
	if (grant->failed != BACKEND_OK)
		grant_fail(grant, grant->failed);
	else if (grant->lease)
		write_epoch(grant);
	else
		backend_lease_grant(grant->auth->backend,
			grant->auth->conf->auth.lease_ttl, on_granted, grant);
}

static void on_proxy_record(
	void *arg, const struct backend_range_result *result)
{
	struct grant *grant = arg;

	if (result->status != BACKEND_OK)
		grant->failed = result->status;
	grant->previous = result->count ? result->kvs[0].lease : 0;
}

static void on_epoch(void *arg, const struct backend_range_result *result)
{
	struct grant *grant = arg;

	grant->failed = result->status;
	grant->epoch = 0;
	grant->epoch_revision = 0;
	if (result->count) {
		grant->epoch = records_epoch_parse(
			result->kvs[0].value, result->kvs[0].len);
		grant->epoch_revision = result->kvs[0].mod_revision;
	}
}

static void read_epoch(struct grant *grant)
{
	records_key epoch_key, leases_prefix, proxy_key;
	struct backend_range leases = {
		.prefix = leases_prefix, .limit = 2 * LEASES_PER_PROXY};
	struct backend_range epoch = {
		.prefix = epoch_key, .exact = true, .limit = 1};
	struct backend_range proxy = {
		.prefix = proxy_key, .exact = true, .limit = 1};

	grant->attempts++;
	records_epoch_key(grant->proxy, epoch_key);
	records_leases_prefix(grant->proxy, leases_prefix);
	records_proxy_key(grant->proxy, proxy_key);
	/* they complete in this order */
	backend_range(grant->auth->backend, &epoch, on_epoch, grant);
	backend_range(grant->auth->backend, &proxy, on_proxy_record, grant);
	backend_range(grant->auth->backend, &leases, on_leases, grant);
}

void lease_grant_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__LeaseGrantRequest *request = (const void *)message;
	struct grant *grant;

	if (strcmp(request->proxy_id, caller->uuid)) {
		rpc_fail(call, GRPC_STATUS_PERMISSION_DENIED,
			"a proxy has leases for its own records only");
		return;
	}
	grant = xcalloc(1, sizeof(*grant));
	grant->auth = arg;
	grant->call = call;
	strcpy(grant->proxy, caller->uuid);
	read_epoch(grant);
}

/* ---- keepalive and revocation ---- */

struct use {
	struct authd *auth;
	struct rpc_server_call *call;
	char proxy[37];
	uint64_t lease;
	bool revoke;
};

static void use_fail(struct use *use, enum backend_status status)
{
	rpc_fail(use->call, authd_status(status), "%s",
		backend_status_text(status));
	free(use);
}

static void on_used(
	void *arg, enum backend_status status, uint64_t lease, uint32_t ttl_ms)
{
	struct use *use = arg;
	Peerway__Auth__LeaseKeepAliveResponse kept =
		PEERWAY__AUTH__LEASE_KEEP_ALIVE_RESPONSE__INIT;
	Peerway__Auth__LeaseRevokeResponse revoked =
		PEERWAY__AUTH__LEASE_REVOKE_RESPONSE__INIT;
	struct backend_info info;

	if (status != BACKEND_OK) {
		use_fail(use, status);
		return;
	}
	if (use->revoke) {
		log_info("lease revoked: proxy=%s lease=%016" PRIx64,
			use->proxy, use->lease);
		rpc_reply(use->call, &revoked.base);
	} else {
		backend_info(use->auth->backend, &info);
		kept.store_id = info.store_id;
		kept.ttl_ms = ttl_ms;
		rpc_reply(use->call, &kept.base);
	}
	free(use);
}

static void on_owner(void *arg, const struct backend_range_result *result)
{
	struct use *use = arg;
	struct backend *backend = use->auth->backend;

	if (result->status != BACKEND_OK) {
		use_fail(use, result->status);
	} else if (result->count == 0) {
		use_fail(use, BACKEND_NO_LEASE);
	} else if (use->revoke) {
		backend_lease_revoke(backend, use->lease, on_used, use);
	} else {
		backend_lease_keepalive(backend, use->lease, on_used, use);
	}
}

static void use_lease(struct rpc_server_call *call, struct authd *auth,
	const struct host_identity *caller, uint64_t lease, bool revoke)
{
	struct use *use = xcalloc(1, sizeof(*use));
	records_key key;
	struct backend_range owner = {.prefix = key, .exact = true, .limit = 1};

	use->auth = auth;
	use->call = call;
	strcpy(use->proxy, caller->uuid);
	use->lease = lease;
	use->revoke = revoke;
	records_lease_key(caller->uuid, lease, key);
	backend_range(auth->backend, &owner, on_owner, use);
}

void lease_keepalive_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__LeaseKeepAliveRequest *request =
		(const void *)message;

	use_lease(call, arg, caller, request->lease_id, false);
}

void lease_revoke_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__LeaseRevokeRequest *request =
		(const void *)message;

	use_lease(call, arg, caller, request->lease_id, true);
}
