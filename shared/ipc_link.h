/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A connected process of this host: HELLO first on both sides, then whatever
 * the handler table allows; anything else drops the link. Both ends look the
 * same afterwards. A connecting link comes back by itself (20 ms to 1 s,
 * doubling, with jitter) until it is freed.
 *
 *   client: ipc_link_connect()   DOWN -> HELLO -> UP -> DOWN -> ...
 *   server: ipc_server_new()            HELLO -> UP -> freed after on_down
 *
 * Who may connect: root, our own user, and members of the group that owns the
 * socket's directory (SO_PEERCRED, SO_PEERGROUPS).
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/ipc.h"
#include "shared/loop.h"

struct ipc_link;

/* payload is borrowed for the call; a descriptor that is not taken with
 * ipc_take_fd() is closed afterwards. */
typedef void ipc_handler(struct ipc_link *link, void *arg, struct ipc_msg *msg);

struct ipc_handlers {
	enum ipc_type type;
	ipc_handler *handle;
};

struct ipc_link_ops {
	const struct ipc_handlers *handlers; /* ends with {0, NULL} */
	/* HELLO has arrived; ipc_link_hello() is valid. */
	void (*on_up)(struct ipc_link *link, void *arg);
	/* Was up and is no more. A server's link is freed after it. */
	void (*on_down)(struct ipc_link *link, void *arg, const char *reason);
};

/* Who we are, sent as HELLO. Copied. */
struct ipc_self {
	Peerway__Ipc__Peer peer;
	uint32_t worker;
	uint32_t workers;
};

/* Borrows ops and arg for the life of the link. */
struct ipc_link *ipc_link_connect(struct loop *loop, const char *path,
	const struct ipc_self *self, const struct ipc_link_ops *ops, void *arg);

/* A link over an inherited or paired socket that does not reconnect (freed
 * after on_down); takes fd. */
struct ipc_link *ipc_link_adopt(struct loop *loop, int fd,
	const struct ipc_self *self, const struct ipc_link_ops *ops, void *arg);

/* Never calls on_down. NULL is fine. */
void ipc_link_free(struct ipc_link *link);

bool ipc_link_is_up(const struct ipc_link *link);
const Peerway__Ipc__Hello *ipc_link_hello(const struct ipc_link *link);
/* The owner's pointer; starts as arg of the constructor. */
void ipc_link_set_arg(struct ipc_link *link, void *arg);
void *ipc_link_arg(const struct ipc_link *link);

/*
 * Queues a message; takes fd (-1: none), in every case. 0; -ENOTCONN when
 * down; -EMSGSIZE; -ENOBUFS when the other side has not read 4,096 messages:
 * then the link is dropped at the end of the turn.
 */
int ipc_link_send(struct ipc_link *link, enum ipc_type type,
	const ProtobufCMessage *payload, int fd);
/* Drops a misbehaving link at the end of the turn; on_down gets reason. */
void ipc_link_drop(struct ipc_link *link, const char *reason);

struct ipc_server;
/*
 * Listens at path with the mode given. Every accepted link starts with arg.
 * NULL and errno on failure. At most 256 links; of another user: refused and
 * counted.
 */
struct ipc_server *ipc_server_new(struct loop *loop, const char *path,
	unsigned mode, const struct ipc_self *self,
	const struct ipc_link_ops *ops, void *arg);
/* Frees its links too, without on_down; removes the socket. */
void ipc_server_free(struct ipc_server *server);
uint64_t ipc_server_refused(const struct ipc_server *server);
