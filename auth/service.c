/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of methods with the roles that may call them, and what all of them
 * need. The methods are in join.c, renew.c, lease.c, publish.c and watch.c.
 * What a newcomer gets wrong: a certificate is optional here, because who joins
 * has none yet; so it is the table that keeps strangers away from everything
 * else.
 */
#include <grpc/status.h>
#include <stdlib.h>
#include <time.h>

#include "auth.pb-c.h"
#include "auth/join.h"
#include "auth/lease.h"
#include "auth/service.h"
#include "auth/watch.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define GRACE_MS 2000

#define METHOD(name, type, who, fn)                                      \
	{                                                                \
		.path = "/peerway.auth.AuthService/" name,               \
		.request = &peerway__auth__##type##_request__descriptor, \
		.roles = who, .handle = fn                               \
	}

static const struct rpc_method methods[] = {
	METHOD("Join", join, 0, join_handle),
	METHOD("Renew", renew, 0, renew_handle),
	METHOD("LeaseGrant", lease_grant, IDENTITY_PROXY, lease_grant_handle),
	METHOD("LeaseKeepAlive", lease_keep_alive, IDENTITY_PROXY,
		lease_keepalive_handle),
	METHOD("LeaseRevoke", lease_revoke, IDENTITY_PROXY,
		lease_revoke_handle),
	METHOD("Publish", publish, IDENTITY_PROXY, publish_handle),
	METHOD("Watch", watch, IDENTITY_PROXY, watch_handle),
	METHOD("Lookup", lookup, IDENTITY_PROXY, lookup_handle),
	{.path = NULL},
};

bool service_start(struct authd *auth, char **error_out)
{
	auth->server = rpc_server_new(auth->cq, auth->conf->auth.listen_addr,
		rpc_server_creds(auth->identity, false),
		auth->conf->cluster_name, methods, auth, error_out);
	return auth->server != NULL;
}

void service_stop(struct authd *auth, void (*done)(void *auth))
{
	struct rpc_server *server = auth->server;

	watch_end_all(auth);
	auth->server = NULL;
	rpc_server_stop(server, GRACE_MS, done, auth);
}

int authd_status(enum backend_status status)
{
	static const int codes[] = {
		[BACKEND_OK] = GRPC_STATUS_OK,
		[BACKEND_COMPARE_FAILED] = GRPC_STATUS_ABORTED,
		[BACKEND_NO_LEASE] = GRPC_STATUS_NOT_FOUND,
		[BACKEND_COMPACTED] = GRPC_STATUS_OUT_OF_RANGE,
		[BACKEND_FUTURE] = GRPC_STATUS_OUT_OF_RANGE,
		[BACKEND_FULL] = GRPC_STATUS_RESOURCE_EXHAUSTED,
		[BACKEND_INVALID] = GRPC_STATUS_INVALID_ARGUMENT,
		[BACKEND_UNAVAILABLE] = GRPC_STATUS_UNAVAILABLE,
	};

	return codes[status];
}

int64_t authd_time(void)
{
	return time(NULL);
}
