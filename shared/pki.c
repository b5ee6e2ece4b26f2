/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, signing requests, pins and PEM. Making certificates is pki_issue.c.
 * Owns nothing between calls. What a newcomer gets wrong: OpenSSL's PEM reader
 * asks the terminal for a passphrase unless it is given a callback, and stops
 * without an error at a text that was cut off inside a BEGIN line.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#include "shared/alloc.h"
#include "shared/pki.h"
#include "shared/tls.h"

#define PEM_MAX (1 << 20)
#define CSR_MAX 16384

static void *refuse(char **error_out, const char *what)
{
	char text[256];

	tls_error_text(text, sizeof(text));
	if (error_out)
		*error_out = text[0] ? xasprintf("%s: %s", what, text)
				     : xstrdup(what);
	return NULL;
}

EVP_PKEY *pki_key_new(void)
{
	return EVP_EC_gen("P-256");
}

/* The memory BIO's bytes as a string; gives. */
static char *bio_text(BIO *bio)
{
	char *data;
	long len = BIO_get_mem_data(bio, &data);

	return len > 0 ? xstrndup(data, len) : NULL;
}

char *pki_key_to_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	char *text = NULL;

	if (bio && PEM_write_bio_PKCS8PrivateKey(
			   bio, key, NULL, NULL, 0, NULL, NULL))
		text = bio_text(bio);
	BIO_free(bio);
	ERR_clear_error();
	return text;
}

static int no_passphrase(char *buf, int size, int writing, void *arg)
{
	return -1;
}

EVP_PKEY *pki_key_from_pem(const char *pem, size_t len, char **error_out)
{
	BIO *bio;
	EVP_PKEY *key;

	if (len > PEM_MAX)
		return refuse(error_out, "key file too large");
	bio = BIO_new_mem_buf(pem, (int)len);
	key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL)
		  : NULL;
	BIO_free(bio);
	if (!key)
		return refuse(error_out, "no usable private key");
	ERR_clear_error();
	return key;
}

uint8_t *pki_csr_make(EVP_PKEY *key, size_t *len_out)
{
	X509_REQ *req = X509_REQ_new();
	unsigned char *der = NULL;
	uint8_t *copy = NULL;
	int len = -1;

	if (req && X509_REQ_set_version(req, X509_REQ_VERSION_1) &&
		X509_REQ_set_pubkey(req, key) &&
		X509_REQ_sign(req, key, EVP_sha256()))
		len = i2d_X509_REQ(req, &der);
	if (len > 0) {
		copy = xcalloc(1, len);
		memcpy(copy, der, len);
		*len_out = len;
	}
	OPENSSL_free(der);
	X509_REQ_free(req);
	ERR_clear_error();
	return copy;
}

/* Only keys that are neither weak nor dear to use, looked at before any
 * arithmetic is done with them. */
static bool key_is_acceptable(EVP_PKEY *key)
{
	char group[32];
	size_t len;

	if (EVP_PKEY_is_a(key, "ED25519"))
		return true;
	if (EVP_PKEY_is_a(key, "RSA"))
		return EVP_PKEY_get_bits(key) >= 2048 &&
		       EVP_PKEY_get_bits(key) <= 8192;
	return EVP_PKEY_is_a(key, "EC") &&
	       EVP_PKEY_get_group_name(key, group, sizeof(group), &len) &&
	       (!strcmp(group, "prime256v1") || !strcmp(group, "secp384r1"));
}

EVP_PKEY *pki_csr_key(const uint8_t *der, size_t len, char **error_out)
{
	const unsigned char *at = der;
	X509_REQ *req;
	EVP_PKEY *key;

	if (len == 0 || len > CSR_MAX)
		return refuse(error_out, "bad length of signing request");
	req = d2i_X509_REQ(NULL, &at, (long)len);
	if (!req || at != der + len) {
		X509_REQ_free(req);
		return refuse(error_out, "malformed signing request");
	}
	key = X509_REQ_get_pubkey(req);
	if (!key || !key_is_acceptable(key)) {
		EVP_PKEY_free(key);
		X509_REQ_free(req);
		return refuse(error_out, "kind of key not accepted");
	}
	if (X509_REQ_verify(req, key) != 1) {
		EVP_PKEY_free(key);
		X509_REQ_free(req);
		return refuse(error_out, "bad signature of signing request");
	}
	X509_REQ_free(req);
	ERR_clear_error();
	return key;
}

void pki_spki_pin(EVP_PKEY *key, char *out, size_t size)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	unsigned char *der = NULL;
	int len = i2d_PUBKEY(key, &der);
	size_t n;

	if (len <= 0 || size < 7 + 2 * sizeof(digest) + 1) {
		OPENSSL_free(der);
		if (size)
			out[0] = '\0';
		return;
	}
	SHA256(der, len, digest);
	OPENSSL_free(der);
	n = snprintf(out, size, "sha256:");
	for (size_t i = 0; i < sizeof(digest); i++)
		n += snprintf(out + n, size - n, "%02x", digest[i]);
}

bool pki_pin_matches(X509 *cert, const char *pin)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);
	char own[80];

	if (!key)
		return false;
	pki_spki_pin(key, own, sizeof(own));
	return own[0] && !strcasecmp(own, pin);
}

char *pki_cert_to_pem(X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;

	if (bio && PEM_write_bio_X509(bio, cert))
		text = bio_text(bio);
	BIO_free(bio);
	ERR_clear_error();
	return text;
}

char *pki_certs_to_pem(STACK_OF(X509) * certs)
{
	char *text = xstrdup("");

	for (int i = 0; i < sk_X509_num(certs); i++) {
		char *pem = pki_cert_to_pem(sk_X509_value(certs, i));
		char *joined = xasprintf("%s%s", text, pem ? pem : "");

		free(pem);
		free(text);
		text = joined;
	}
	return text;
}

static int count_begins(const char *pem, size_t len)
{
	static const char mark[] = "-----BEGIN";
	const char *end = pem + len;
	int count = 0;

	while ((pem = memmem(pem, end - pem, mark, sizeof(mark) - 1))) {
		count++;
		pem += sizeof(mark) - 1;
	}
	return count;
}

/* Reads until there is no further BEGIN line; false on anything malformed. */
static bool read_certs(BIO *bio, STACK_OF(X509) * certs)
{
	X509 *cert;
	unsigned long error;

	while ((cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
		if (!sk_X509_push(certs, cert)) {
			X509_free(cert);
			return false;
		}
	}
	error = ERR_peek_last_error();
	return ERR_GET_LIB(error) == ERR_LIB_PEM &&
	       ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

STACK_OF(X509) *
	pki_certs_from_pem(const char *pem, size_t len, char **error_out)
{
	STACK_OF(X509) * certs;
	BIO *bio;
	bool whole;

	if (len > PEM_MAX)
		return refuse(error_out, "certificate file too large");
	ERR_clear_error();
	certs = sk_X509_new_null();
	bio = BIO_new_mem_buf(pem, (int)len);
	whole = certs && bio && read_certs(bio, certs);
	BIO_free(bio);
	if (whole) {
		ERR_clear_error();
		if (sk_X509_num(certs) > 0 &&
			sk_X509_num(certs) == count_begins(pem, len))
			return certs;
	}
	sk_X509_pop_free(certs, X509_free);
	return refuse(error_out, "not a whole PEM text of certificates");
}
