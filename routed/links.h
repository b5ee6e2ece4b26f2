/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * routed.sock: the processes of this host. Workers report tunnels and pass on
 * agents' joins, peerd asks for records, peerctl asks for status; all but
 * peerctl are told of the cache and of the identity.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/ipc_link.h"

struct links;

struct links_ops {
	/* What a worker (id) reports; records are fit (apply.h). Borrowed. */
	void (*on_tunnel)(
		void *arg, uint64_t id, const Peerway__Ipc__Tunnel *tunnel);
	void (*on_tunnel_down)(void *arg, uint64_t id, uint64_t tunnel_id);
	void (*on_sync)(void *arg, uint64_t id, bool begins, bool ends);
	void (*on_worker_gone)(void *arg, uint64_t id);
	/* Every worker this host runs has told all its tunnels. Once. */
	void (*on_all_synced)(void *arg);
	/* All workers take nothing new any more, or one does again. */
	void (*on_draining)(void *arg, bool draining);
	/* The last worker has gone. */
	void (*on_no_workers)(void *arg);
	/* Questions; answered with links_send() to the id. Borrowed. */
	void (*on_lookup)(
		void *arg, uint64_t id, const Peerway__Ipc__Lookup *lookup);
	void (*on_join)(void *arg, uint64_t id, const Peerway__Ipc__Join *join);
};

/* Listens at path. NULL and *error_out (gives) on failure. Borrows ops, arg. */
struct links *links_new(struct loop *loop, const char *path,
	const struct links_ops *ops, void *arg, char **error_out);
void links_free(struct links *links);

/* To the link of that id; one that has gone meanwhile is harmless. -ENOTCONN,
 * -EMSGSIZE as ipc_link_send(). */
int links_send(struct links *links, uint64_t id, enum ipc_type type,
	const ProtobufCMessage *payload);
/* Tells everyone, and remembers for those who come. Copied. */
void links_tell_cache(struct links *links, const Peerway__Ipc__Cache *cache);
void links_tell_identity(
	struct links *links, const Peerway__Ipc__Identity *identity);

unsigned links_workers(const struct links *links);
/* All workers do, or did when the last one went. */
bool links_are_draining(const struct links *links);
