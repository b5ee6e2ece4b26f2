/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One client connection of 3080, from its TLS handshake to close():
 *
 *   HEAD --CONNECT--> DIALING --way found--> ANSWERING --200 is out--> RELAYING
 *     |                  +--no way-----------+
 *     +--POST /v1/agent/...--> ASKING -------+-> ANSWERING --sent--> CLOSING
 *     +--GET /webapi/find--------------------+
 *   any state --end, error, deadline, shutdown--> DEAD
 *
 * client_drop() is the only way to DEAD. HEAD, ASKING, ANSWERING and CLOSING
 * have deadlines here, DIALING has the dial's; RELAYING lasts as long as both
 * sides want. The struct is open to the two files that serve requests,
 * connect.c and web.c; the state changes here alone.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proxy/session.h"
#include "proxy/trust.h"
#include "shared/chan.h"
#include "shared/http.h"
#include "shared/identity.h"

struct dial;
struct worker;

enum client_state {
	CLIENT_HEAD,
	CLIENT_ASKING,
	CLIENT_DIALING,
	CLIENT_ANSWERING,
	CLIENT_CLOSING,
	CLIENT_RELAYING,
	CLIENT_DEAD,
};

/* Why it ended: PROXY_END_DONE + this counts it. */
enum client_end {
	CLIENT_DONE,	 /* a session, to its end */
	CLIENT_ANSWERED, /* a request that is no session */
	CLIENT_GONE,	 /* the client went away */
	CLIENT_TIMED_OUT,
	CLIENT_FAILED,	 /* a broken request, a session torn */
	CLIENT_SHUTDOWN, /* we are ending */
};

struct client {
	TAILQ_ENTRY(client) entry;
	struct worker *worker;
	enum client_state state;
	enum trust_kind kind;
	struct chan *chan; /* NULL once joined */
	struct timer *deadline;
	struct user_identity *user; /* NULL: no certificate of the user CA */
	const char *user_error;	    /* a certificate that names nobody */
	char source[SOCK_ADDR_MAX];
	int64_t started;

	struct http_message *request;
	size_t request_len; /* bytes of it so far */
	uint8_t *first;	    /* what came behind the head of CONNECT */
	size_t first_len;

	uint64_t asked_id; /* ASKING: what routed's answer names */
	struct dial *dial; /* DIALING and later */
	struct session session;

	char *out; /* the answer, and how much of it is sent */
	size_t out_len;
	size_t out_sent;
	bool joins; /* after the answer the session begins */
};

/* Takes chan, whose handshake is done. */
void client_start(struct worker *worker, struct chan *chan,
	enum trust_kind kind, const char *source);
/* Ends it; why is for the log. */
void client_drop(struct client *client, enum client_end end, const char *why);
void client_drop_all(struct worker *worker);

/* HEAD, ASKING or DIALING -> ANSWERING. Takes head_and_body (malloc'd text);
 * joins: dial_join() follows when it is out, else the connection ends. */
void client_answer(struct client *client, char *head_and_body, bool joins);
/* A refusal of one line in plain text, logged. */
void client_refuse(struct client *client, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* HEAD -> ASKING: routed's answer will name id. */
void client_ask(struct client *client, uint64_t id);
/* The one that waits for this answer (0: any that waits for one), or NULL. */
struct client *client_asking(struct worker *worker, uint64_t id);
/* HEAD -> DIALING. */
void client_dial(struct client *client, struct dial *dial);
