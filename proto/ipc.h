/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Every arrow between the processes of one host: UNIX sockets of type
 * SOCK_SEQPACKET below run_dir, one datagram is one message.
 *
 *   bytes 0..3  IPC_MAGIC, little endian ("PWY" and the framing's version)
 *   bytes 4..5  type, little endian
 *   bytes 6..7  zero
 *   bytes 8..   payload: the protobuf message of proto/ipc.proto
 *
 * At most IPC_MESSAGE_MAX bytes and one descriptor. shared/ipc.c has the table
 * of payloads and of who carries a descriptor; docs/protocol.md the sequences.
 *
 *   peerd.sock   served by peerd:  workers, peerctl
 *   routed.sock  served by routed: workers, peerd, peerctl
 *   proxy.sock   served by the proxy's parent: peerctl
 *   authd.sock   served by authd:  peerctl (root and group peerway-admin)
 *
 * Adding a message: an enumerator here, its payload in ipc.proto, a row in
 * shared/ipc.c, a handler, a test. IPC_VERSION changes when an old program
 * would misunderstand a new one.
 */

#define IPC_MAGIC 0x01595750u
#define IPC_VERSION 1
#define IPC_HEADER_SIZE 8
#define IPC_MESSAGE_MAX 65536

enum ipc_type {
	/* both directions, first message of each */
	IPC_HELLO = 1,

	/* proxy -> its workers */
	IPC_DRAIN = 50,
	IPC_RELOAD, /* carries the file */

	/* worker -> peerd and worker -> routed */
	IPC_TUNNEL_SYNC = 100,
	IPC_TUNNEL_UP,
	IPC_TUNNEL_DOWN,

	/* peerd -> worker */
	IPC_TUNNEL_CLOSE = 150,

	/* routed -> worker */
	IPC_TUNNEL_MOVE = 160,

	/* worker -> peerd (reach an agent); peerd -> worker (one of yours) */
	IPC_DIAL = 200, /* carries the client's bytes */
	IPC_DIAL_CANCEL,

	/* the answer to IPC_DIAL, either way */
	IPC_DIAL_OK = 250,
	IPC_DIAL_FAILED,

	/* routed -> worker, peerd: on connect and on each change */
	IPC_CACHE = 300,
	IPC_IDENTITY,

	/* peerd -> routed, and the answer */
	IPC_LOOKUP = 350,
	IPC_LOOKUP_REPLY,

	/* worker -> routed, and the answer */
	IPC_JOIN = 400,
	IPC_JOIN_REPLY,

	/* peerctl -> any daemon, and the answer */
	IPC_CTL_REQUEST = 500,
	IPC_CTL_REPLY,
};
