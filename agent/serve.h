/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * CONNECT <service>:<port> from a tunnel, joined to the service's own address
 * of the configuration. What the request names selects among the services that
 * were announced; it is never an address to connect to.
 *
 *   asked --service known--> CONNECTING --TCP--> JOINED --> gone
 *     |                          |
 *     +--- 404 ------------------+--- 502, with a peerway-reason
 */

#include "agent/resolve.h"
#include "shared/metrics.h"
#include "shared/registration.h"
#include "shared/tunnel.h"

/* To reach a service, all its addresses together. */
#define SERVE_WHOLE_MS 10000
#define SERVE_TRY_MS 5000

struct serve;
/* addrs[i] ("host:port") belongs to registration->services[i]; copies both.
 * Borrows the rest. */
struct serve *serve_new(struct loop *loop, struct resolver *resolver,
	const struct registration *registration, const char *const *addrs,
	struct metrics *metrics);
/* Other services; connections that stand or are under way go on. */
void serve_change(struct serve *serve, const struct registration *registration,
	const char *const *addrs);
/* All tunnels must have ended. */
void serve_free(struct serve *serve);

/* Answers the stream, now or later. */
void serve_connect(struct serve *serve, struct tunnel_stream *stream,
	const struct tunnel_request *request);
