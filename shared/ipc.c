/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of proto/ipc.h to and from bytes. Every message is checked against
 * the table here before a handler sees it. Receiving never leaks a descriptor:
 * alignment lets the kernel put two into a buffer sized for one, so all that
 * came are walked, and truncation for want of descriptors of our own is told
 * apart from a sender that broke the rules.
 */
#include "shared/ipc.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROW(type, message, fd)                                             \
	{                                                                  \
		IPC_##type, #type, &peerway__ipc__##message##__descriptor, \
			IPC_FD_##fd                                        \
	}

static const struct ipc_row table[] = {
	ROW(HELLO, hello, NEVER),
	ROW(DRAIN, drain, NEVER),
	ROW(RELOAD, reload, ALWAYS),
	ROW(TUNNEL_SYNC, tunnel_sync, NEVER),
	ROW(TUNNEL_UP, tunnel_up, NEVER),
	ROW(TUNNEL_DOWN, tunnel_down, NEVER),
	ROW(TUNNEL_MOVE, tunnel_move, NEVER),
	ROW(TUNNEL_CLOSE, tunnel_close, NEVER),
	ROW(DIAL, dial, ALWAYS),
	ROW(DIAL_CANCEL, dial_cancel, NEVER),
	ROW(DIAL_OK, dial_ok, NEVER),
	ROW(DIAL_FAILED, dial_failed, NEVER),
	ROW(CACHE, cache, NEVER),
	ROW(IDENTITY, identity, NEVER),
	ROW(LOOKUP, lookup, NEVER),
	ROW(LOOKUP_REPLY, lookup_reply, NEVER),
	ROW(JOIN, join, NEVER),
	ROW(JOIN_REPLY, join_reply, NEVER),
	ROW(CTL_REQUEST, ctl_request, NEVER),
	ROW(CTL_REPLY, ctl_reply, NEVER),
};

const struct ipc_row *ipc_row(unsigned type)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		if (table[i].type == type)
			return &table[i];
	}
	return NULL;
}

const char *ipc_result_text(enum ipc_result result)
{
	static const char *const text[] = {
		[IPC_OK] = "ok",
		[IPC_AGAIN] = "would block",
		[IPC_EOF] = "closed by the other side",
		[IPC_ERROR] = "socket error",
		[IPC_MALFORMED] = "malformed message",
		[IPC_BAD_FDS] = "wrong number of descriptors with a message",
		[IPC_NO_FDS] = "out of descriptors",
	};

	return text[result];
}

static void put_le(uint8_t *out, uint32_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		out[i] = value >> (8 * i);
}

static uint32_t get_le(const uint8_t *in, int bytes)
{
	uint32_t value = 0;

	for (int i = 0; i < bytes; i++)
		value |= (uint32_t)in[i] << (8 * i);
	return value;
}

int ipc_pack(enum ipc_type type, const ProtobufCMessage *payload, uint8_t *buf)
{
	size_t len = protobuf_c_message_get_packed_size(payload);

	if (len > IPC_MESSAGE_MAX - IPC_HEADER_SIZE)
		return -EMSGSIZE;
	put_le(buf, IPC_MAGIC, 4);
	put_le(buf + 4, type, 2);
	put_le(buf + 6, 0, 2);
	protobuf_c_message_pack(payload, buf + IPC_HEADER_SIZE);
	return len + IPC_HEADER_SIZE;
}

enum ipc_result ipc_unpack(
	const uint8_t *buf, size_t len, struct ipc_msg *msg_out)
{
	const struct ipc_row *row;
	ProtobufCMessage *payload;

	if (len < IPC_HEADER_SIZE || len > IPC_MESSAGE_MAX ||
		get_le(buf, 4) != IPC_MAGIC || get_le(buf + 6, 2) != 0)
		return IPC_MALFORMED;
	row = ipc_row(get_le(buf + 4, 2));
	if (!row)
		return IPC_MALFORMED;
	payload = protobuf_c_message_unpack(row->payload, NULL,
		len - IPC_HEADER_SIZE, buf + IPC_HEADER_SIZE);
	if (!payload)
		return IPC_MALFORMED;
	*msg_out = (struct ipc_msg){.row = row, .payload = payload, .fd = -1};
	return IPC_OK;
}

/* Ancillary data wants the alignment of its header. */
union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

/* Keeps the first descriptor, closes the rest; how many there were. */
static int adopt_fds(struct msghdr *mh, int *fd_out)
{
	int count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (count++ == 0)
				*fd_out = fd;
			else
				close(fd);
		}
	}
	return count;
}

/* What is wrong with the descriptors of a message that parsed. */
static enum ipc_result check_fds(
	const struct ipc_msg *msg, int count, bool truncated)
{
	if (truncated)
		/* none arrived: our table is full; else they sent too many */
		return count == 0 ? IPC_NO_FDS : IPC_BAD_FDS;
	if (count != (msg->row->fd == IPC_FD_ALWAYS ? 1 : 0))
		return IPC_BAD_FDS;
	return IPC_OK;
}

enum ipc_result ipc_receive(int socket, struct ipc_msg *msg_out)
{
	static uint8_t buf[IPC_MESSAGE_MAX + 1];
	union control control;
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr mh = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes)};
	struct ipc_msg msg = {.fd = -1};
	enum ipc_result result;
	int fd = -1, count;
	ssize_t len;

	do
		len = recvmsg(socket, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (len < 0 && errno == EINTR);
	if (len < 0)
		return errno == EAGAIN ? IPC_AGAIN : IPC_ERROR;
	count = adopt_fds(&mh, &fd);
	/* A zero-length datagram cannot be told from the end; no message is. */
	result = len == 0 ? IPC_EOF : ipc_unpack(buf, len, &msg);
	if (result == IPC_OK)
		result = check_fds(&msg, count, mh.msg_flags & MSG_CTRUNC);
	if (result != IPC_OK) {
		if (fd >= 0)
			close(fd);
		ipc_msg_done(&msg);
		return result;
	}
	msg.fd = fd;
	*msg_out = msg;
	return IPC_OK;
}

void ipc_msg_done(struct ipc_msg *msg)
{
	if (msg->fd >= 0)
		close(msg->fd);
	msg->fd = -1;
	if (msg->payload)
		protobuf_c_message_free_unpacked(msg->payload, NULL);
	msg->payload = NULL;
}

int ipc_take_fd(struct ipc_msg *msg)
{
	int fd = msg->fd;

	msg->fd = -1;
	return fd;
}

enum ipc_result ipc_transmit(int socket, const uint8_t *buf, size_t len, int fd)
{
	union control control = {{0}};
	struct iovec iov = {(void *)buf, len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = sizeof(control.bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	do
		n = sendmsg(socket, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return IPC_OK;
	/* ETOOMANYREFS: too many descriptors in flight, the reader is slow */
	if (errno == EAGAIN || errno == ETOOMANYREFS || errno == ENOBUFS)
		return IPC_AGAIN;
	return errno == EPIPE || errno == ECONNRESET ? IPC_EOF : IPC_ERROR;
}
