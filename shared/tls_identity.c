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
#include "shared/pki.h"
#include "shared/tls.h"

#define FILE_MAX (1 << 20)

/* A regular file of at most FILE_MAX bytes; gives, or NULL with the reason. */
static char *read_file(const char *path, char **error_out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text = NULL;
	size_t len = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
		*error_out = xasprintf("%s: not a file of PEM", path);
	} else {
		text = xcalloc(1, st.st_size + 1);
		while (len < (size_t)st.st_size) {
			ssize_t n = read(fd, text + len, st.st_size - len);

			if (n <= 0)
				break;
			len += n;
		}
	}
	if (fd >= 0)
		close(fd);
	return text;
}

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

static bool contains(STACK_OF(X509) * certs, X509 *cert)
{
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (!X509_cmp(sk_X509_value(certs, i), cert))
			return true;
	return false;
}

static bool add_certs(X509_STORE *store, STACK_OF(X509) * certs)
{
	bool ok = true;

	for (int i = 0; ok && i < sk_X509_num(certs); i++)
		ok = X509_STORE_add_cert(store, sk_X509_value(certs, i));
	return ok;
}

/* Puts the CAs that lead from the leaf to its root behind it, unless the file
 * had them. The root is a host CA, or for a user's identity the user CA. */
static bool complete_chain(struct tls_identity *identity)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	STACK_OF(X509) * found;
	bool ok = store && ctx;

	ok = ok && add_certs(store, identity->host_ca) &&
	     add_certs(store, identity->user_ca) &&
	     X509_STORE_CTX_init(ctx, store, identity->leaf, identity->chain);
	if (ok) {
		/* An expired identity is whole; what it is good for is decided
		 * at the handshake. */
		X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
		ok = X509_verify_cert(ctx) == 1;
	}
	found = ok ? X509_STORE_CTX_get0_chain(ctx) : NULL;
	for (int i = 1; ok && i < sk_X509_num(found); i++) {
		X509 *cert = sk_X509_value(found, i);

		if (contains(identity->chain, cert))
			continue;
		ok = X509_up_ref(cert) &&
		     sk_X509_push(identity->chain, cert) > 0;
	}
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	ERR_clear_error();
	return ok;
}

/* Appends the PEM of cert to text; takes and gives text. */
static char *append_pem(char *text, X509 *cert)
{
	char *pem = pki_cert_to_pem(cert);
	char *joined = xasprintf("%s%s", text ? text : "", pem ? pem : "");

	free(pem);
	free(text);
	return joined;
}

static void encode(struct tls_identity *identity)
{
	identity->cert_pem = append_pem(NULL, identity->leaf);
	for (int i = 0; i < sk_X509_num(identity->chain); i++)
		identity->cert_pem = append_pem(
			identity->cert_pem, sk_X509_value(identity->chain, i));
	for (int i = 0; i < sk_X509_num(identity->host_ca); i++)
		identity->host_ca_pem = append_pem(identity->host_ca_pem,
			sk_X509_value(identity->host_ca, i));
	identity->key_pem = pki_key_to_pem(identity->key);
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
	char *cert_text = read_file(cert, error_out);

	if (cert_text)
		key_text = read_file(key, error_out);
	if (key_text)
		host_text = read_file(host_ca, error_out);
	if (host_text && with_user)
		user_text = read_file(user_ca, error_out);
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
