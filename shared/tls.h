/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SSL_CTX as this project uses them: TLS 1.3, no tickets, no session cache,
 * released buffers, partial writes (tunnel.md 0, 8), private ALPN names.
 */

#include <openssl/ssl.h>
#include <stdbool.h>

#define TLS_ALPN_TUNNEL "peerway-tunnel"
#define TLS_ALPN_AGENT "peerway-agent"

/* A certificate with its key and the CAs it is used with, loaded and checked
 * (key matches leaf, PEM is whole). Kept by reference count. */
struct tls_identity {
	unsigned refs;
	X509 *leaf;
	STACK_OF(X509) * chain; /* what is sent behind the leaf */
	EVP_PKEY *key;
	STACK_OF(X509) * host_ca;
	STACK_OF(X509) * user_ca; /* may be empty */
	char *cert_pem;		  /* leaf and chain, for gRPC */
	char *key_pem;
	char *host_ca_pem;
};

/* From cert.pem, key.pem, host_ca.pem, user_ca.pem (may be absent) below
 * directory, or from the four paths. NULL and *error_out (gives, to free())
 * when anything is missing, torn or does not match. */
struct tls_identity *tls_identity_load(const char *directory, char **error_out);
struct tls_identity *tls_identity_load_files(const char *cert, const char *key,
	const char *host_ca, const char *user_ca, char **error_out);
/* The same from texts; user_ca may be empty. */
struct tls_identity *tls_identity_from_pem(const char *cert, const char *key,
	const char *host_ca, const char *user_ca, char **error_out);
struct tls_identity *tls_identity_ref(struct tls_identity *identity);
void tls_identity_unref(struct tls_identity *identity);
/* Unix seconds. */
int64_t tls_identity_not_after(const struct tls_identity *identity);

enum tls_verify {
	TLS_VERIFY_NONE,     /* no certificate asked for */
	TLS_VERIFY_OPTIONAL, /* asked for, verified if sent */
	TLS_VERIFY_REQUIRED,
};

/* Server context: identity's certificate, trusting cas for its clients. NULL
 * and *error_out on failure. Borrows both (takes its own references). */
SSL_CTX *tls_server_ctx(const struct tls_identity *identity,
	STACK_OF(X509) * cas, enum tls_verify verify, char **error_out);
/* Client context, trusting identity's host CA. identity may lack a key (join):
 * then host_ca alone is used. */
SSL_CTX *tls_client_ctx(const struct tls_identity *identity, char **error_out);
/* Client context for a first join: accepts exactly the chain whose CA
 * certificate has this pin; tls_pinned_ca() gives that CA afterwards. */
SSL_CTX *tls_pin_ctx(const char *pin, char **error_out);
/* The CA of the chain the peer sent that has the pin; gives, or NULL. */
X509 *tls_pinned_ca(SSL *ssl, const char *pin);

/* In the ClientHello callback: go on with ctx's certificate, trust store,
 * verify mode, session id context and ALPN choice. */
void tls_use_ctx(SSL *ssl, SSL_CTX *ctx);
/* Server: choose protocol when it is offered, else none. Borrows protocol for
 * the life of ctx. */
void tls_ctx_set_alpn(SSL_CTX *ctx, const char *protocol);

/* Client side: expect this DNS name in the peer's certificate; sni may differ.
 */
int tls_expect_name(SSL *ssl, const char *verify_name, const char *sni);
int tls_set_alpn(SSL *ssl, const char *protocol);
/* The ALPN names a ClientHello offers, for the ClientHello callback. True when
 * protocol is among them. */
bool tls_hello_offers(SSL *ssl, const char *protocol);

/* Empties the OpenSSL error queue into one line; text of size bytes. */
void tls_error_text(char *text, size_t size);
