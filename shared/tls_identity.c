/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a certificate with key and CAs, and refuses a set whose parts do not
 * belong together, so that a half-written directory never replaces a good
 * identity in use. Owns the objects by reference count. What a newcomer gets
 * wrong: the CA is always in the chain that is sent, because a host that joins
 * knows nothing of the cluster but the CA's pin.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/bundle.h"
#include "shared/file.h"
#include "shared/pki.h"
#include "shared/tls.h"

/* Where the four parts come from, as errors name it. */
struct origin {
	const char *cert;
	const char *key;
	const char *host_ca;
	const char *user_ca;
};

/* Prefixes the reason with where it was met. */
static void blame(const char *where, char **error)
{
	char *text = xasprintf("%s: %s", where, *error);

	free(*error);
	*error = text;
}

static STACK_OF(X509) *
	parse_certs(const char *where, const char *pem, char **error_out)
{
	STACK_OF(X509) *certs = pki_certs_from_pem(pem, strlen(pem), error_out);

	if (!certs)
		blame(where, error_out);
	return certs;
}

/* Adds cert to the chain, unless it is there. */
static bool chain_add(struct tls_identity *identity, X509 *cert)
{
	if (bundle_contains(identity->chain, cert))
		return true;
	return X509_up_ref(cert) && sk_X509_push(identity->chain, cert) > 0;
}

/* A CA that was withdrawn is not sent any more, nor what leads to it only. */
static bool drop_untrusted(
	struct tls_identity *identity, STACK_OF(X509) * trusted)
{
	STACK_OF(X509) *kept = sk_X509_new_null();
	X509 *cert;
	bool ok = kept != NULL;

	for (int i = 0; ok && i < sk_X509_num(identity->chain); i++) {
		cert = sk_X509_value(identity->chain, i);
		if (bundle_verifies(cert, trusted, identity->chain, true))
			ok = X509_up_ref(cert) && sk_X509_push(kept, cert) > 0;
	}
	sk_X509_pop_free(identity->chain, X509_free);
	identity->chain = kept;
	return ok;
}

/* Puts behind the leaf, in this order: what the file had, and of the CAs those
 * that issued leaf or chain. While a CA is replaced these are two: the new one,
 * for who joins by its pin, and the old one behind the cross certificate. The
 * root is a host CA, or for a user's identity the user CA. */
static bool complete_chain(struct tls_identity *identity)
{
	STACK_OF(X509) *trusted = sk_X509_dup(identity->host_ca);
	bool ok = trusted != NULL;
	X509 *ca;

	for (int i = 0; ok && i < sk_X509_num(identity->user_ca); i++)
		ok = sk_X509_push(
			     trusted, sk_X509_value(identity->user_ca, i)) > 0;
	/* An expired identity is whole; what it is good for is decided at the
	 * handshake. */
	ok = ok &&
	     bundle_verifies(identity->leaf, trusted, identity->chain, true) &&
	     drop_untrusted(identity, trusted);
	ca = ok ? bundle_issuer(trusted, identity->leaf) : NULL;
	if (ca)
		ok = chain_add(identity, ca);
	for (int i = 0; ok && i < sk_X509_num(identity->chain); i++) {
		ca = bundle_issuer(trusted, sk_X509_value(identity->chain, i));
		ok = !ca || chain_add(identity, ca);
	}
	sk_X509_free(trusted);
	return ok;
}

static void encode(struct tls_identity *identity)
{
	char *leaf = pki_cert_to_pem(identity->leaf);
	char *chain = pki_certs_to_pem(identity->chain);

	identity->cert_pem = xasprintf("%s%s", leaf ? leaf : "", chain);
	identity->host_ca_pem = pki_certs_to_pem(identity->host_ca);
	identity->key_pem = pki_key_to_pem(identity->key);
	free(leaf);
	free(chain);
}

/* The parts belong together, and are put into the forms that users want. */
static int finish(struct tls_identity *identity, char **error_out)
{
	if (X509_check_private_key(identity->leaf, identity->key) != 1) {
		ERR_clear_error();
		*error_out = xstrdup("the key does not belong to the "
				     "certificate");
		return -EINVAL;
	}
	if (!complete_chain(identity)) {
		*error_out = xstrdup("the certificate was not issued by the "
				     "host CA nor by the user CA given");
		return -EINVAL;
	}
	encode(identity);
	if (identity->key_pem)
		return 0;
	*error_out = xstrdup("the key cannot be encoded");
	return -EINVAL;
}

