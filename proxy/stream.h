/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Opening a stream to a service on one of this worker's tunnels, the same way
 * for our own clients and for those that peerd sends.
 */

#include <stddef.h>
#include <stdint.h>

#include "proxy/session.h"
#include "shared/target.h"
#include "shared/tunnel.h"

struct registry;
struct registry_entry;

/* The newest tunnel of the session's agent that can be used and has its
 * service; NULL: none. */
struct registry_entry *stream_find(
	struct registry *registry, const struct target_match *match);

/* CONNECT <service>:<port> with source, user and connection id; as
 * tunnel_connect(). Ops' arg and session outlive the stream. */
int stream_open(struct tunnel *tunnel, const struct session *session,
	uint32_t deadline_ms, const struct tunnel_stream_ops *ops, void *arg,
	struct tunnel_stream **stream_out);

/* A header's value from a name that a certificate carries: printable ASCII
 * stays, other bytes and '%' become %XX. size >= 1. */
void stream_escape(const char *text, char *out, size_t size);
