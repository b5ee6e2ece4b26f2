/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * HTTP/1.1 answers as text, pure. Every answer but 200 to CONNECT ends the
 * connection.
 */

#include <stdint.h>

#include "ipc.pb-c.h"

/* A whole answer with a body (borrowed); gives, to free(). */
char *answer_text(int status, const char *content_type, const char *body);

/* Where a CONNECT ended up. */
struct answer_route {
	Peerway__Ipc__Route route;
	const char *proxy_id; /* whose tunnel it is */
	uint32_t client_worker;
	int64_t tunnel_worker;	   /* -1: not known here */
	const char *connection_id; /* hex */
};
/* The head that answers CONNECT; gives, to free(). */
char *answer_connected(const struct answer_route *route);

/* "local", "sibling", "peer", "none". */
const char *answer_route_name(Peerway__Ipc__Route route);
/* 404, 403, 502, 503, 504, 400. */
int answer_status_of(Peerway__Ipc__DialCode code);
