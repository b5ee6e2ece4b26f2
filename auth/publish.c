/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish writes a batch of a proxy's records, Lookup reads those of an agent.
 * What a newcomer gets wrong: owner and epoch are compared by the transaction
 * that writes, not before it; only when it fails are they read, to say which of
 * them it was.
 */
#include <grpc/status.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "auth/lease.h"
#include "auth/records.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define LOOKUP_MAX 200 /* proxies that hold one agent */

struct publish {
	struct authd *auth;
	struct rpc_server_call *call;
	char proxy[37];
	uint64_t lease;
	uint64_t epoch;
};

static void refuse(struct publish *publish, int status, const char *why)
{
	metric_add(&publish->auth->metrics, METRIC_BATCHES_REFUSED, 1);
	log_limited(LOG_WARN,
		"records refused: %s proxy=%s lease=%016" PRIx64
		" epoch=%" PRIu64,
		why, publish->proxy, publish->lease, publish->epoch);
	rpc_fail(publish->call, status, "%s", why);
	free(publish);
}

/* The lease's owner, read after the compares have failed. */
static void on_owner(void *arg, const struct backend_range_result *result)
{
	struct publish *publish = arg;

	if (result->status != BACKEND_OK)
		refuse(publish, authd_status(result->status),
			backend_status_text(result->status));
	else if (result->count == 0)
		refuse(publish, GRPC_STATUS_NOT_FOUND,
			"the proxy has no such lease, or it has ended");
	else
		refuse(publish, GRPC_STATUS_FAILED_PRECONDITION,
			"the proxy has a newer epoch");
}

static void on_written(void *arg, enum backend_status status, uint64_t revision)
{
	struct publish *publish = arg;
	Peerway__Auth__PublishResponse response =
		PEERWAY__AUTH__PUBLISH_RESPONSE__INIT;
	records_key key;
	struct backend_range owner = {.prefix = key, .exact = true, .limit = 1};

	if (status == BACKEND_COMPARE_FAILED) {
		records_lease_key(publish->proxy, publish->lease, key);
		backend_range(
			publish->auth->backend, &owner, on_owner, publish);
	} else if (status != BACKEND_OK) {
		refuse(publish, authd_status(status),
			backend_status_text(status));
	} else {
		response.revision = revision;
		metric_add(&publish->auth->metrics, METRIC_BATCHES, 1);
		rpc_reply(publish->call, &response.base);
		free(publish);
	}
}

void publish_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__PublishRequest *request = (const void *)message;
	struct publish *publish = xcalloc(1, sizeof(*publish));
	struct records_batch *batch;
	const char *wrong;

	publish->auth = arg;
	publish->call = call;
	strcpy(publish->proxy, caller->uuid);
	publish->lease = request->lease_id;
	publish->epoch = request->epoch;
	batch = records_batch_new(request, caller->uuid, &wrong);
	if (!batch) {
		refuse(publish,
			records_are_own(request, caller->uuid)
				? GRPC_STATUS_INVALID_ARGUMENT
				: GRPC_STATUS_PERMISSION_DENIED,
			wrong);
		return;
	}
	backend_txn(publish->auth->backend, &batch->txn, on_written, publish);
	records_batch_free(batch);
}

/* ---- lookup ---- */

static void on_tunnels(void *arg, const struct backend_range_result *result)
{
	struct rpc_server_call *call = arg;
	Peerway__Auth__LookupResponse response =
		PEERWAY__AUTH__LOOKUP_RESPONSE__INIT;
	Peerway__Record__TunnelRecord *tunnels[LOOKUP_MAX];

	if (result->status != BACKEND_OK) {
		rpc_fail(call, authd_status(result->status), "%s",
			backend_status_text(result->status));
		return;
	}
	response.revision = result->revision;
	response.tunnels = tunnels;
	for (size_t i = 0; i < result->count; i++) {
		tunnels[response.n_tunnels] =
			peerway__record__tunnel_record__unpack(
				NULL, result->kvs[i].len, result->kvs[i].value);
		if (tunnels[response.n_tunnels])
			response.n_tunnels++;
	}
	rpc_reply(call, &response.base);
	for (size_t i = 0; i < response.n_tunnels; i++)
		peerway__record__tunnel_record__free_unpacked(tunnels[i], NULL);
}

void lookup_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__LookupRequest *request = (const void *)message;
	struct authd *auth = arg;
	records_key prefix;
	struct backend_range range = {.prefix = prefix, .limit = LOOKUP_MAX};

	if (!identity_uuid_is_valid(request->agent_id)) {
		rpc_fail(call, GRPC_STATUS_INVALID_ARGUMENT,
			"the agent id is no uuid");
		return;
	}
	records_agent_prefix(request->agent_id, prefix);
	backend_range(auth->backend, &range, on_tunnels, call);
}
