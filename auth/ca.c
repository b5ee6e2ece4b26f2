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
	const struct ca_store *store;
	unsigned attempts;
	const char *why; /* a key cannot be opened; NULL: it is not that */
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

static bool ca_set_equal(const struct ca_set *a, const struct ca_set *b)
{
	return a->state.phase == b->state.phase && a->revision == b->revision &&
	       !strcmp(a->active.pin, b->active.pin) &&
	       !strcmp(a->other.pin, b->other.pin);
}

bool ca_pair_equal(const struct ca_pair *a, const struct ca_pair *b)
{
	return ca_set_equal(&a->host, &b->host) &&
	       ca_set_equal(&a->user, &b->user);
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

/* The CA of kind, "host" or "user", and name, "" or "/second". */
static bool parse(struct loading *loading, struct ca *ca,
	const struct backend_range_result *result, const char *kind,
	const char *name)
{
	STACK_OF(X509) * certs;
	char *text = xasprintf("%s%s/cert", kind, name);
	const struct backend_kv *cert = find(result, text, "");
	const struct backend_kv *key;
	char *pem = NULL;

	free(text);
	text = xasprintf("%s%s/key", kind, name);
	key = find(result, text, "");
	if (cert && key)
		pem = seal_open(loading->store->seal, text, key->value,
			key->len, &loading->why);
	free(text);
	if (!pem)
		return false;
	ca->key = pki_key_from_pem(pem, strlen(pem), NULL);
	wipe(pem, strlen(pem));
	free(pem);
	certs = pki_certs_from_pem((const char *)cert->value, cert->len, NULL);
	if (!certs)
		return false;
	ca->cert = sk_X509_shift(certs);
	sk_X509_pop_free(certs, X509_free);
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
static bool parse_second(struct loading *loading, struct ca_set *set,
	const struct backend_range_result *result, const char *kind)
{
	const struct backend_kv *phase = find(result, kind, "/phase");
	struct ca second = {0};

	set->revision = phase->mod_revision;
	if (ca_state_decode(phase->value, phase->len, &set->state) < 0 ||
		!parse(loading, &second, result, kind, "/second")) {
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

static bool parse_set(struct loading *loading, struct ca_set *set,
	const struct backend_range_result *result, const char *kind)
{
	if (!parse(loading, &set->active, result, kind, ""))
		return false;
	if (find(result, kind, "/phase") &&
		!parse_second(loading, set, result, kind))
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
	char *error;

	if (!cluster || cluster->len != strlen(loading->store->cluster) ||
		memcmp(cluster->value, loading->store->cluster, cluster->len)) {
		finish(loading, NULL,
			"the store belongs to a cluster of another name; set "
			"cluster_name back or use another data_dir");
		return;
	}
	cas = xcalloc(1, sizeof(*cas));
	if (parse_set(loading, &cas->host, result, "host") &&
		parse_set(loading, &cas->user, result, "user")) {
		finish(loading, cas, NULL);
		return;
	}
	ca_pair_free(cas);
	error = loading->why
			? xasprintf("the signing key of a CA cannot be used: "
				    "%s; ca_key_file %s must be a copy of that "
				    "of the other auth hosts",
				  loading->why, seal_path(loading->store->seal))
			: xstrdup("the CAs in the store cannot be read");
	finish(loading, NULL, error);
	free(error);
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

/* Takes secret. */
static char *sealed(struct loading *loading, const char *name, char *secret)
{
	char *text =
		secret ? seal_close(loading->store->seal, name, secret) : NULL;

	if (secret)
		wipe(secret, strlen(secret));
	free(secret);
	return text;
}

static void write_cas(struct loading *loading)
{
	struct backend_compare none = {
		.kind = BACKEND_ABSENT, .key = PREFIX "cluster"};
	char *pem[4] = {NULL};
	struct backend_op ops[5];
	struct backend_txn txn = {&none, 1, ops, 5};
	bool made;

	made = ca_make(loading->store->cluster, "host", &pem[0], &pem[1]) &&
	       ca_make(loading->store->cluster, "user", &pem[2], &pem[3]);
	pem[1] = sealed(loading, "host/key", pem[1]);
	pem[3] = sealed(loading, "user/key", pem[3]);
	ops[0] = put(PREFIX "cluster", loading->store->cluster);
	ops[1] = put(PREFIX "host/cert", pem[0]);
	ops[2] = put(PREFIX "host/key", pem[1]);
	ops[3] = put(PREFIX "user/cert", pem[2]);
	ops[4] = put(PREFIX "user/key", pem[3]);
	if (made)
		backend_txn(loading->store->backend, &txn, on_written, loading);
	for (int i = 0; i < 4; i++) {
		if (pem[i])
			wipe(pem[i], strlen(pem[i]));
		free(pem[i]);
	}
	if (!made)
		finish(loading, NULL, "a CA cannot be made");
}

/* With the key to seal them, unless this host has one already. */
static void make_cas(struct loading *loading)
{
	struct seal *seal = loading->store->seal;
	char *error = NULL;

	if (!seal_is_ready(seal) && seal_make(seal, &error) < 0)
		finish(loading, NULL, error);
	else
		write_cas(loading);
	free(error);
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
		make_cas(loading);
}

static void read_cas(struct loading *loading)
{
	struct backend_range range = {.prefix = PREFIX, .limit = 32};

	loading->attempts++;
	backend_range(loading->store->backend, &range, on_read, loading);
}

void ca_load(const struct ca_store *store,
	void (*done)(void *arg, struct ca_pair *cas, const char *error),
	void *arg)
{
	struct loading *loading = xcalloc(1, sizeof(*loading));

	loading->store = store;
	loading->done = done;
	loading->arg = arg;
	read_cas(loading);
}
