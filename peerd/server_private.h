/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The server from the inside, for server.c (listening and arrival) and
 * server_call.c (one call from its headers to its end) alone.
 */

#include "peerd/connection_id.h"
#include "peerd/ext.h"
#include "peerd/server.h"
#include "shared/identity.h"

/* A user's name longer than this is none. */
#define USER_MAX 256

enum method {
	METHOD_DIAL,
	METHOD_PING,
	METHOD_ASK,
	METHOD_UNKNOWN,
	METHOD_COUNT
};

enum call_state {
	CALL_POSTED,
	CALL_READING,
	CALL_DIALING,
	CALL_ASKING,
	CALL_ESTABLISHING,
	CALL_JOINED,
	CALL_ENDING,
};

/* Of a dial request, cut to what a line of the log holds. */
struct called {
	char agent_id[64];
	char type[33];
	char to[81];
	char source[65];
};

struct call {
	struct server *server;
	enum method method;
	enum call_state state;
	uint64_t id; /* in server->calls from headers on; 0: not yet */
	grpc_call *call;
	unsigned pending; /* batches */
	bool closed;
	int cancelled;

	struct rpc_tag accept_tag;
	struct rpc_tag close_tag;
	struct rpc_tag read_tag;
	struct rpc_tag reply_tag;

	grpc_metadata_array metadata;
	grpc_call_details details; /* METHOD_UNKNOWN */
	gpr_timespec deadline;
	grpc_byte_buffer *received;
	struct timer *first_frame; /* READING */

	struct host_identity caller;
	uint8_t connection_id[CONNECTION_ID_SIZE];
	char user[USER_MAX];
	unsigned ext;	       /* announced by the caller and by us */
	uint64_t allowed;      /* EXT_CREDIT: what the caller lets us send */
	struct credit credit;  /* what we let it send; the stream's once joined
				*/
	struct called *called; /* for the log; NULL: not known yet */
	int64_t since;
	int64_t asked_us; /* DIALING, of the monotonic clock */
	struct rpc_span span;
	grpc_status_code status; /* ours, once it is known */
	int fd;			 /* ESTABLISHING */
	struct stream *stream;
};

struct server {
	struct peerd *peerd;
	const struct server_ops *ops;
	void *arg;
	grpc_server *server;
	void *methods[METHOD_UNKNOWN];
	struct idmap *calls;
	unsigned objects; /* calls and posted ones */
	bool stopping;
	bool stopped;
	struct rpc_tag stop_tag;
	void (*on_stopped)(void *arg);
	void *stop_arg;
};

/* server.c: a call object has been freed. */
void server_forget(struct server *server);

/* server_call.c: the headers are here; checks the role and goes on. */
void server_call_begin(struct call *call);
/* Frees it when nothing is pending. The last act of every function that may
 * end a call. */
void server_call_settle(struct call *call);
/* The one answer of a unary call, and its end. Borrows message. */
void server_call_reply(struct call *call, grpc_byte_buffer *message);
/* Its end without an answer. */
void server_call_fail(
	struct call *call, grpc_status_code status, const char *text);

/* mesh_serve.c: the question of a METHOD_ASK call is here; one of the two
 * above follows, now or later. */
void mesh_serve(struct call *call, const uint8_t *bytes, size_t len);
