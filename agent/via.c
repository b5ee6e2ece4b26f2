/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CONNECT. Talks to a socket it borrows; plain.h reads the answer.
 *
 * What one gets wrong: the request may hold a password. It is wiped when it was
 * sent, and no message has anything of the proxy but its address.
 */
#include "agent/via.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/plain.h"
#include "shared/alloc.h"
#include "shared/sock.h"

#define ANSWER_MAX 8192

struct via {
	struct plain *plain;
	char *request; /* NULL: sent */
	size_t len;
	size_t sent;
	char proxy[SOCK_ADDR_MAX];
	char target[SOCK_ADDR_MAX];
	char text[2 * SOCK_ADDR_MAX + 32];
	char why[2 * SOCK_ADDR_MAX + 160];
};

struct via *via_new(const struct https_proxy *proxy, const char *addr,
	uint16_t default_port)
{
	struct via *via = xcalloc(1, sizeof(*via));
	char host[256];
	uint16_t port;

	if (sock_split(addr, default_port, host, sizeof(host), &port) < 0) {
		snprintf(host, sizeof(host), "%s", addr);
		port = default_port;
	}
	snprintf(via->target, sizeof(via->target),
		strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	snprintf(via->proxy, sizeof(via->proxy), "%s", https_proxy_addr(proxy));
	snprintf(via->text, sizeof(via->text), "%s through HTTP proxy %s",
		via->target, via->proxy);
	via->request = https_proxy_request(proxy, via->target);
	via->len = strlen(via->request);
	via->plain = plain_new(ANSWER_MAX);
	return via;
}

static void forget_request(struct via *via)
{
	if (via->request)
		wipe(via->request, via->len);
	free(via->request);
	via->request = NULL;
}

void via_free(struct via *via)
{
	if (!via)
		return;
	forget_request(via);
	plain_free(via->plain);
	free(via);
}

bool via_is_sending(const struct via *via)
{
	return via->request != NULL;
}

const char *via_why(const struct via *via)
{
	return via->why;
}

const char *via_text(const struct via *via)
{
	return via->text;
}

static int broken(struct via *via, int error)
{
	snprintf(via->why, sizeof(via->why), "HTTP proxy %s, asked for %s: %s",
		via->proxy, via->target,
		error == -EBADMSG      ? "the answer is not HTTP"
		: error == -ECONNRESET ? "hung up without an answer"
				       : strerror(-error));
	return error;
}

static int judge(struct via *via)
{
	int status = plain_status(via->plain);

	if (status >= 200 && status < 300)
		return 0;
	snprintf(via->why, sizeof(via->why),
		"HTTP proxy %s refused CONNECT to %s: %d %s", via->proxy,
		via->target, status, plain_reason(via->plain));
	return -EACCES;
}

int via_step(struct via *via, int fd)
{
	int ret;

	while (via->request) {
		ssize_t n = send(fd, via->request + via->sent,
			via->len - via->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN ? -EAGAIN : broken(via, -errno);
		via->sent += n;
		if (via->sent == via->len)
			forget_request(via);
	}
	ret = plain_read(via->plain, fd);
	if (ret == -EAGAIN)
		return ret;
	return ret ? broken(via, ret) : judge(via);
}
