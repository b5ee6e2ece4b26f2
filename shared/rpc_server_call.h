/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside of the gRPC server: one call, and what it needs to know of its server.
 * For rpc_server.c (which accepts) and rpc_server_call.c (which does the rest).
 *
 *   WAITING --accepted, role good--> READING --request--> OPEN --> ended
 *                     \--refused----------\--5 s, malformed---/
 *
 * Three things end at different times. The handler is through with a call when
 * it answered or was told that the caller has gone (released); gRPC is when
 * every batch has come back (then the grpc_call goes, which the server's
 * shutdown waits for). Only then is the struct freed.
 */

#include <stddef.h>
#include <sys/queue.h>

#include "shared/rpc.h"

/* One message waiting to be sent. */
struct outgoing {
	STAILQ_ENTRY(outgoing) entry;
	grpc_byte_buffer *buffer;
	int64_t size;
};

struct rpc_server_call {
	struct rpc_server *server;
	const struct rpc_method *method; /* NULL: no such method */
	grpc_call *call;		 /* NULL: waiting, or through */
	struct host_identity caller;
	unsigned pending; /* batches */
	bool counted;	  /* in server->calls */
	bool unknown;	  /* in server->unknown */
	bool released;	  /* the handler has nothing to do with it any more */
	bool closed;	  /* the other side has ended the call */
	bool ending;	  /* a status has been given */
	bool status_sent;
	bool metadata_sent;
	struct timer *deadline; /* of the request */

	struct rpc_tag accept_tag;
	struct rpc_tag close_tag;
	struct rpc_tag receive_tag;
	struct rpc_tag send_tag;

	gpr_timespec client_deadline;
	grpc_metadata_array metadata;
	grpc_call_details details; /* of a call to no method of ours */
	int cancelled;
	grpc_byte_buffer *received;

	STAILQ_HEAD(, outgoing) queue;
	int64_t queued;	 /* bytes, with what is being sent */
	int64_t sending; /* bytes of it in the batch under way */
	bool send_active;
	grpc_status_code status;
	char *message;

	int64_t low_water;
	void (*drain)(void *arg, bool gone);
	void *drain_arg;
	struct loop_task gone_task; /* tells a late rpc_on_drain() */
};

struct rpc_server {
	struct rpc_cq *cq;
	struct loop *loop;
	grpc_server *server;
	char *cluster;
	struct rpc_callers *callers;
	const struct rpc_method *methods;
	void **handles; /* gRPC's, one per method */
	void *arg;
	int port;
	unsigned calls;
	unsigned unknown;
	unsigned objects; /* rpc_server_call structs that exist */

	bool stopping;
	bool stopped; /* gRPC has let go of everything */
	struct rpc_tag stop_tag;
	struct timer *grace;
	void (*on_stopped)(void *arg);
	void *stop_arg;
};

/* The call whose member of that name tag is. */
#define RPC_SERVER_CALL(tag, member)                                \
	((struct rpc_server_call *)(void *)((char *)(tag)-offsetof( \
		struct rpc_server_call, member)))

/* A call to be accepted; its accept_tag is the caller's to set. Counted in
 * server->objects. */
struct rpc_server_call *rpc_server_call_new(
	struct rpc_server *server, const struct rpc_method *method);
/* It was not accepted after all, with the server stopping. */
void rpc_server_call_discard(struct rpc_server_call *call);
/* Accepted: from now on its end is noticed. */
void rpc_server_call_watch(struct rpc_server_call *call);
/* Reads the request, for at most 5 s, and hands it to the method. */
void rpc_server_call_read(struct rpc_server_call *call);
/* The last word, the handler's or ours; takes message. */
void rpc_server_call_end(
	struct rpc_server_call *call, grpc_status_code status, char *message);

/* In rpc_server.c: frees a stopped server with its last call. */
void rpc_server_forget(struct rpc_server *server);
