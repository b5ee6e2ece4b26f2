/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are and whom we accept, in gRPC's terms: server credentials that ask
 * the holder of our identity at every handshake, channel credentials that
 * check role and name of the server's leaf behind the ordinary verification,
 * and the identity of a caller from its verified leaf.
 *
 * What is easily got wrong: gRPC calls the fetcher and the verify callback on
 * its own threads, so the holder is locked, and only PEM text (never a counted
 * tls_identity) leaves the lock.
 */

#include <errno.h>
#include <grpc/grpc_security_constants.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "shared/alloc.h"
#include "shared/rpc.h"

/* One server's credentials: which identity they last served. */
struct fetcher {
	SLIST_ENTRY(fetcher) entry;
	struct rpc_identity *holder;
	uint64_t served;
};

struct rpc_identity {
	pthread_mutex_t lock;
	struct tls_identity *identity;
	uint64_t generation; /* counts replacements, from 1 */
	SLIST_HEAD(, fetcher) fetchers;
};

/* What one channel expects of its server. */
struct expectation {
	char *cluster;
	char *common_name; /* NULL: any of the cluster */
	unsigned role;
	void (*on_refused)(void *arg, const char *why);
	void *arg;
};

struct rpc_identity *rpc_identity_new(struct tls_identity *identity)
{
	struct rpc_identity *holder = xcalloc(1, sizeof(*holder));

	pthread_mutex_init(&holder->lock, NULL);
	SLIST_INIT(&holder->fetchers);
	holder->identity = tls_identity_ref(identity);
	holder->generation = 1;
	return holder;
}

void rpc_identity_replace(
	struct rpc_identity *holder, struct tls_identity *identity)
{
	struct tls_identity *old;

	pthread_mutex_lock(&holder->lock);
	old = holder->identity;
	holder->identity = tls_identity_ref(identity);
	holder->generation++;
	pthread_mutex_unlock(&holder->lock);
	tls_identity_unref(old);
}

void rpc_identity_free(struct rpc_identity *holder)
{
	struct fetcher *fetcher;

	if (!holder)
		return;
	while ((fetcher = SLIST_FIRST(&holder->fetchers))) {
		SLIST_REMOVE_HEAD(&holder->fetchers, entry);
		free(fetcher);
	}
	tls_identity_unref(holder->identity);
	pthread_mutex_destroy(&holder->lock);
	free(holder);
}

/* ---- server ---- */

/* On a gRPC thread, at every handshake. */
static grpc_ssl_certificate_config_reload_status on_fetch(
	void *arg, grpc_ssl_server_certificate_config **config_out)
{
	struct fetcher *fetcher = arg;
	struct rpc_identity *holder = fetcher->holder;
	grpc_ssl_certificate_config_reload_status status;

	pthread_mutex_lock(&holder->lock);
	if (fetcher->served == holder->generation) {
		status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
	} else {
		grpc_ssl_pem_key_cert_pair pair = {
			.private_key = holder->identity->key_pem,
			.cert_chain = holder->identity->cert_pem,
		};

		*config_out = grpc_ssl_server_certificate_config_create(
			holder->identity->host_ca_pem, &pair, 1);
		fetcher->served = holder->generation;
		status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
	}
	pthread_mutex_unlock(&holder->lock);
	return status;
}

grpc_server_credentials *rpc_server_creds(
	struct rpc_identity *holder, bool require)
{
	struct fetcher *fetcher = xcalloc(1, sizeof(*fetcher));

	fetcher->holder = holder;
	SLIST_INSERT_HEAD(&holder->fetchers, fetcher, entry);
	return grpc_ssl_server_credentials_create_with_options(
		grpc_ssl_server_credentials_create_options_using_config_fetcher(
			require ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
				: GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY,
			on_fetch, fetcher));
}

/* ---- client ---- */

static X509 *leaf_of_pem(const char *pem, size_t len)
{
	BIO *bio = BIO_new_mem_buf(pem, (int)len);
	X509 *leaf = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return leaf;
}

/* The leaf's common name; empty when it has none or an embedded NUL. */
static void common_name_of(X509 *leaf, char *out, size_t size)
{
	X509_NAME *subject = X509_get_subject_name(leaf);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	const ASN1_STRING *value;
	int len;

	out[0] = '\0';
	if (at < 0)
		return;
	value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
	len = ASN1_STRING_length(value);
	if ((size_t)len >= size || memchr(ASN1_STRING_get0_data(value), 0, len))
		return;
	memcpy(out, ASN1_STRING_get0_data(value), len);
	out[len] = '\0';
}

static bool has_organization(X509 *leaf, const char *wanted)
{
	X509_NAME *subject = X509_get_subject_name(leaf);
	int at = -1;

	while ((at = X509_NAME_get_index_by_NID(
			subject, NID_organizationName, at)) >= 0) {
		const ASN1_STRING *value = X509_NAME_ENTRY_get_data(
			X509_NAME_get_entry(subject, at));

		if ((size_t)ASN1_STRING_length(value) == strlen(wanted) &&
			memcmp(ASN1_STRING_get0_data(value), wanted,
				strlen(wanted)) == 0)
			return true;
	}
	return false;
}

