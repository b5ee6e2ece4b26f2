/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three server contexts of a worker. OpenSSL counts references, so a
 * context outlives its replacement here for as long as a connection uses it.
 *
 * What a newcomer gets wrong: the choice cannot be made in the ALPN callback,
 * which comes after the certificate request was decided; it has to be the
 * ClientHello callback. It is called again when a handshake that it made wait
 * goes on, and for the second ClientHello after a HelloRetryRequest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/trust.h"
#include "shared/alloc.h"

struct trust {
	SSL_CTX *contexts[TRUST_KINDS];
	int64_t not_after;
};

static const char *const alpn[TRUST_KINDS] = {
	[TRUST_USER] = "http/1.1",
	[TRUST_AGENT] = TLS_ALPN_AGENT,
	[TRUST_TUNNEL] = TLS_ALPN_TUNNEL,
};

struct trust *trust_new(void)
{
	return xcalloc(1, sizeof(struct trust));
}

static void free_contexts(SSL_CTX *contexts[TRUST_KINDS])
{
	for (int i = 0; i < TRUST_KINDS; i++)
		SSL_CTX_free(contexts[i]);
}

void trust_free(struct trust *trust)
{
	if (!trust)
		return;
	free_contexts(trust->contexts);
	free(trust);
}

static enum trust_kind kind_asked(SSL *ssl)
{
	if (tls_hello_offers(ssl, TLS_ALPN_TUNNEL))
		return TRUST_TUNNEL;
	return tls_hello_offers(ssl, TLS_ALPN_AGENT) ? TRUST_AGENT : TRUST_USER;
}

static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
	struct trust *trust = arg;
	struct trust_hello *hello = SSL_get_app_data(ssl);
	enum trust_kind kind = kind_asked(ssl);

	/* the second one, after HelloRetryRequest, must not ask for more */
	if (hello->seen && kind != hello->asked)
		return SSL_CLIENT_HELLO_ERROR;
	hello->seen = true;
	hello->asked = kind;
	if (kind == TRUST_USER)
		return SSL_CLIENT_HELLO_SUCCESS;
	if (!hello->admitted)
		return SSL_CLIENT_HELLO_RETRY;
	tls_use_ctx(ssl, trust->contexts[kind]);
	return SSL_CLIENT_HELLO_SUCCESS;
}

int trust_use(
	struct trust *trust, struct tls_identity *identity, char **error_out)
{
	SSL_CTX *contexts[TRUST_KINDS] = {0};

	contexts[TRUST_USER] = tls_server_ctx(
		identity, identity->user_ca, TLS_VERIFY_OPTIONAL, error_out);
	if (contexts[TRUST_USER])
		contexts[TRUST_AGENT] = tls_server_ctx(identity,
			identity->host_ca, TLS_VERIFY_OPTIONAL, error_out);
	if (contexts[TRUST_AGENT])
		contexts[TRUST_TUNNEL] = tls_server_ctx(identity,
			identity->host_ca, TLS_VERIFY_REQUIRED, error_out);
	if (!contexts[TRUST_TUNNEL]) {
		free_contexts(contexts);
		return -EINVAL;
	}
	for (int i = 0; i < TRUST_KINDS; i++) {
		tls_ctx_set_alpn(contexts[i], alpn[i]);
		SSL_CTX_set_client_hello_cb(
			contexts[i], on_client_hello, trust);
	}

	free_contexts(trust->contexts);
	memcpy(trust->contexts, contexts, sizeof(contexts));
	trust->not_after = tls_identity_not_after(identity);
	return 0;
}

int64_t trust_not_after(const struct trust *trust)
{
	return trust->not_after;
}

SSL *trust_accept(
	struct trust *trust, bool tunnels_only, struct trust_hello *hello)
{
	SSL_CTX *ctx =
		trust->contexts[tunnels_only ? TRUST_TUNNEL : TRUST_USER];
	SSL *ssl = ctx ? SSL_new(ctx) : NULL;

	if (!ssl)
		return NULL;
	*hello = (struct trust_hello){.asked = TRUST_USER};
	SSL_set_app_data(ssl, hello);
	SSL_set_accept_state(ssl);
	return ssl;
}

enum trust_kind trust_kind_of(const SSL *ssl)
{
	const unsigned char *name;
	unsigned len;

	SSL_get0_alpn_selected(ssl, &name, &len);
	for (int kind = TRUST_AGENT; kind < TRUST_KINDS; kind++) {
		if (len == strlen(alpn[kind]) && !memcmp(name, alpn[kind], len))
			return (enum trust_kind)kind;
	}
	return TRUST_USER;
}

X509 *trust_leaf(SSL *ssl)
{
	if (SSL_get_verify_result(ssl) != X509_V_OK)
		return NULL;
	return SSL_get0_peer_certificate(ssl);
}
