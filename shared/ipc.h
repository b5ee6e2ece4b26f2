/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One message of proto/ipc.h, to and from bytes. The table in ipc.c knows for
 * each type its name, payload and whether a descriptor comes with it, so that
 * handlers never test lengths nor meet a missing or surprise descriptor.
 */

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc.pb-c.h"
#include "proto/ipc.h"

enum ipc_fd { IPC_FD_NEVER, IPC_FD_ALWAYS };

struct ipc_row {
	enum ipc_type type;
	const char *name;
	const ProtobufCMessageDescriptor *payload;
	enum ipc_fd fd;
};

/* NULL for an unknown type. */
const struct ipc_row *ipc_row(unsigned type);

struct ipc_msg {
	const struct ipc_row *row;
	ProtobufCMessage *payload; /* cast by row->type */
	int fd;			   /* -1: none, or taken */
};

/* Outcomes of reading; all but OK, AGAIN and NO_FDS end the link. */
enum ipc_result {
	IPC_OK,
	IPC_AGAIN, /* nothing to read, or no room to write */
	IPC_EOF,
	IPC_ERROR,     /* errno says */
	IPC_MALFORMED, /* short, long, bad magic, unknown type, bad payload */
	IPC_BAD_FDS,   /* none where one belongs, some where none does, many */
	IPC_NO_FDS,    /* our own shortage: this message is lost, the sender's
			  deadline tells whoever waits for its answer */
};
const char *ipc_result_text(enum ipc_result result);

/* Receives one message. On IPC_OK the caller owns msg_out: ipc_msg_done()
 * frees it and closes a descriptor nobody took. Never leaks a descriptor. */
enum ipc_result ipc_receive(int socket, struct ipc_msg *msg_out);
void ipc_msg_done(struct ipc_msg *msg);
/* Moves the descriptor out: gives. */
int ipc_take_fd(struct ipc_msg *msg);

/* Packs into buf of IPC_MESSAGE_MAX bytes; the length, or -EMSGSIZE. */
int ipc_pack(enum ipc_type type, const ProtobufCMessage *payload, uint8_t *buf);
/* The reverse of ipc_pack, without descriptors; pure, for tests and fuzzing. */
enum ipc_result ipc_unpack(
	const uint8_t *buf, size_t len, struct ipc_msg *msg_out);
/* Sends one packed message; borrows fd (-1: none). */
enum ipc_result ipc_transmit(
	int socket, const uint8_t *buf, size_t len, int fd);
