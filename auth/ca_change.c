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
#include "shared/alloc.h"
#include "shared/pki.h"

#define OPS_MAX 16
#define PREFIX "secret/ca/"

struct writing {
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
	add(writing, kind, "key", key);
	drop_second(writing, kind);
	return 0;
}

/* PEM of subject certified by ca; gives. */
static char *cross(X509 *subject, X509 *ca, EVP_PKEY *key)
{
	X509 *cert = pki_ca_cross(subject, ca, key);
	char *pem = cert ? pki_cert_to_pem(cert) : NULL;

	X509_free(cert);
	return pem;
}

static int add_crosses(struct writing *writing, const char *kind,
	const struct ca *first, const char *cert_pem, const char *key_pem)
{
	STACK_OF(X509) *certs =
		pki_certs_from_pem(cert_pem, strlen(cert_pem), NULL);
	EVP_PKEY *key = pki_key_from_pem(key_pem, strlen(key_pem), NULL);
	X509 *second = certs ? sk_X509_value(certs, 0) : NULL;
	char *forward = NULL, *back = NULL;

	if (second && key) {
		forward = cross(second, first->cert, first->key);
		back = cross(first->cert, second, key);
	}
	sk_X509_pop_free(certs, X509_free);
	EVP_PKEY_free(key);
	if (!forward || !back) {
		free(forward);
		free(back);
		return -ENOMEM;
	}
	add(writing, kind, "cross/second", forward);
	add(writing, kind, "cross/first", back);
	return 0;
}

static int add_second(struct writing *writing, const char *cluster,
	const char *kind, const struct ca *first)
{
	char *cert, *key;

	if (!ca_make(cluster, kind, &cert, &key))
		return -ENOMEM;
	add(writing, kind, "second/cert", cert);
	add(writing, kind, "second/key", key);
	return add_crosses(writing, kind, first, cert, key);
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

static int add_action(struct writing *writing, const char *cluster,
	const char *kind, const struct ca_set *set, enum ca_action action,
	const struct ca_change *change)
{
	int ret = 0;

	switch (action) {
	case CA_NOTHING:
	case CA_REFUSED:
		return 0;
	case CA_MAKE:
		ret = add_second(writing, cluster, kind, &set->active);
		add_phase(writing, kind, CA_ROTATING, change);
		break;
	case CA_USE_SECOND:
		add_phase(writing, kind, CA_ROTATING, change);
		break;
	case CA_USE_FIRST:
		add_phase(writing, kind, CA_ROLLING_BACK, change);
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

int ca_change(struct backend *backend, const char *cluster,
	const struct ca_pair *cas, const struct ca_change *change,
	backend_txn_done *done, void *arg)
{
	struct writing *writing = xcalloc(1, sizeof(*writing));
	int ret = add_action(
		writing, cluster, "host", &cas->host, change->host, change);

	if (ret == 0)
		ret = add_action(writing, cluster, "user", &cas->user,
			change->user, change);
	if (ret == 0) {
		struct backend_txn txn = {writing->compares,
			writing->compare_count, writing->ops, writing->count};

		backend_txn(backend, &txn, done, arg);
	}
	for (size_t i = 0; i < writing->count; i++) {
		if (writing->values[i])
			wipe(writing->values[i], strlen(writing->values[i]));
		free(writing->values[i]);
	}
	free(writing);
	return ret;
}
