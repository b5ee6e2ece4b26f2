/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads or makes the two CAs, see ca.h; ca_change.c changes them. What a
 * newcomer gets wrong: two authd may start on one new store at once, so new CAs
 * are written with the condition that there are none, and whoever loses reads
 * what the other wrote.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/ca.h"
#include "shared/alloc.h"
#include "shared/pki.h"

#define CA_DAYS 3650
#define ATTEMPTS 3
#define PREFIX "secret/ca/"

struct loading {
	struct backend *backend;
	const char *cluster;
	unsigned attempts;
	void (*done)(void *arg, struct ca_pair *cas, const char *error);
	void *arg;
};

static void read_cas(struct loading *loading);

static void finish(
	struct loading *loading, struct ca_pair *cas, const char *error)
{
	loading->done(loading->arg, cas, error);
	free(loading);
}

static void ca_deinit(struct ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key); /* wipes */
	free(ca->pem);
}

static void ca_set_deinit(struct ca_set *set)
{
	ca_deinit(&set->active);
	ca_deinit(&set->other);
	free(set->cross);
	free(set->bundle);
}

void ca_pair_free(struct ca_pair *cas)
{
	if (!cas)
		return;
	ca_set_deinit(&cas->host);
	ca_set_deinit(&cas->user);
	free(cas);
}

/* ---- reading ---- */

static const struct backend_kv *find(const struct backend_range_result *result,
	const char *kind, const char *name)
{
	char key[64];

	snprintf(key, sizeof(key), PREFIX "%s%s", kind, name);
	for (size_t i = 0; i < result->count; i++)
		if (!strcmp(result->kvs[i].key, key))
			return &result->kvs[i];
	return NULL;
}

static bool parse(struct ca *ca, const struct backend_kv *cert,
	const struct backend_kv *key)
{
	STACK_OF(X509) * certs;

	if (!cert || !key)
		return false;
	certs = pki_certs_from_pem((const char *)cert->value, cert->len, NULL);
	if (!certs)
		return false;
	ca->cert = sk_X509_shift(certs);
	sk_X509_pop_free(certs, X509_free);
	ca->key = pki_key_from_pem((const char *)key->value, key->len, NULL);
	if (!ca->key || X509_check_private_key(ca->cert, ca->key) != 1)
		return false;
	ca->pem = pki_cert_to_pem(ca->cert);
	pki_spki_pin(ca->key, ca->pin, sizeof(ca->pin));
	return true;
}

static char *text_of(const struct backend_kv *kv)
{
	return kv ? xstrndup((const char *)kv->value, kv->len) : NULL;
}

/* The second CA beside the first, which is in active already. */
static bool parse_second(struct ca_set *set,
	const struct backend_range_result *result, const char *kind)
{
	const struct backend_kv *phase = find(result, kind, "/phase");
	struct ca second = {0};

	set->revision = phase->mod_revision;
	if (ca_state_decode(phase->value, phase->len, &set->state) < 0 ||
		!parse(&second, find(result, kind, "/second/cert"),
			find(result, kind, "/second/key"))) {
		ca_deinit(&second);
		return false;
	}
	set->other = second;
	if (set->state.phase == CA_ROTATING) {
		set->other = set->active;
		set->active = second;
	}
	set->cross = text_of(find(result, kind,
		set->state.phase == CA_ROTATING ? "/cross/second"
						: "/cross/first"));
	return set->cross != NULL;
}

static bool parse_set(struct ca_set *set,
	const struct backend_range_result *result, const char *kind)
{
	if (!parse(&set->active, find(result, kind, "/cert"),
		    find(result, kind, "/key")))
		return false;
	if (find(result, kind, "/phase") && !parse_second(set, result, kind))
		return false;
	set->bundle = xasprintf(
		"%s%s", set->active.pem, set->other.pem ? set->other.pem : "");
	return true;
}

static void use(
	struct loading *loading, const struct backend_range_result *result)
{
	const struct backend_kv *cluster = find(result, "", "cluster");
	struct ca_pair *cas;

