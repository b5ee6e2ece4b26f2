/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions' identity and closing line. It owns nothing but two texts. What a
 * newcomer gets wrong: sent and received are the client's, to the service and
 * back, on every route.
 */
#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/answer.h"
#include "proxy/session.h"
#include "shared/log.h"

static void format_id(struct session *session)
{
	for (size_t i = 0; i < SESSION_ID_SIZE; i++)
		snprintf(session->id_text + 2 * i, 3, "%02x", session->id[i]);
}

void session_init(struct session *session, int64_t now)
{
	*session = (struct session){.started = now};
	if (RAND_bytes(session->id, sizeof(session->id)) != 1)
		fatal("no random bytes");
	format_id(session);
}

void session_init_from(struct session *session, int64_t now, const uint8_t *id)
{
	*session = (struct session){.started = now};
	memcpy(session->id, id, sizeof(session->id));
	format_id(session);
}

void session_deinit(struct session *session)
{
	free(session->target);
	free(session->user);
	session->target = NULL;
	session->user = NULL;
}

const char *session_error_text(int error)
{
	switch (error) {
	case 0:
		return "closed";
	case -ECONNRESET:
		return "reset";
	case -ENOTCONN:
		return "the tunnel was lost";
	case -ETIMEDOUT:
		return "timed out";
	case -ECANCELED:
		return "given up";
	case -EPIPE:
		return "one side stopped reading";
	default:
		return strerror(-error);
	}
}

void session_log_end(const struct session *session, const char *what,
	int64_t now, int error, uint64_t sent, uint64_t received)
{
	log_info("%s: %s route=%s target=%s agent=%s service=%s source=%s "
		 "user=%s sent=%llu received=%llu ms=%lld conn=%s",
		what, session_error_text(error),
		answer_route_name(session->route),
		session->target ? session->target : "-",
		session->match.agent_id, session->match.service,
		session->source, session->user ? session->user : "-",
		(unsigned long long)sent, (unsigned long long)received,
		(long long)(now - session->started), session->id_text);
}
