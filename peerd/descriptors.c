/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk over /proc/self/fd for each reading of /metrics: see descriptors.h.
 * Owns nothing.
 *
 * A newcomer's trap: what was accepted on a port has that port itself, so a
 * connection is told from those that we have made by its own end's number.
 */
#include "peerd/descriptors.h"

#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/sock.h"

struct walk {
	uint16_t port;
	unsigned shown;
	FILE *connections;
};

/* What a listener on [::] accepts over IPv4 is written as IPv4. */
static void unmap(struct sock_addr *addr)
{
	const struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addr->ss;
	struct sockaddr_in in = {.sin_family = AF_INET};

	if (in6->sin6_family != AF_INET6 ||
		!IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		return;
	in.sin_port = in6->sin6_port;
	memcpy(&in.sin_addr, &in6->sin6_addr.s6_addr[12], 4);
	memcpy(&addr->ss, &in, sizeof(in));
	addr->len = sizeof(in);
}

static uint16_t port_of(const struct sock_addr *addr)
{
	if (addr->ss.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&addr->ss)->sin_port);
	if (addr->ss.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&addr->ss)->sin6_port);
	return 0;
}

static bool is_established(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == TCP_ESTABLISHED;
}

static void look_at(struct walk *walk, int fd)
{
	struct sock_addr here = {.len = sizeof(here.ss)};
	struct sock_addr there = {.len = sizeof(there.ss)};
	char local[SOCK_ADDR_MAX], remote[SOCK_ADDR_MAX];

	if (getsockname(fd, (struct sockaddr *)&here.ss, &here.len) < 0 ||
		port_of(&here) != walk->port || !is_established(fd) ||
		getpeername(fd, (struct sockaddr *)&there.ss, &there.len) < 0 ||
		walk->shown >= DESCRIPTORS_SHOWN_MAX)
		return;
	unmap(&here);
	unmap(&there);
	sock_format(&here, local, sizeof(local));
	sock_format(&there, remote, sizeof(remote));
	walk->shown++;
	fprintf(walk->connections,
		"proxy_peer_server_connections{local_id=\"%s\",remote_id="
		"\"%s\",state=\"SERVER_CONN\"} 1\n",
		local, remote);
}

static void walk_all(struct walk *walk)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd != dirfd(dir) && walk->port)
			look_at(walk, fd);
	}
	if (dir)
		closedir(dir);
}

void descriptors_text(uint16_t port, FILE *out)
{
	struct walk walk = {.port = port};
	char *lines = NULL;
	size_t len = 0;

	walk.connections = open_memstream(&lines, &len);
	if (!walk.connections)
		return;
	walk_all(&walk);
	fclose(walk.connections);
	fprintf(out,
		"# HELP proxy_peer_server_connections TCP connections that "
		"peers have made to us, at most %d of them\n"
		"# TYPE proxy_peer_server_connections gauge\n%s",
		DESCRIPTORS_SHOWN_MAX, lines);
	free(lines);
}
