/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Sockets: every descriptor made here is CLOEXEC and non-blocking. Addresses
 * are "host:port", "[v6]:port"; text buffers of SOCK_ADDR_MAX bytes hold any.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define SOCK_ADDR_MAX 300

struct sock_addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* Splits "host:port"; host_out without brackets. An absent port gives
 * default_port, or -EINVAL when that is 0. */
int sock_split(const char *text, uint16_t default_port, char *host_out,
	size_t host_size, uint16_t *port_out);
/* A numeric address, no name service; "*" and "" mean the wildcard. 0 or
 * -EINVAL. */
int sock_parse(
	const char *text, uint16_t default_port, struct sock_addr *addr_out);
void sock_format(const struct sock_addr *addr, char *text, size_t size);
/* Peer's address of a connected socket; "unix" for a UNIX one, "?" on error. */
void sock_peer_text(int fd, char *text, size_t size);

/* TCP listener; gives a descriptor or -errno. */
int sock_listen(const struct sock_addr *addr, bool reuseport, int backlog);
/* Connections whose client says nothing are not to be accepted for about so
 * long: only where the client speaks first. */
void sock_defer_accept(int fd, unsigned seconds);
/* Starts connecting; gives a descriptor (perhaps not yet connected) or -errno.
 */
int sock_connect(const struct sock_addr *addr);
/* 0 once connected, -errno that SO_ERROR holds. */
int sock_error(int fd);

/* UNIX SOCK_SEQPACKET below run_dir. -ENAMETOOLONG names the limit of 107
 * bytes. Listening replaces a dead socket of that name, and refuses
 * (-EADDRINUSE) one that answers. */
int sock_unix_listen(const char *path, unsigned mode);
int sock_unix_connect(const char *path);
/*
 * A stream pair; 0 or -errno. Gives both.
 *
 * A UNIX socket knows no RST, so the processes of a host agree on what a torn
 * stream looks like: who ends a direction in order says so by SHUT_WR, and
 * nobody closes an end in order before both directions have ended. So an end
 * that is closed earlier, also by the death of its process, was torn.
 */
int sock_pair(int fds_out[2]);
/* After reading the end of a stream socket to which we have not yet said our
 * own end: whether it was torn. False for any socket but a UNIX one. */
bool sock_pair_is_torn(int fd);

void sock_nodelay(int fd);
/* TCP_USER_TIMEOUT; 0 leaves the system's. */
void sock_user_timeout(int fd, unsigned ms);
/* close(), also by the death of the process, makes the kernel send RST; or no
 * longer. */
void sock_reset_on_close(int fd);
void sock_end_on_close(int fd);
