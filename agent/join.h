/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A certificate for this agent, asked for at a proxy (3080, ALPN
 * peerway-agent), which passes the question on to authd:
 *   join   POST /v1/agent/join: token from a file, CA known by its pin
 *   renew  POST /v1/agent/renew: with the certificate there is, same key
 * What comes back is checked (our key, our cluster and uuid, issued by the CA
 * with the pin) before it is written to the keystore.
 */

#include "agent/https.h"

enum join_outcome {
	JOIN_DONE,	/* written: load it */
	JOIN_FAILED,	/* try again later */
	JOIN_UNREACHED, /* the same: there was no connection */
	JOIN_REFUSED,	/* no use without somebody's help, but try again */
};

struct join_request {
	/* Whom to ask; ctx: by pin for a join, with the certificate for a
	 * renewal. */
	struct connect_request to;
	const char *directory; /* of the keystore; all are copied */
	const char *host_uuid;
	const char *name;
	const char *token_file;	  /* join */
	const char *ca_pin;	  /* join */
	struct tls_identity *old; /* renew: takes a reference; NULL: join */
};

struct join;
/* why: one line for the log, what to do included; NULL when JOIN_DONE. Last
 * call, never from within join_new(). */
typedef void join_fn(void *arg, enum join_outcome outcome, const char *why);
struct join *join_new(struct loop *loop, struct resolver *resolver,
	const struct join_request *request, join_fn *fn, void *arg);
/* Ends it without a call; NULL is fine. */
void join_free(struct join *join);
