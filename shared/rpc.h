/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The gRPC C core as this project uses it. rpc_cq is the only thread besides
 * the loop's own. authd and routed keep to the loop's thread: completions are
 * posted to it (RPC_ON_LOOP). peerd's data path runs in the completion thread
 * itself (RPC_INLINE) and says so in its files.
 *
 * grpc_init() is called by rpc_cq_new(): fork before it.
 */

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/identity.h"
#include "shared/loop.h"
#include "shared/tls.h"

/* ---- completion queue ---- */

enum rpc_where { RPC_ON_LOOP, RPC_INLINE };

struct rpc_cq;

/* The tag of every batch: embedded, alive until run. */
struct rpc_tag {
	struct loop_task task; /* private, as are cq and ok */
	struct rpc_cq *cq;
	bool ok;
	enum rpc_where where;
	void (*run)(struct rpc_tag *tag, bool ok);
};

/* Switches TLS 1.2 off for every SSL_CTX of this process. Before rpc_cq_new(),
 * and never in peerd unless it is told to, whose peers may speak 1.2. */
void rpc_require_tls13(void);

/* threads: 1 unless measured otherwise. */
struct rpc_cq *rpc_cq_new(struct loop *loop, unsigned threads);
grpc_completion_queue *rpc_cq_queue(struct rpc_cq *cq);
struct loop *rpc_cq_loop(struct rpc_cq *cq);
/* Shuts the queue down, joins the threads, turns the loop until what they
 * posted has run, ends gRPC. Calls must have ended or been cancelled: nothing
 * starts a batch any more. */
void rpc_cq_free(struct rpc_cq *cq);

/* ---- credentials ---- */

/* Holds the identity in use; servers ask it at every handshake, so a new one
 * serves new connections at once while old ones live on. Takes its own
 * references. Freed after the queue. */
struct rpc_identity;
struct rpc_identity *rpc_identity_new(struct tls_identity *identity);
void rpc_identity_replace(
	struct rpc_identity *holder, struct tls_identity *identity);
void rpc_identity_free(struct rpc_identity *holder);

/* require: refuse handshakes without a client certificate (else optional, for
 * Join). Clients are verified against the host CA. For one port. Gives. */
grpc_server_credentials *rpc_server_creds(
	struct rpc_identity *holder, bool require);
/*
 * For one channel: server name = identity_server_name(cluster) (set it as
 * GRPC_SSL_TARGET_NAME_OVERRIDE_ARG too), ordinary verification, then role and,
 * unless expect_uuid is NULL, the exact CN <expect_uuid>.<cluster>. The
 * identity may lack a key (join): then no certificate is shown.
 * on_refused(arg, text) is called on a gRPC thread when that check fails.
 * Gives.
 */
grpc_channel_credentials *rpc_channel_creds(struct rpc_identity *holder,
	const char *cluster, unsigned role, const char *expect_uuid,
	void (*on_refused)(void *arg, const char *why), void *arg);

/* Who certain leaves name, remembered: to read one takes longer than most calls
 * do. For one thread and one cluster. */
struct rpc_callers;
struct rpc_callers *rpc_callers_new(void);
void rpc_callers_free(struct rpc_callers *callers);

/* Who the caller is, from the verified leaf; 0, -ENOENT when it sent none,
 * -EBADMSG. callers NULL: read anew. */
int rpc_caller(struct rpc_callers *callers, grpc_call *call,
	const char *cluster, struct host_identity *out);

/* ---- messages ---- */

grpc_byte_buffer *rpc_pack(const ProtobufCMessage *message);
/* NULL when malformed; protobuf_c_message_free_unpacked(). */
ProtobufCMessage *rpc_unpack(
	const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer);

/* ---- client (RPC_ON_LOOP) ---- */

struct rpc_channel;
/* address "host:port"; takes creds. server_name NULL: not a server of ours; its
 * name is that of the address, and it is not pinged while no call is open. */
struct rpc_channel *rpc_channel_new(struct rpc_cq *cq, const char *address,
	const char *server_name, grpc_channel_credentials *creds);
