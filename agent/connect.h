/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A TLS connection to a proxy: name, TCP, handshake, and who answered. The
 * address says nothing about that (a load balancer stands there); the
 * certificate does: issued by the host CA, for the server name of this cluster,
 * role Proxy.
 *
 *   DIALING --TCP--> (ASKING, an HTTP proxy) --> SHAKING --certificate of a
 * proxy we want--> told ^                 |
 *      +--- not wanted, not a proxy, no TLS: the next address
 *
 * A proxy that is too busy says so in plain HTTP before any byte of TLS, with a
 * time to come back. The next address is tried first; the time is told when
 * none gave a connection.
 *
 * Every step has a deadline, and the whole has CONNECT_WHOLE_MS.
 */

#include <openssl/ssl.h>

#include "agent/resolve.h"
#include "shared/https_proxy.h"
#include "shared/identity.h"

#define CONNECT_TRY_MS 5000
#define CONNECT_HANDSHAKE_MS 10000
#define CONNECT_WHOLE_MS 30000

/* Why the last address was no good; the one to show when all were not. */
enum connect_failure {
	CONNECT_UNREACHABLE, /* name, TCP */
	CONNECT_TLS,	     /* no TLS, our or its certificate refused */
	CONNECT_STRANGER,    /* a certificate, but not of a proxy of ours */
	CONNECT_UNWANTED,    /* a proxy we have a tunnel to */
	CONNECT_BUSY,	     /* it named a time to come back */
	CONNECT_HTTP_PROXY,  /* the HTTP proxy on the way refused */
	CONNECT_FAILURES,
};

struct connect_request {
	const char *const *addrs; /* copied */
	unsigned addr_count;
	uint16_t default_port;
	/* NULL: no HTTP proxy; borrowed until the end */
	const struct https_proxy *https_proxy;
	SSL_CTX *ctx;	     /* borrowed for the call */
	const char *alpn;    /* static */
	const char *cluster; /* borrowed until the end */
	uint32_t random;     /* where among a name's addresses to begin */
	/* May be NULL. Called when the certificate was checked. */
	bool (*is_wanted)(void *arg, const struct host_identity *proxy);
};

struct connect_result {
	/* success: both are given; fd is -1 otherwise */
	int fd;
	SSL *ssl;
	struct host_identity proxy;
	char addr[640]; /* the way to it, for messages */
	/* failure */
	enum connect_failure failure;
	uint32_t retry_after_ms; /* CONNECT_BUSY */
	char why[1100];
};

struct connect;
/* result is borrowed for the call, which is the last one; never from within
 * connect_new(). */
typedef void connect_fn(void *arg, const struct connect_result *result);

struct connect *connect_new(struct loop *loop, struct resolver *resolver,
	const struct connect_request *request, connect_fn *fn, void *arg);
/* Ends it without a call; NULL is fine. Not after fn was called. */
void connect_free(struct connect *connect);
