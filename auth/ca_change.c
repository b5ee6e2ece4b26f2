/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes what `peerctl ca rotate` does to the CAs, see ca.h. Owns the texts of
 * one transaction. What a newcomer gets wrong: everything of one verb is one
 * transaction with the phase as its condition, so that authd may be killed at
 * any point, and of two that act at once one loses and says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/ca.h"
#include "auth/issue.h"
#include "shared/alloc.h"
#include "shared/pki.h"

#define OPS_MAX 16
/* Whoever was away for longer has a certificate that has ended, and joins again
 * in any case: as long as a host's certificate lasts, auth/issue.h. */
#define CROSS_S ISSUE_HOST_S
#define PREFIX "secret/ca/"

struct writing {
	const struct ca_store *store;
	struct backend_op ops[OPS_MAX];
	char keys[OPS_MAX][48];
	char *values[OPS_MAX]; /* may be private keys: wiped */
	size_t count;
	struct backend_compare compares[2];
	char compared[2][48];
	size_t compare_count;
};

/* Takes value; NULL: the key is deleted. */
static void add(struct writing *writing, const char *kind, const char *name,
	char *value)
{
	size_t n = writing->count++;
	struct backend_op *op = &writing->ops[n];

	snprintf(writing->keys[n], sizeof(writing->keys[n]), PREFIX "%s/%s",
		kind, name);
	writing->values[n] = value;
	*op = (struct backend_op){
		.kind = value ? BACKEND_PUT : BACKEND_DELETE,
		.key = writing->keys[n],
		.value = value,
		.len = value ? strlen(value) : 0,
	};
}

/* The same of a private key. */
static void add_key(
	struct writing *writing, const char *kind, const char *name, char *key)
{
	char *full = xasprintf("%s/%s", kind, name);

	add(writing, kind, name, seal_close(writing->store->seal, full, key));
	wipe(key, strlen(key));
	free(key);
	free(full);
}

static void add_phase(struct writing *writing, const char *kind,
	enum ca_phase phase, const struct ca_change *change)
{
	const struct ca_state state = {phase, change->now, change->spread_ms};

	add(writing, kind, "phase", ca_state_encode(&state));
}

static void drop_second(struct writing *writing, const char *kind)
{
	add(writing, kind, "second/cert", NULL);
	add(writing, kind, "second/key", NULL);
	add(writing, kind, "cross/second", NULL);
	add(writing, kind, "cross/first", NULL);
	add(writing, kind, "phase", NULL);
}

/* The second takes the first one's place. */
static int move_up(
	struct writing *writing, const char *kind, const struct ca *second)
{
	char *key = pki_key_to_pem(second->key);

	if (!key)
		return -ENOMEM; /* which must not become a deletion */
	add(writing, kind, "cert", xstrdup(second->pem));
	add_key(writing, kind, "key", key);
	drop_second(writing, kind);
	return 0;
}

/* Puts the certificate by which ca, which signed until now, vouches for the
 * one that signs from now on. Only in this direction: after a finish nothing
 * that the remaining CA has signed leads to the one that went, unless the
 * rotation had gone back and forth; and that ends with the cross certificate.
 */
static int add_cross(struct writing *writing, const char *kind,
	const char *name, X509 *next, const struct ca *ca, int64_t now)
{
	X509 *cert = pki_ca_cross(next, ca->cert, ca->key, now + CROSS_S);
	char *pem = cert ? pki_cert_to_pem(cert) : NULL;

	X509_free(cert);
	if (!pem)
		return -ENOMEM;
	add(writing, kind, name, pem);
	return 0;
}

static int add_second(struct writing *writing, const char *kind,
	const struct ca *first, int64_t now)
{
	STACK_OF(X509) * certs;
	char *cert, *key;
	int ret = -ENOMEM;

	if (!ca_make(writing->store->cluster, kind, &cert, &key))
		return -ENOMEM;
	add(writing, kind, "second/cert", cert);
	add_key(writing, kind, "second/key", key);
	certs = pki_certs_from_pem(cert, strlen(cert), NULL);
	if (certs)
		ret = add_cross(writing, kind, "cross/second",
			sk_X509_value(certs, 0), first, now);
	sk_X509_pop_free(certs, X509_free);
	return ret;
}

/* The other one signs from now on. */
static int turn(struct writing *writing, const char *kind,
	const struct ca_set *set, enum ca_phase phase,
	const struct ca_change *change)
{
	bool second = phase == CA_ROTATING;

	add(writing, kind, second ? "cross/first" : "cross/second", NULL);
	add_phase(writing, kind, phase, change);
	return add_cross(writing, kind, second ? "cross/second" : "cross/first",
		set->other.cert, &set->active, change->now);
}

static void compare_phase(
	struct writing *writing, const char *kind, const struct ca_set *set)
{
	size_t n = writing->compare_count++;

	snprintf(writing->compared[n], sizeof(writing->compared[n]),
		PREFIX "%s/phase", kind);
	writing->compares[n] = (struct backend_compare){
		.kind = set->revision ? BACKEND_MOD_REVISION : BACKEND_ABSENT,
		.key = writing->compared[n],
		.mod_revision = set->revision,
	};
}

static int add_action(struct writing *writing, const char *kind,
	const struct ca_set *set, enum ca_action action,
	const struct ca_change *change)
{
	int ret = 0;

	switch (action) {
	case CA_NOTHING:
	case CA_REFUSED:
		return 0;
	case CA_MAKE:
		ret = add_second(writing, kind, &set->active, change->now);
		add_phase(writing, kind, CA_ROTATING, change);
		break;
	case CA_USE_SECOND:
		ret = turn(writing, kind, set, CA_ROTATING, change);
		break;
	case CA_USE_FIRST:
		ret = turn(writing, kind, set, CA_ROLLING_BACK, change);
		break;
	case CA_DROP_FIRST:
		ret = move_up(writing, kind, &set->active);
		break;
	case CA_DROP_SECOND:
		drop_second(writing, kind);
		break;
	}
	compare_phase(writing, kind, set);
	return ret;
}

int ca_change(const struct ca_store *store, const struct ca_pair *cas,
	const struct ca_change *change, backend_txn_done *done, void *arg)
{
	struct writing *writing = xcalloc(1, sizeof(*writing));
	int ret;

	writing->store = store;
	ret = add_action(writing, "host", &cas->host, change->host, change);
	if (ret == 0)
		ret = add_action(
			writing, "user", &cas->user, change->user, change);
	if (ret == 0) {
		struct backend_txn txn = {writing->compares,
			writing->compare_count, writing->ops, writing->count};

		backend_txn(store->backend, &txn, done, arg);
	}
	for (size_t i = 0; i < writing->count; i++) {
		if (writing->values[i])
			wipe(writing->values[i], strlen(writing->values[i]));
		free(writing->values[i]);
	}
	free(writing);
	return ret;
}
