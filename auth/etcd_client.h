/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The way to an etcd cluster: one channel to one of its members, and another
 * member when that one is of no use.
 *
 *   TRYING --authenticated, a linearizable read answered--> READY
 *   TRYING --anything else--> TRYING the next member, after a pause when all
 *      have been tried
 *   READY  --a call says that the member is of no use--> TRYING the next one
 *
 * So nothing is ever asked of a member that has not just shown that it has a
 * leader; calls made meanwhile wait. On the loop's thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/loop.h"
#include "shared/rpc.h"

/* How long a call may take in all, ms; one attempt takes half of it, of what is
 * not repeatable all. When nobody has been there for longer than etcd takes to
 * elect a leader, calls wait no more. */
#define ETCD_CALL_MS 5000

struct etcd_options {
	char *const *endpoints; /* host:port */
	unsigned endpoint_count;
	bool tls;
	const char *ca_file;   /* PEM; empty: the system's */
	const char *cert_file; /* PEM; empty: none is shown */
	const char *key_file;
	const char *user; /* empty: nobody */
	const char *password_file;
	const char *probe_key; /* that is read to see whether a member works */
};

struct etcd_client_ops {
	/* A member answers, with this header; calls that waited go after it. */
	void (*on_ready)(void *arg, uint64_t cluster_id, int64_t revision);
	/* No more: every stream on it has ended, or is about to. */
	void (*on_away)(void *arg);
};

struct etcd_client;

/* Borrows options until it returns, ops and arg until etcd_client_free().
 * NULL and *error_out (gives): a file cannot be read. */
struct etcd_client *etcd_client_new(struct loop *loop, struct rpc_cq *cq,
	const struct etcd_options *options, const struct etcd_client_ops *ops,
	void *arg, char **error_out);
/* Calls end with CANCELLED first. NULL is fine. */
void etcd_client_free(struct etcd_client *client);

struct etcd_method {
	const char *path;
	const ProtobufCMessageDescriptor *response;
	/* May be asked again when it is not known whether it was heard. */
	bool repeatable;
	uint32_t ms; /* ETCD_CALL_MS, or less for what cannot wait */
};

typedef void etcd_done(void *arg, int status, const char *message,
	const ProtobufCMessage *response);

/* done once, never before this returns; UNAVAILABLE when no member answered in
 * time, or it is not known what became of what is not repeatable. Takes
 * request (rpc_pack()), borrows method for the life of the call. */
void etcd_call(struct etcd_client *client, const struct etcd_method *method,
	grpc_byte_buffer *request, etcd_done *done, void *arg);

/* Only while READY. Ends with its member: on_end once. */
struct etcd_stream;
struct etcd_stream *etcd_stream_open(struct etcd_client *client,
	const struct etcd_method *method, const ProtobufCMessage *request,
	void (*on_message)(void *arg, const ProtobufCMessage *message),
	void (*on_end)(void *arg, int status, const char *message), void *arg);
/* Nothing is said to its owner any more. NULL is fine. */
void etcd_stream_close(struct etcd_stream *stream);

/* The member is of no use, as somebody has found out: another is tried. */
void etcd_client_move(
	struct etcd_client *client, int status, const char *message);

bool etcd_client_is_ready(const struct etcd_client *client);
/* For status; borrowed. Empty when READY. */
const char *etcd_client_error(const struct etcd_client *client);
const char *etcd_client_endpoint(const struct etcd_client *client);
/* When it became, or stopped being, READY: loop_now(). */
int64_t etcd_client_since(const struct etcd_client *client);
