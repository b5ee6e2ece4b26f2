/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SSL_CTX with this project's settings, and the few per-connection calls that
 * are easy to get wrong. Identities are loaded in tls_identity.c, first contact
 * by pin is tls_pin.c. What a newcomer gets wrong: SSL_set_SSL_CTX() in the
 * ClientHello callback moves the certificate and the trust store but not the
 * verify mode nor always the session id context; tls_use_ctx() moves all.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/tls.h"
#include "shared/tls_ctx.h"

void tls_error_text(char *text, size_t size)
{
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	if (!code)
		snprintf(text, size, "%s", "");
	else if (reason)
		snprintf(text, size, "%s", reason);
	else
		snprintf(text, size, "OpenSSL error %lx", code);
	ERR_clear_error();
}

SSL_CTX *tls_ctx_failed(SSL_CTX *ctx, const char *what, char **error_out)
{
	char text[256];

	tls_error_text(text, sizeof(text));
	*error_out = text[0] ? xasprintf("%s: %s", what, text) : xstrdup(what);
	SSL_CTX_free(ctx);
	return NULL;
}

SSL_CTX *tls_ctx_new(const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (!ctx)
		return NULL;
	if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION)) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS |
				      SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	return ctx;
}

static bool use_identity(SSL_CTX *ctx, const struct tls_identity *identity)
{
	return SSL_CTX_use_certificate(ctx, identity->leaf) == 1 &&
	       SSL_CTX_set1_chain(ctx, identity->chain) == 1 &&
	       SSL_CTX_use_PrivateKey(ctx, identity->key) == 1;
}

static bool trust(SSL_CTX *ctx, STACK_OF(X509) * cas)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);

	for (int i = 0; i < sk_X509_num(cas); i++)
		if (!X509_STORE_add_cert(store, sk_X509_value(cas, i)))
			return false;
	return true;
}

/* Names the trust store: a session made under one is never valid under
 * another. */
static bool set_session_context(SSL_CTX *ctx, STACK_OF(X509) * cas)
{
	unsigned char all[SHA256_DIGEST_LENGTH] = "peerway";
	unsigned char pair[2 * SHA256_DIGEST_LENGTH];
	unsigned len;

	for (int i = 0; i < sk_X509_num(cas); i++) {
		memcpy(pair, all, sizeof(all));
		if (!X509_digest(sk_X509_value(cas, i), EVP_sha256(),
			    pair + sizeof(all), &len))
			return false;
		SHA256(pair, sizeof(pair), all);
	}
	return SSL_CTX_set_session_id_context(ctx, all, sizeof(all)) == 1;
}

static int verify_mode(enum tls_verify verify)
{
	switch (verify) {
	case TLS_VERIFY_OPTIONAL:
		return SSL_VERIFY_PEER;
	case TLS_VERIFY_REQUIRED:
		return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	case TLS_VERIFY_NONE:
		break;
	}
	return SSL_VERIFY_NONE;
}

static bool name_cas(SSL_CTX *ctx, STACK_OF(X509) * cas)
{
	for (int i = 0; i < sk_X509_num(cas); i++)
		if (!SSL_CTX_add_client_CA(ctx, sk_X509_value(cas, i)))
			return false;
	return true;
}

SSL_CTX *tls_server_ctx(const struct tls_identity *identity,
	STACK_OF(X509) * cas, enum tls_verify verify, char **error_out)
{
	SSL_CTX *ctx = tls_ctx_new(TLS_server_method());

	if (!ctx || !use_identity(ctx, identity))
		return tls_ctx_failed(ctx, "own certificate", error_out);
	if (!trust(ctx, cas) || !set_session_context(ctx, cas) ||
		(verify != TLS_VERIFY_NONE && !name_cas(ctx, cas)))
		return tls_ctx_failed(ctx, "trusted CAs", error_out);
	SSL_CTX_set_verify(ctx, verify_mode(verify), NULL);
	return ctx;
}

SSL_CTX *tls_client_ctx(const struct tls_identity *identity, char **error_out)
{
	SSL_CTX *ctx = tls_ctx_new(TLS_client_method());

	if (!ctx || (identity->key && !use_identity(ctx, identity)))
		return tls_ctx_failed(ctx, "own certificate", error_out);
	if (!trust(ctx, identity->host_ca))
		return tls_ctx_failed(ctx, "trusted CAs", error_out);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	return ctx;
}

void tls_use_ctx(SSL *ssl, SSL_CTX *ctx)
{
	SSL_set_SSL_CTX(ssl, ctx);
	SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), NULL);
}

static int on_select_alpn(SSL *ssl, const unsigned char **out,
	unsigned char *out_len, const unsigned char *offered,
	unsigned offered_len, void *arg)
{
	const char *protocol = arg;
	size_t len = strlen(protocol);

	for (unsigned at = 0; at < offered_len; at += 1 + offered[at]) {
		if (offered[at] == len && at + 1 + len <= offered_len &&
			!memcmp(offered + at + 1, protocol, len)) {
			*out = offered + at + 1;
			*out_len = len;
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_NOACK;
}

void tls_ctx_set_alpn(SSL_CTX *ctx, const char *protocol)
{
	SSL_CTX_set_alpn_select_cb(ctx, on_select_alpn, (void *)protocol);
}

int tls_expect_name(SSL *ssl, const char *verify_name, const char *sni)
{
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
				       X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (!SSL_set1_host(ssl, verify_name) ||
		(sni && !SSL_set_tlsext_host_name(ssl, sni))) {
		ERR_clear_error();
		return -EINVAL;
	}
	return 0;
}

int tls_set_alpn(SSL *ssl, const char *protocol)
{
	unsigned char wire[256];
	size_t len = strlen(protocol);

	if (len == 0 || len > 255)
		return -EINVAL;
	wire[0] = (unsigned char)len;
	memcpy(wire + 1, protocol, len);
	/* 0 is success here, unlike anywhere else in OpenSSL */
	return SSL_set_alpn_protos(ssl, wire, len + 1) ? -ENOMEM : 0;
}

bool tls_hello_offers(SSL *ssl, const char *protocol)
{
	const unsigned char *list;
	size_t size;
	size_t len = strlen(protocol);

	/* RFC 7301: two bytes of length, then names with a byte of length. */
	if (!SSL_client_hello_get0_ext(ssl,
		    TLSEXT_TYPE_application_layer_protocol_negotiation, &list,
		    &size) ||
		size < 2 || (size_t)(list[0] << 8 | list[1]) != size - 2)
		return false;
	list += 2;
	size -= 2;
	while (size > 0) {
		size_t n = list[0];

		if (n == 0 || n > size - 1)
			return false;
		if (n == len && !memcmp(list + 1, protocol, n))
			return true;
		list += 1 + n;
		size -= 1 + n;
	}
	return false;
}