static struct tls_identity *parse(const struct origin *origin, const char *cert,
	const char *key, const char *host_ca, const char *user_ca,
	char **error_out)
{
	struct tls_identity *identity = xcalloc(1, sizeof(*identity));

	identity->refs = 1;
	identity->chain = parse_certs(origin->cert, cert, error_out);
	if (!identity->chain)
		goto fail;
	identity->leaf = sk_X509_shift(identity->chain);
	identity->key = pki_key_from_pem(key, strlen(key), error_out);
	if (!identity->key) {
		blame(origin->key, error_out);
		goto fail;
	}
	identity->host_ca = parse_certs(origin->host_ca, host_ca, error_out);
	if (!identity->host_ca)
		goto fail;
	if (user_ca)
		identity->user_ca =
			parse_certs(origin->user_ca, user_ca, error_out);
	else
		identity->user_ca = sk_X509_new_null();
	if (!identity->user_ca)
		goto fail;
	if (finish(identity, error_out) < 0) {
		blame(origin->cert, error_out);
		goto fail;
	}
	return identity;

fail:
	tls_identity_unref(identity);
	return NULL;
}

struct tls_identity *tls_identity_from_pem(const char *cert, const char *key,
	const char *host_ca, const char *user_ca, char **error_out)
{
	static const struct origin origin = {
		"certificate", "key", "host CA", "user CA"};

	return parse(&origin, cert, key, host_ca,
		user_ca && user_ca[0] ? user_ca : NULL, error_out);
}

struct tls_identity *tls_identity_load_files(const char *cert, const char *key,
	const char *host_ca, const char *user_ca, char **error_out)
{
	struct origin origin = {cert, key, host_ca, user_ca};
	bool with_user = user_ca && user_ca[0];
	struct tls_identity *identity = NULL;
	char *user_text = NULL;
	char *host_text = NULL;
	char *key_text = NULL;
	char *cert_text = file_text(cert, error_out);

	if (cert_text)
		key_text = file_text(key, error_out);
	if (key_text)
		host_text = file_text(host_ca, error_out);
	if (host_text && with_user)
		user_text = file_text(user_ca, error_out);
	if (host_text && (user_text || !with_user))
		identity = parse(&origin, cert_text, key_text, host_text,
			user_text, error_out);
	if (key_text)
		wipe(key_text, strlen(key_text));
	free(key_text);
	free(cert_text);
	free(host_text);
	free(user_text);
	return identity;
}

struct tls_identity *tls_identity_load(const char *directory, char **error_out)
{
	char *cert = xasprintf("%s/cert.pem", directory);
	char *key = xasprintf("%s/key.pem", directory);
	char *host_ca = xasprintf("%s/host_ca.pem", directory);
	char *user_ca = xasprintf("%s/user_ca.pem", directory);
	bool has_user_ca = access(user_ca, F_OK) == 0 || errno != ENOENT;
	struct tls_identity *identity = tls_identity_load_files(
		cert, key, host_ca, has_user_ca ? user_ca : NULL, error_out);

	free(cert);
	free(key);
	free(host_ca);
	free(user_ca);
	return identity;
}

struct tls_identity *tls_identity_ref(struct tls_identity *identity)
{
	__atomic_add_fetch(&identity->refs, 1, __ATOMIC_RELAXED);
	return identity;
}

void tls_identity_unref(struct tls_identity *identity)
{
	if (!identity ||
		__atomic_sub_fetch(&identity->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	X509_free(identity->leaf);
	sk_X509_pop_free(identity->chain, X509_free);
	EVP_PKEY_free(identity->key);
	sk_X509_pop_free(identity->host_ca, X509_free);
	sk_X509_pop_free(identity->user_ca, X509_free);
	if (identity->key_pem)
		wipe(identity->key_pem, strlen(identity->key_pem));
	free(identity->key_pem);
	free(identity->cert_pem);
	free(identity->host_ca_pem);
	free(identity);
}

int64_t tls_identity_not_after(const struct tls_identity *identity)
{
	struct tm tm;

	if (!ASN1_TIME_to_tm(X509_get0_notAfter(identity->leaf), &tm))
		return 0;
	return timegm(&tm);
}
