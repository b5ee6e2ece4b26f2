/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CONNECT on a tunnel. Owns nothing. What a newcomer gets wrong: the agent
 * connects to a service that it announced, by name; no address of a client's
 * choosing ever goes into the request.
 */
#include <stdio.h>
#include <string.h>

#include "proxy/registry.h"
#include "proxy/stream.h"

#define HEADER_VALUE_MAX 800 /* a user name of 255 bytes, escaped */

struct registry_entry *stream_find(
	struct registry *registry, const struct target_match *match)
{
	struct registry_entry *entry =
		registry_newest(registry, match->agent_id);

	while (entry && (!tunnel_is_ready(entry->tunnel) ||
				!registration_find(
					entry->registration, match->service)))
		entry = registry_older(entry);
	return entry;
}

void stream_escape(const char *text, char *out, size_t size)
{
	size_t used = 0;

	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;
		bool plain = byte > 0x20 && byte < 0x7f && byte != '%';

		if (used + (plain ? 1 : 3) >= size)
			break;
		used += (size_t)snprintf(
			out + used, size - used, plain ? "%c" : "%%%02X", byte);
	}
	out[used] = '\0';
}

int stream_open(struct tunnel *tunnel, const struct session *session,
	uint32_t deadline_ms, const struct tunnel_stream_ops *ops, void *arg,
	struct tunnel_stream **stream_out)
{
	char authority[IDENTITY_NAME_MAX + 8];
	char user[HEADER_VALUE_MAX] = "";
	struct tunnel_header headers[] = {
		{"peerway-source", session->source},
		{"peerway-connection-id", session->id_text},
		{"peerway-user", user},
	};

	if (session->user)
		stream_escape(session->user, user, sizeof(user));
	snprintf(authority, sizeof(authority), "%s:%u", session->match.service,
		(unsigned)session->match.port);
	return tunnel_connect(tunnel, authority, headers, session->user ? 3 : 2,
		deadline_ms, ops, arg, stream_out);
}
