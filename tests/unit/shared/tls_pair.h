/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Test help: TLS contexts with a certificate made on the spot, and handshakes
 * between two channels of one process.
 */

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "shared/chan.h"

static inline X509 *tls_pair_certificate(EVP_PKEY *key)
{
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
		(const unsigned char *)"test.example", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	assert(X509_sign(cert, key, EVP_sha256()) > 0);
	return cert;
}

static inline int tls_pair_accept_any(int ok, X509_STORE_CTX *ctx)
{
	return 1;
}

/* One self-signed certificate for both ends, TLS 1.3, mutual. */
static inline SSL_CTX *tls_pair_ctx(bool server)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = tls_pair_certificate(key);
	SSL_CTX *ctx =
		SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ctx,
		SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
		tls_pair_accept_any);
	assert(SSL_CTX_use_certificate(ctx, cert) == 1);
	assert(SSL_CTX_use_PrivateKey(ctx, key) == 1);
	X509_free(cert);
	EVP_PKEY_free(key);
	return ctx;
}

/* Makes TLS channels of two connected non-blocking descriptors (takes them):
 * chans_out[0] is the server. */
static inline void tls_pair_chans(
	struct loop *loop, const int fds[2], struct chan *chans_out[2])
{
	int done[2] = {-EAGAIN, -EAGAIN};

	for (int i = 0; i < 2; i++) {
		SSL_CTX *ctx = tls_pair_ctx(i == 0);
		SSL *ssl = SSL_new(ctx);

		SSL_CTX_free(ctx);
		if (i == 0)
			SSL_set_accept_state(ssl);
		else
			SSL_set_connect_state(ssl);
		chans_out[i] = chan_new_tls(loop, fds[i], ssl);
	}
	while (done[0] == -EAGAIN || done[1] == -EAGAIN)
		for (int i = 0; i < 2; i++)
			if (done[i] == -EAGAIN)
				done[i] = chan_handshake(chans_out[i]);
	assert(done[0] == 0 && done[1] == 0);
}
