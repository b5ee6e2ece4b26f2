/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The two authorities of a cluster. The host CA signs daemons and agents, the
 * user CA signs people; nobody trusts both for the same thing. They are made
 * when a store is used for the first time and kept below secret/ca/.
 */

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "auth/backend.h"

struct ca {
	X509 *cert;
	EVP_PKEY *key;
	char *pem; /* of the certificate */
	char pin[80];
};

struct ca_pair {
	struct ca host;
	struct ca user;
};

/* Reads both, or makes and stores them; refuses a store of another cluster.
 * done gives cas (ca_pair_free), or NULL with an error (borrowed). Borrows
 * cluster until then. */
void ca_load(struct backend *backend, const char *cluster,
	void (*done)(void *arg, struct ca_pair *cas, const char *error),
	void *arg);
/* Wipes the keys. */
void ca_pair_free(struct ca_pair *cas);
