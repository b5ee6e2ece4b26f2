/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The gRPC server on 3021: DialNode, Ping and the questions of our own Mesh
 * service, for proxies only. A caller's role is checked on the call's headers,
 * before anything is read or held for it.
 *
 *   POSTED --headers--> READING --DialRequest--> DIALING --server_accept()-->
 *     ESTABLISHING --ConnectionEstablished sent--> JOINED --end of stream--> .
 *   READING, DIALING --refused, late, caller gone--> ENDING --> .
 *
 * All of it on the loop's thread; only JOINED streams run on gRPC's too.
 */

#include <stdint.h>

#include "peerd/peerd.h"
#include "peerd/request.h"
#include "proto/ipc.h"

/* Time for the first frame of a call. */
#define SERVER_FIRST_FRAME_MS 5000

struct server;

/* What a peer wants; borrowed for the call. */
struct server_dial {
	const struct request *request;
	const char *peer_id;	      /* uuid of the calling proxy */
	const uint8_t *connection_id; /* 16 bytes, the caller's or made up */
	const char *user;	      /* as the caller says; may be empty */
};

struct server_ops {
	/* Answer with server_accept() or server_refuse(), now or later. */
	void (*on_dial)(void *arg, uint64_t id, const struct server_dial *dial);
	/* The caller has gone; nothing is to be answered any more. */
	void (*on_gone)(void *arg, uint64_t id);
};

/* NULL and *error_out (gives, to free()) when addr cannot be listened on.
 * Needs peerd's identity. Borrows ops and arg. */
struct server *server_new(struct peerd *peerd, const char *addr,
	const struct server_ops *ops, void *arg, char **error_out);

/* Joins the call with fd (takes it, also when the call has gone); worker has
 * the tunnel. */
void server_accept(struct server *server, uint64_t id, int fd, uint32_t worker);
/* reason goes into the trailer PEERD_KEY_REASON, unless NULL. */
void server_refuse(struct server *server, uint64_t id, grpc_status_code status,
	const char *reason, const char *text);

/* GOAWAY: no new calls. done(arg) when the last call has ended. */
void server_stop(struct server *server, void (*done)(void *arg), void *arg);
/* Cuts all calls. */
void server_cut(struct server *server);
/* After server_stop() is done. NULL is fine. */
void server_free(struct server *server);
