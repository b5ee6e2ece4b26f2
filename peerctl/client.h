/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A connection to a target through a proxy: TLS 1.3 with the user's
 * certificate, then HTTP CONNECT. Blocking, with one deadline for all of it;
 * afterwards the socket is non-blocking and the caller moves the bytes.
 */

#include <openssl/ssl.h>
#include <stddef.h>

#define CLIENT_FIRST_MAX 16384

struct client_request {
	const char *proxy;    /* host:port, default port 3080 */
	const char *identity; /* directory that `identity issue` left */
	const char *target;
	int timeout_ms;
};

struct client {
	int fd;
	SSL *ssl;
	SSL_CTX *ctx;
	/* As the proxy reported it; empty when it said nothing. */
	char route[32];
	char proxy_id[64]; /* the proxy that holds the tunnel */
	char connection_id[64];
	/* Came right behind the answer: the target's first bytes. */
	unsigned char first[CLIENT_FIRST_MAX];
	size_t first_len;
};

/* Gives, or NULL and *error_out (gives, to free()): one line. */
struct client *client_open(
	const struct client_request *request, char **error_out);
void client_free(struct client *client);
