/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The host's certificate: got by token and CA pin, or from files that its
 * administrator keeps; renewed at two thirds of its life; written for all
 * daemons of the host (identity_dir.h).
 *
 *   JOINING --certificate--> MEMBER --2/3 of its life--> renewed, MEMBER
 *
 * The token is only needed until there is a certificate.
 */

#include "record.pb-c.h"
#include "shared/conf.h"
#include "shared/loop.h"
#include "shared/rpc.h"
#include "shared/tls.h"

struct membership;

struct membership_ops {
	/* A new identity is in place below directory. Borrowed. */
	void (*on_identity)(void *arg, struct tls_identity *identity,
		const char *directory);
	/* For the renewal: a channel to an auth server, NULL: none now. */
	struct rpc_channel *(*channel)(void *arg);
};

struct membership *membership_new(struct loop *loop, struct rpc_cq *cq,
	const struct conf *conf, const char *proxy_id,
	const struct membership_ops *ops, void *arg);
void membership_free(struct membership *membership);

/* Uses what is there or begins to join. 0, or -EINVAL and *error_out (gives)
 * when the configuration leaves no way to an identity. */
int membership_start(struct membership *membership, char **error_out);
/* Own files may have changed: reads them again. */
void membership_reload(struct membership *membership);

/* What authd says of its CAs. A change is acted upon in a later turn: other CAs
 * are trusted at once, and a certificate of a CA that no longer signs is
 * renewed at once, spread over the time that authd names. */
void membership_hear(struct membership *membership,
	const Peerway__Record__ClusterConfig *config);

/* NULL and 0 while there is none. */
const char *membership_directory(const struct membership *membership);
int64_t membership_not_after(const struct membership *membership);
/* Why joining or renewing does not succeed; empty: nothing is wrong. */
const char *membership_last_error(const struct membership *membership);
