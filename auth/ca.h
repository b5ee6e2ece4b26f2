/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The two authorities of a cluster. The host CA signs daemons and agents, the
 * user CA signs people; nobody trusts both for the same thing. They are made
 * when a store is used for the first time and kept below secret/ca/:
 *
 *   cluster                   whose they are
 *   <host|user>/cert, key     the first CA
 *   <...>/second/cert, key    while it is replaced: the second
 *   <...>/cross/second        ROTATING: the second, certified by the first
 *   <...>/cross/first         ROLLING_BACK: the first, by the second
 *   <...>/phase               ca_phase.h; absent: standby
 *
 * Keys are sealed (seal.h).
 *
 * All CAs of one authority have the same name, so that a cross certificate is
 * self-issued and passes the pathlen:0 of the CA that made it.
 */

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "auth/backend.h"
#include "auth/ca_phase.h"
#include "auth/seal.h"

struct ca {
	X509 *cert; /* NULL: there is none */
	EVP_PKEY *key;
	char *pem; /* of the certificate */
	char pin[80];
};

/* An authority. */
struct ca_set {
	struct ca active; /* signs */
	struct ca other;  /* is trusted, too; cert NULL in standby */
	char *cross;	  /* PEM: active, certified by other; NULL in standby */
	char *bundle;	  /* PEM of what is trusted, the active one first */
	struct ca_state state;
	uint64_t revision; /* at which the state was stored; 0: never */
};

struct ca_pair {
	struct ca_set host;
	struct ca_set user;
};

/* Where they are kept. */
struct ca_store {
	struct backend *backend;
	const char *cluster;
	struct seal *seal; /* its key is made with the CAs */
};

/* Reads both, or makes and stores them; refuses a store of another cluster.
 * done gives cas (ca_pair_free), or NULL with an error (borrowed). Borrows
 * store until then. */
void ca_load(const struct ca_store *store,
	void (*done)(void *arg, struct ca_pair *cas, const char *error),
	void *arg);
/* The same CAs in the same phases. */
bool ca_pair_equal(const struct ca_pair *a, const struct ca_pair *b);
/* Wipes the keys. */
void ca_pair_free(struct ca_pair *cas);

/* What is to be done to each, in one transaction, unless somebody else has
 * changed one of them since cas was read: BACKEND_COMPARE_FAILED. Borrows all
 * until it returns. -ENOMEM: a CA could not be made, done is not called. */
struct ca_change {
	enum ca_action host;
	enum ca_action user;
	int64_t now;
	uint32_t spread_ms;
};
int ca_change(const struct ca_store *store, const struct ca_pair *cas,
	const struct ca_change *change, backend_txn_done *done, void *arg);

/* For ca_change.c: PEM of a new CA; gives both (wipe the key), or false. */
bool ca_make(
	const char *cluster, const char *kind, char **cert_out, char **key_out);