/* Goes with every call from now on (RPC_METADATA_MAX of them); copied. */
#define RPC_METADATA_MAX 4
void rpc_channel_metadata(
	struct rpc_channel *channel, const char *key, const char *value);
/* Calls under way end with status CANCELLED first. NULL is fine. */
void rpc_channel_free(struct rpc_channel *channel);

struct rpc_client_call;
/* One answer. done(arg, status, message, response) exactly once, response
 * borrowed and NULL unless status is 0. NULL arg is fine. */
struct rpc_client_call *rpc_unary(struct rpc_channel *channel,
	const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *response, uint32_t deadline_ms,
	void (*done)(void *arg, int status, const char *message,
		const ProtobufCMessage *response),
	void *arg);
/* The same of a request that rpc_pack() has made, borrowed: for those who may
 * have to ask again. */
struct rpc_client_call *rpc_unary_packed(struct rpc_channel *channel,
	const char *method, grpc_byte_buffer *request,
	const ProtobufCMessageDescriptor *response, uint32_t deadline_ms,
	void (*done)(void *arg, int status, const char *message,
		const ProtobufCMessage *response),
	void *arg);
/* A stream of answers; on_message for each (the next is read after it
 * returns), then done once. No deadline; keepalive finds a dead server. */
struct rpc_client_call *rpc_stream(struct rpc_channel *channel,
	const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *response,
	void (*on_message)(void *arg, const ProtobufCMessage *message),
	void (*done)(void *arg, int status, const char *message), void *arg);
/* done follows with status CANCELLED (1). */
void rpc_client_cancel(struct rpc_client_call *call);

/* ---- server (RPC_ON_LOOP) ---- */

struct rpc_server;
struct rpc_server_call;

struct rpc_method {
	const char *path; /* "/peerway.auth.AuthService/Join" */
	const ProtobufCMessageDescriptor *request;
	unsigned roles; /* any of these; 0: nobody need be known */
	/* Unary: answer once with rpc_reply() or rpc_fail(). Stream: any number
	 * of rpc_push(), ended by rpc_fail() (status 0: clean end). request is
	 * borrowed for the call. caller is zeroed for an unknown one. */
	void (*handle)(struct rpc_server_call *call, void *arg,
		const struct host_identity *caller,
		const ProtobufCMessage *request);
};

/* methods end with a NULL path and are borrowed. The role is checked on the
 * call's headers, before its payload is read. NULL and *error_out when addr
 * cannot be bound. Takes creds. */
struct rpc_server *rpc_server_new(struct rpc_cq *cq, const char *addr,
	grpc_server_credentials *creds, const char *cluster,
	const struct rpc_method *methods, void *arg, char **error_out);
/* Stops accepting, waits grace_ms for calls, cancels the rest, frees the
 * server; then done(arg). The loop must turn meanwhile. A handler may still
 * answer calls that it holds. */
void rpc_server_stop(struct rpc_server *server, uint32_t grace_ms,
	void (*done)(void *arg), void *arg);

/* Port that was bound (for addr with port 0). */
int rpc_server_port(const struct rpc_server *server);

/* Each ends the call for the handler, who must end every call once, be its
 * caller still there or not. */
void rpc_reply(struct rpc_server_call *call, const ProtobufCMessage *response);
void rpc_fail(struct rpc_server_call *call, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Stream, before rpc_fail(): queues a message (copied, packed). Bytes not yet
 * sent, so that the caller can stop a slow reader; -EPIPE when the caller has
 * gone. */
int64_t rpc_push(struct rpc_server_call *call, const ProtobufCMessage *message);
/* The same message for many calls, of rpc_pack(): shared, not copied. Borrows.
 */
int64_t rpc_push_packed(struct rpc_server_call *call, grpc_byte_buffer *packed);
/* Stream: called when the queue has drained below low_water bytes, and when the
 * caller has gone (gone = true): that ends the call too, nothing may be said
 * to it any more. Without fn a call lives until it is answered. */
void rpc_on_drain(struct rpc_server_call *call, int64_t low_water,
	void (*fn)(void *arg, bool gone), void *arg);
