/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A first join, tried again until it succeeds:
 *
 *   WAITING --> PINNING --the pinned CA--> ASKING --certificate--> done
 *      ^---backoff, next server---failure-----/
 */

#include <openssl/evp.h>
#include <stdbool.h>

#include "auth.pb-c.h"
#include "shared/conf.h"
#include "shared/loop.h"
#include "shared/rpc.h"

struct join;

/*
 * on_joined: answer and key are borrowed; false: could not be used, try again.
 * It may free the join. on_failed: after each failed attempt. The key is kept
 * in data_dir until then. Gives.
 */
struct join *join_start(struct loop *loop, struct rpc_cq *cq,
	const struct conf *conf, const char *proxy_id,
	bool (*on_joined)(void *arg,
		const Peerway__Auth__JoinResponse *response, EVP_PKEY *key),
	void (*on_failed)(void *arg, const char *why), void *arg);
/* NULL is fine. */
void join_free(struct join *join);

/* What is wrong with a certificate that authd has issued for key; a static
 * text, NULL: nothing. */
const char *join_response_fault(const Peerway__Auth__JoinResponse *response,
	const char *cluster, const char *proxy_id, EVP_PKEY *key);
