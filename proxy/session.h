/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What is known of one client's session, from the dial to the line that its
 * end writes into the log. The connection id is the same in every daemon.
 */

#include <stdint.h>

#include "ipc.pb-c.h"
#include "shared/identity.h"
#include "shared/sock.h"
#include "shared/target.h"

#define SESSION_ID_SIZE 16

struct session {
	uint8_t id[SESSION_ID_SIZE];
	char id_text[2 * SESSION_ID_SIZE + 1];
	char *target; /* as the client wrote it; NULL: came from peerd */
	struct target_match match;
	char source[SOCK_ADDR_MAX];
	char *user; /* NULL: none */
	Peerway__Ipc__Route route;
	int64_t started; /* loop_now() */
};

/* A new random id. */
void session_init(struct session *session, int64_t now);
/* Keeps the id (SESSION_ID_SIZE bytes) that another daemon chose. */
void session_init_from(struct session *session, int64_t now, const uint8_t *id);
void session_deinit(struct session *session);

/* One info line; what: "session ended" or "stream ended". error as in
 * tunnel_stream_result. */
void session_log_end(const struct session *session, const char *what,
	int64_t now, int error, uint64_t sent, uint64_t received);
const char *session_error_text(int error);
