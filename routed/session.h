/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The one connection to an auth server, and the lease on which this host's
 * records hang.
 *
 *   IDLE --identity--> OPENING --lease granted or still alive--> OPEN
 *   OPENING, OPEN --failure--> WAITING --backoff--> OPENING (next server)
 *   any --session_leave()--> LEAVING
 *
 * A session that fails keeps its lease: when an auth server answers again the
 * lease may be alive still, and then nothing needs to be said anew, unless a
 * write was under way (session_doubt_lease()), or its store is another one by
 * then: an older copy that knows the lease does not know what was said since.
 * An epoch is one lease's life; a new lease has a higher one, except in a store
 * that was put back, where the lease's id, which is never given twice, keeps
 * the lives apart.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/conf.h"
#include "shared/loop.h"
#include "shared/rpc.h"

enum session_state {
	SESSION_IDLE, /* no identity yet */
	SESSION_WAITING,
	SESSION_OPENING,
	SESSION_OPEN,
	SESSION_LEAVING,
};

struct session_ops {
	/* A new lease: nothing hangs on it. Before on_open. */
	void (*on_lease)(void *arg);
	void (*on_open)(void *arg);
	/* OPEN no more. Calls on the channel end with status 1 after this. */
	void (*on_close)(void *arg);
};

struct session;

/* Borrows all. */
struct session *session_new(struct loop *loop, struct rpc_cq *cq,
	const struct conf *conf, const char *proxy_id,
	const struct session_ops *ops, void *arg);
void session_free(struct session *session);

/* With the first identity begins, with a new one begins anew. Borrows the
 * holder. */
void session_start(struct session *session, struct rpc_identity *holder);

enum session_state session_state(const struct session *session);
/* NULL unless OPEN. */
struct rpc_channel *session_channel(struct session *session);

/* A call on the channel has failed in a way that says the server is of no use
 * (session_is_fatal()): another one is tried. */
void session_fail(struct session *session, const char *what, int status,
	const char *message);
bool session_is_fatal(int status);
/* The server has answered something else: it is there, if it is late with the
 * keepalive. */
void session_heard(struct session *session);
/* authd knows the lease no more, or a newer epoch: a new one is asked for. */
void session_lose_lease(struct session *session, int status, const char *why);
/* A write under the lease was lost. It may arrive still, behind what is said
 * next, and with the same epoch would undo that: so the next session, of which
 * session_fail() is the beginning, has a new lease. */
void session_doubt_lease(struct session *session);
/* Everything has been said under the present lease: ends the one before. */
void session_revoke_previous(struct session *session);
/* Ends the lease, if revoke, and the session; then done(arg), within 2 s. */
void session_leave(struct session *session, bool revoke,
	void (*done)(void *arg), void *arg);

struct session_lease {
	uint64_t id; /* 0: none */
	uint64_t epoch;
	uint32_t ttl_ms;
	uint64_t previous; /* 0: none, or revoked */
	char store_id[64]; /* which gave it; empty: it does not say */
};
const struct session_lease *session_lease(const struct session *session);
/* For status; borrowed. */
const char *session_address(const struct session *session);
const char *session_last_error(const struct session *session);
int64_t session_since_ms(const struct session *session); /* Unix time */
