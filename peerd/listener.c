/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at gRPC's listening socket from outside: see listener.h. Owns nothing;
 * lifecycle.c makes a new server when this one is deaf.
 *
 * A newcomer's trap: of a listening socket, TCP_INFO's tcpi_unacked is the
 * number of connections that wait for accept().
 */
#include "peerd/listener.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/sock.h"

/* Looks in a row before it counts: a busy moment is no failure. */
#define STUCK_LOOKS 3
/* Descriptors that dials leave to gRPC. */
#define RESERVE 32

void listener_init(struct listener *listener, const char *addr)
{
	char host[SOCK_ADDR_MAX];

	*listener = (struct listener){.fd = -1};
	sock_split(addr, 3021, host, sizeof(host), &listener->port);
}

/* The connections that wait on fd; -1 when it does not listen on port. */
static int queue_length(int fd, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t ss_len = sizeof(ss), on_len = sizeof(int);
	socklen_t info_len = sizeof(struct tcp_info);
	struct tcp_info info = {0};
	int listening = 0;
	uint16_t bound;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &on_len) <
			0 ||
		!listening ||
		getsockname(fd, (struct sockaddr *)&ss, &ss_len) < 0)
		return -1;
	if (ss.ss_family == AF_INET)
		bound = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	else if (ss.ss_family == AF_INET6)
		bound = ntohs(((struct sockaddr_in6 *)&ss)->sin6_port);
	else
		return -1;
	if (bound != port ||
		getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_len) < 0)
		return -1;
	return (int)info.tcpi_unacked;
}

/* gRPC does not tell which descriptor it listens on. */
static int find(uint16_t port)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	while (dir && found < 0 && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && queue_length(fd, port) >= 0)
			found = fd;
	}
	if (dir)
		closedir(dir);
	return found;
}

static bool descriptors_left(void)
{
	int fd = fcntl(0, F_DUPFD_CLOEXEC, 0);
	bool left = fd >= 0 && !listener_needs_fd(fd);

	if (fd >= 0)
		close(fd);
	return left;
}

bool listener_is_deaf(struct listener *listener)
{
	int waiting;

	if (listener->fd < 0)
		listener->fd = find(listener->port);
	waiting = queue_length(listener->fd, listener->port);
	if (waiting < 0)
		listener->fd = -1;
	if (waiting <= 0) {
		listener->stuck = 0;
		return false;
	}
	if (++listener->stuck < STUCK_LOOKS || !descriptors_left())
		return false;
	listener->stuck = 0;
	return true;
}

bool listener_needs_fd(int fd)
{
	struct rlimit limit;

	/* The lowest free number is given out, so a high one means few left. */
	return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
	       (rlim_t)fd + RESERVE >= limit.rlim_cur;
}
