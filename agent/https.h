/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One request to a proxy over TLS with ALPN peerway-agent, and its answer: what
 * find and join are made of. HTTPS_WHOLE_MS after the connection stands, at the
 * latest, there is an answer or a reason.
 */

#include "agent/connect.h"

#define HTTPS_WHOLE_MS 30000

struct https_request {
	struct connect_request to; /* alpn and is_wanted are set here */
	const char *method;	   /* borrowed for the call, like all below */
	const char *path;
	const char *content_type; /* with a body */
	const char *body;	  /* NULL: none */
	bool secret;		  /* wipe what was sent */
};

struct https_result {
	int status; /* 0: no answer, why says why not */
	const char *body;
	size_t len;
	char why[1100];
	enum connect_failure failure; /* when there was no connection */
	bool connected;
	struct host_identity proxy; /* who answered */
};

struct https;
/* result is borrowed for the call, which is the last one. */
typedef void https_fn(void *arg, const struct https_result *result);
struct https *https_new(struct loop *loop, struct resolver *resolver,
	const struct https_request *request, https_fn *fn, void *arg);
/* Ends it without a call; NULL is fine. */
void https_free(struct https *https);
