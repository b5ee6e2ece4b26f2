/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First contact of a host that knows only the pin of the cluster's CA: the
 * server must send the CA behind its leaf, and everything is then verified
 * against that one certificate as usual (purpose, dates, name). What a newcomer
 * gets wrong: a certificate that merely carries the pinned key proves nothing;
 * the leaf must be signed by that key, so the leaf itself is never the anchor.
 * And while CAs are rotated a cross certificate carries the pinned key too; the
 * anchor is the CA's own, self-signed certificate.
 */
#include <ctype.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/pki.h"
#include "shared/tls.h"
#include "shared/tls_ctx.h"

#define PIN_PREFIX "sha256:"
#define PIN_HEX 64

static void free_pin(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index,
	long argl, void *argp)
{
	free(ptr);
}

static int pin_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_pin);
	return index;
}

static bool pin_is_valid(const char *pin)
{
	size_t prefix = strlen(PIN_PREFIX);

	if (strncmp(pin, PIN_PREFIX, prefix) || strlen(pin + prefix) != PIN_HEX)
		return false;
	for (const char *c = pin + prefix; *c; c++)
		if (!isxdigit((unsigned char)*c))
			return false;
	return true;
}

/* Borrowed from certs; the leaf does not count. */
static X509 *find_pinned(STACK_OF(X509) * certs, X509 *leaf, const char *pin)
{
	for (int i = 0; i < sk_X509_num(certs); i++) {
		X509 *cert = sk_X509_value(certs, i);

		if (X509_cmp(cert, leaf) && X509_check_ca(cert) > 0 &&
			X509_self_signed(cert, 0) == 1 &&
			pki_pin_matches(cert, pin))
			return cert;
	}
	return NULL;
}

static int on_verify(X509_STORE_CTX *ctx, void *arg)
{
	X509 *ca = find_pinned(X509_STORE_CTX_get0_untrusted(ctx),
		X509_STORE_CTX_get0_cert(ctx), arg);
	STACK_OF(X509) * anchors;
	int ok = 0;

	if (!ca) {
		X509_STORE_CTX_set_error(
			ctx, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT);
		return 0;
	}
	anchors = sk_X509_new_null();
	if (anchors && sk_X509_push(anchors, ca) > 0) {
		X509_STORE_CTX_set0_trusted_stack(ctx, anchors);
		ok = X509_verify_cert(ctx) == 1;
	}
	sk_X509_free(anchors);
	return ok;
}

SSL_CTX *tls_pin_ctx(const char *pin, char **error_out)
{
	SSL_CTX *ctx;
	char *copy;

	if (!pin_is_valid(pin)) {
		*error_out = xstrdup("the CA pin must be \"sha256:\" and 64 "
				     "hexadecimal digits");
		return NULL;
	}
	ctx = tls_ctx_new(TLS_client_method());
	if (!ctx)
		return tls_ctx_failed(ctx, "TLS context", error_out);
	copy = xstrdup(pin);
	if (!SSL_CTX_set_ex_data(ctx, pin_index(), copy)) {
		free(copy);
		return tls_ctx_failed(ctx, "TLS context", error_out);
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, on_verify, copy);
	return ctx;
}

X509 *tls_pinned_ca(SSL *ssl, const char *pin)
{
	X509 *leaf = SSL_get0_peer_certificate(ssl);
	X509 *ca;

	if (!leaf)
		return NULL;
	ca = find_pinned(SSL_get_peer_cert_chain(ssl), leaf, pin);
	if (ca)
		X509_up_ref(ca);
	return ca;
}
