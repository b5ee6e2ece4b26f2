/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What stands in a certificate. Decides nothing about who may have one.
 *
 *   host CA  Proxy, Auth: CN <uuid>.<cluster>, O role, client and server, DNS
 *                hex(cluster).teleport.cluster.local, *.teleport.cluster.local
 *                and the host's own names
 *            Node: the same CN, client only, no DNS name, URI
 *                peerway://agent/<name>
 *   user CA  CN user, O groups, client only
 */

#include <stdint.h>

#include "auth/ca.h"
#include "auth/host.h"

/* Hosts renew after two thirds of it, so a cluster outlives ten days without
 * authd. */
#define ISSUE_HOST_S (30 * 86400)
#define ISSUE_USER_DEFAULT_S (12 * 3600)
#define ISSUE_USER_MIN_S 60
#define ISSUE_USER_MAX_S (30 * 86400)

/* now: Unix seconds. NULL and *error_out (gives). */
X509 *issue_host(const struct ca *ca, const char *cluster,
	const struct host *host, EVP_PKEY *key, int64_t now, char **error_out);

struct issue_user {
	const char *name;
	const char *groups[IDENTITY_GROUPS_MAX + 1]; /* NULL-ended */
	int64_t ttl_s;				     /* 0: the default */
};
/* NULL, or a static text: what is wrong with it. */
const char *issue_check_user(const struct issue_user *user);
X509 *issue_user(const struct ca *ca, const struct issue_user *user,
	EVP_PKEY *key, int64_t now, char **error_out);

/* PEM of the certificate and of what leads from it to each CA that somebody may
 * trust: while there are two, the cross certificate, and both CAs. Gives. */
char *issue_chain(X509 *cert, const struct ca_set *set);