	if (!cluster || cluster->len != strlen(loading->cluster) ||
		memcmp(cluster->value, loading->cluster, cluster->len)) {
		finish(loading, NULL,
			"the store belongs to a cluster of another name; set "
			"cluster_name back or use another data_dir");
		return;
	}
	cas = xcalloc(1, sizeof(*cas));
	if (parse_set(&cas->host, result, "host") &&
		parse_set(&cas->user, result, "user")) {
		finish(loading, cas, NULL);
		return;
	}
	ca_pair_free(cas);
	finish(loading, NULL, "the CAs in the store cannot be read");
}

/* ---- making ---- */

static void on_written(void *arg, enum backend_status status, uint64_t revision)
{
	struct loading *loading = arg;

	if (status == BACKEND_OK || status == BACKEND_COMPARE_FAILED)
		read_cas(loading);
	else
		finish(loading, NULL, backend_status_text(status));
}

bool ca_make(
	const char *cluster, const char *kind, char **cert_out, char **key_out)
{
	EVP_PKEY *key = pki_key_new();
	char *name = xasprintf("%s %s CA", cluster, kind);
	X509 *cert = key ? pki_ca_make(key, name, CA_DAYS) : NULL;
	char *cert_pem = cert ? pki_cert_to_pem(cert) : NULL;
	char *key_pem = cert_pem ? pki_key_to_pem(key) : NULL;

	X509_free(cert);
	EVP_PKEY_free(key);
	free(name);
	if (!key_pem) {
		free(cert_pem);
		return false;
	}
	*cert_out = cert_pem;
	*key_out = key_pem;
	return true;
}

static struct backend_op put(const char *key, const char *value)
{
	return (struct backend_op){.kind = BACKEND_PUT,
		.key = key,
		.value = value,
		.len = value ? strlen(value) : 0};
}

static void write_cas(struct loading *loading)
{
	struct backend_compare none = {
		.kind = BACKEND_ABSENT, .key = PREFIX "cluster"};
	char *pem[4] = {NULL};
	struct backend_op ops[5];
	struct backend_txn txn = {&none, 1, ops, 5};
	bool made;

	made = ca_make(loading->cluster, "host", &pem[0], &pem[1]) &&
	       ca_make(loading->cluster, "user", &pem[2], &pem[3]);
	ops[0] = put(PREFIX "cluster", loading->cluster);
	ops[1] = put(PREFIX "host/cert", pem[0]);
	ops[2] = put(PREFIX "host/key", pem[1]);
	ops[3] = put(PREFIX "user/cert", pem[2]);
	ops[4] = put(PREFIX "user/key", pem[3]);
	if (made)
		backend_txn(loading->backend, &txn, on_written, loading);
	for (int i = 0; i < 4; i++) {
		if (pem[i])
			wipe(pem[i], strlen(pem[i]));
		free(pem[i]);
	}
	if (!made)
		finish(loading, NULL, "a CA cannot be made");
}

static void on_read(void *arg, const struct backend_range_result *result)
{
	struct loading *loading = arg;

	if (result->status != BACKEND_OK)
		finish(loading, NULL, backend_status_text(result->status));
	else if (result->count > 0)
		use(loading, result);
	else if (loading->attempts >= ATTEMPTS)
		finish(loading, NULL, "the new CAs were not stored");
	else
		write_cas(loading);
}

static void read_cas(struct loading *loading)
{
	struct backend_range range = {.prefix = PREFIX, .limit = 32};

	loading->attempts++;
	backend_range(loading->backend, &range, on_read, loading);
}

void ca_load(struct backend *backend, const char *cluster,
	void (*done)(void *arg, struct ca_pair *cas, const char *error),
	void *arg)
{
	struct loading *loading = xcalloc(1, sizeof(*loading));

	loading->backend = backend;
	loading->cluster = cluster;
	loading->done = done;
	loading->arg = arg;
	read_cas(loading);
}
