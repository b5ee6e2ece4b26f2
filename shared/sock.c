/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets and addresses: see sock.h. */
#include "shared/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int parse_port(const char *text, uint16_t *port_out)
{
	unsigned long port;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	port = strtoul(text, &end, 10);
	if (*end || errno || port > 65535)
		return -EINVAL;
	*port_out = port;
	return 0;
}

int sock_split(const char *text, uint16_t default_port, char *host_out,
	size_t host_size, uint16_t *port_out)
{
	const char *host = text, *end, *port = NULL;
	uint16_t number = default_port;
	size_t len;

	if (*text == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		if (end[1] == ':')
			port = end + 2;
	} else {
		end = strrchr(text, ':');
		if (end && strchr(text, ':') != end)
			return -EINVAL; /* IPv6 needs its brackets */
		if (end)
			port = end + 1;
		else
			end = text + strlen(text);
	}
	len = end - host;
	if (len >= host_size)
		return -EINVAL;
	if (port ? parse_port(port, &number) < 0 : default_port == 0)
		return -EINVAL;
	memcpy(host_out, host, len);
	host_out[len] = 0;
	*port_out = number;
	return 0;
}

int sock_parse(
	const char *text, uint16_t default_port, struct sock_addr *addr_out)
{
	struct sock_addr addr = {0};
	struct sockaddr_in *in = (void *)&addr.ss;
	struct sockaddr_in6 *in6 = (void *)&addr.ss;
	char host[256];
	uint16_t port;

	if (sock_split(text, default_port, host, sizeof(host), &port) < 0)
		return -EINVAL;
	if (!*host || strcmp(host, "*") == 0)
		strcpy(host, "0.0.0.0");
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		addr.len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		addr.len = sizeof(*in6);
	} else {
		return -EINVAL;
	}
	*addr_out = addr;
	return 0;
}

void sock_format(const struct sock_addr *addr, char *text, size_t size)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (addr->ss.ss_family == AF_UNIX) {
		snprintf(text, size, "unix");
		return;
	}
	if (getnameinfo((const struct sockaddr *)&addr->ss, addr->len, host,
		    sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(text, size, "?");
		return;
	}
	snprintf(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
		port);
}

void sock_peer_text(int fd, char *text, size_t size)
{
	struct sock_addr addr = {.len = sizeof(addr.ss)};

	if (getpeername(fd, (struct sockaddr *)&addr.ss, &addr.len) < 0)
		snprintf(text, size, "?");
	else
		sock_format(&addr, text, size);
}

/* Gives fd, or closes it and gives the errno of the step that failed. */
static int finish(int fd, int ret)
{
	int saved = errno;

	if (ret < 0) {
		if (fd >= 0)
			close(fd);
		return -saved;
	}
	return fd;
}

int sock_listen(const struct sock_addr *addr, bool reuseport, int backlog)
{
	int one = 1;
	int fd = socket(addr->ss.ss_family,
		SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		(reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one,
				      sizeof(one)) < 0) ||
		bind(fd, (const struct sockaddr *)&addr->ss, addr->len) < 0)
		return finish(fd, -1);
	return finish(fd, listen(fd, backlog));
}

int sock_connect(const struct sock_addr *addr)
{
	int fd = socket(addr->ss.ss_family,
		SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd < 0)
		return -errno;
	ret = connect(fd, (const struct sockaddr *)&addr->ss, addr->len);
	if (ret < 0 && errno == EINPROGRESS)
		ret = 0;
	return finish(fd, ret);
}

int sock_error(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

static int unix_addr(const char *path, struct sockaddr_un *addr)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	strcpy(addr->sun_path, path);
	return 0;
}

int sock_unix_connect(const char *path)
{
	struct sockaddr_un addr;
	int fd, ret = unix_addr(path, &addr);

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	return finish(fd, connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
}

/* A socket file left behind by a dead process may go; a live one may not. */
static int clear_stale(const char *path)
{
	int fd = sock_unix_connect(path);

	if (fd >= 0) {
		close(fd);
		return -EADDRINUSE;
	}
	if (fd == -ECONNREFUSED && unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return fd == -EAGAIN ? -EADDRINUSE : 0;
}

int sock_unix_listen(const char *path, unsigned mode)
{
	struct sockaddr_un addr;
	int fd, ret = unix_addr(path, &addr);

	if (ret < 0)
		return ret;
	ret = clear_stale(path);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		chmod(path, mode) < 0)
		return finish(fd, -1);
	return finish(fd, listen(fd, 128));
}

int sock_pair(int fds_out[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		    fds_out) < 0)
		return -errno;
	return 0;
}

bool sock_pair_is_torn(int fd)
{
	struct pollfd look = {.fd = fd};
	socklen_t len = sizeof(int);
	int domain = 0;

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
	       domain == AF_UNIX && poll(&look, 1, 0) == 1 &&
	       (look.revents & POLLHUP);
}

/* The ones below are wishes: on a socket that is not TCP they do nothing. */

void sock_nodelay(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void sock_defer_accept(int fd, unsigned seconds)
{
	(void)setsockopt(
		fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

void sock_user_timeout(int fd, unsigned ms)
{
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

void sock_reset_on_close(int fd)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void sock_end_on_close(int fd)
{
	struct linger linger = {0};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}