/* NULL, or why this is not the server that was meant; the order and the texts
 * are the reference's. */
static const char *refusal(const struct expectation *expect, X509 *leaf)
{
	struct host_identity identity;
	const char *reason;
	char name[300];

	common_name_of(leaf, name, sizeof(name));
	if (name[0] == '\0')
		return "missing identity username";
	if (expect->role == IDENTITY_PROXY && !has_organization(leaf, "Proxy"))
		return "proxy system role required";
	if (expect->role == IDENTITY_AUTH && !has_organization(leaf, "Auth"))
		return "auth system role required";
	if (expect->common_name && strcmp(name, expect->common_name) != 0)
		return "connected to unexpected proxy";
	if (identity_of_host(leaf, expect->cluster, &identity, &reason) < 0)
		return reason;
	if (!(identity.roles & expect->role))
		return "another system role required";
	return NULL;
}

/* On a gRPC thread. Nonzero refuses the connection. */
static int on_verify(const char *target, const char *pem, void *arg)
{
	const struct expectation *expect = arg;
	X509 *leaf = leaf_of_pem(pem, strlen(pem));
	const char *why =
		leaf ? refusal(expect, leaf) : "certificate cannot be read";

	X509_free(leaf);
	if (!why)
		return 0;
	if (expect->on_refused)
		expect->on_refused(expect->arg, why);
	return 1;
}

static void on_forgotten(void *arg)
{
	struct expectation *expect = arg;

	free(expect->cluster);
	free(expect->common_name);
	free(expect);
}

grpc_channel_credentials *rpc_channel_creds(struct rpc_identity *holder,
	const char *cluster, unsigned role, const char *expect_uuid,
	void (*on_refused)(void *arg, const char *why), void *arg)
{
	struct expectation *expect = xcalloc(1, sizeof(*expect));
	grpc_ssl_verify_peer_options options = {
		.verify_peer_callback = on_verify,
		.verify_peer_callback_userdata = expect,
		.verify_peer_destruct = on_forgotten,
	};
	grpc_channel_credentials *creds;
	grpc_ssl_pem_key_cert_pair pair;

	expect->cluster = xstrdup(cluster);
	if (expect_uuid)
		expect->common_name = xasprintf("%s.%s", expect_uuid, cluster);
	expect->role = role;
	expect->on_refused = on_refused;
	expect->arg = arg;
	pthread_mutex_lock(&holder->lock);
	pair.private_key = holder->identity->key_pem;
	pair.cert_chain = holder->identity->cert_pem;
	creds = grpc_ssl_credentials_create_ex(holder->identity->host_ca_pem,
		pair.private_key ? &pair : NULL, &options, NULL);
	pthread_mutex_unlock(&holder->lock);
	return creds;
}

/* ---- callers ---- */

#define CALLERS 64 /* remembered, by hash */

struct known {
	char *pem;
	size_t len;
	struct host_identity identity;
};

struct rpc_callers {
	struct known known[CALLERS];
};

struct rpc_callers *rpc_callers_new(void)
{
	return xcalloc(1, sizeof(struct rpc_callers));
}

void rpc_callers_free(struct rpc_callers *callers)
{
	for (int i = 0; i < CALLERS; i++)
		free(callers->known[i].pem);
	free(callers);
}

static struct known *slot_of(
	struct rpc_callers *callers, const char *pem, size_t len)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)pem[i]) * 16777619u;
	return &callers->known[hash % CALLERS];
}

static int identity_of_pem(const char *pem, size_t len, const char *cluster,
	struct host_identity *out)
{
	X509 *leaf = leaf_of_pem(pem, len);
	const char *reason;
	int ret =
		leaf ? identity_of_host(leaf, cluster, out, &reason) : -EBADMSG;

	X509_free(leaf);
	return ret;
}

static int recall(struct rpc_callers *callers, const char *pem, size_t len,
	const char *cluster, struct host_identity *out)
{
	struct known *known = slot_of(callers, pem, len);
	int ret;

	if (known->pem && known->len == len &&
		memcmp(known->pem, pem, len) == 0) {
		*out = known->identity;
		return 0;
	}
	ret = identity_of_pem(pem, len, cluster, out);
	if (ret < 0)
		return ret;
	free(known->pem);
	known->pem = xstrndup(pem, len);
	known->len = len;
	known->identity = *out;
	return 0;
}

int rpc_caller(struct rpc_callers *callers, grpc_call *call,
	const char *cluster, struct host_identity *out)
{
	grpc_auth_context *context = grpc_call_auth_context(call);
	grpc_auth_property_iterator it;
	const grpc_auth_property *pem;
	int ret = -ENOENT;

	if (!context)
		return -ENOENT;
	it = grpc_auth_context_find_properties_by_name(
		context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
	pem = grpc_auth_property_iterator_next(&it);
	if (pem && grpc_auth_context_peer_is_authenticated(context))
		ret = callers ? recall(callers, pem->value, pem->value_length,
					cluster, out)
			      : identity_of_pem(pem->value, pem->value_length,
					cluster, out);
	grpc_auth_context_release(context);
	return ret;
}
