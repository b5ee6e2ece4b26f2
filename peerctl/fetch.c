/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See fetch.h. What a newcomer gets wrong: files of /proc have no size, and may
 * be cut anywhere by the time they have been read.
 */
#include "peerctl/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/http.h"
#include "shared/sock.h"

#define CHUNK 16384

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

/* 0, or -errno. */
static int await(int fd, short events, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left = deadline - now_ms();
	int n = left > 0 ? poll(&p, 1, (int)left) : 0;

	return n > 0 ? 0 : n ? -errno : -ETIMEDOUT;
}

static int connect_to(const char *text, int64_t deadline)
{
	struct sock_addr addr;
	int fd = sock_parse(text, 0, &addr);
	int ret;

	if (!fd)
		fd = sock_connect(&addr);
	if (fd < 0)
		return fd;
	ret = await(fd, POLLOUT, deadline);
	if (!ret)
		ret = sock_error(fd);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

/* Until the message is whole; 0, or -errno. */
static int read_message(int fd, struct http_message *message, int64_t deadline)
{
	enum http_result result = HTTP_MORE;
	char bytes[CHUNK];

	while (result == HTTP_MORE) {
		size_t used;
		ssize_t n = -1;
		int ret = await(fd, POLLIN, deadline);

		if (ret)
			return ret;
		n = recv(fd, bytes, sizeof(bytes), 0);
		if (n < 0)
			return -errno;
		result = n ? http_feed(message, bytes, (size_t)n, &used)
			   : http_end(message);
	}
	return result == HTTP_DONE ? 0 : -EBADMSG;
}

static int ask(int fd, const char *path, struct http_message *message,
	int64_t deadline)
{
	char *request = xasprintf("GET %s HTTP/1.1\r\nHost: localhost\r\n"
				  "Connection: close\r\n\r\n",
		path);
	ssize_t n = send(fd, request, strlen(request), MSG_NOSIGNAL);

	free(request);
	return n < 0 ? -errno : read_message(fd, message, deadline);
}

char *fetch_diag(const char *addr, const char *path, int timeout_ms,
	int *status_out, char **error_out)
{
	struct http_message *message =
		http_message_new(HTTP_RESPONSE_MESSAGE, true);
	int64_t deadline = now_ms() + timeout_ms;
	int fd = connect_to(addr, deadline);
	int ret = fd < 0 ? fd : ask(fd, path, message, deadline);
	char *body = NULL;

	if (ret < 0) {
		*error_out = xasprintf(
			"http://%s%s: %s", addr, path, strerror(-ret));
	} else {
		size_t len;
		const uint8_t *bytes = http_body(message, &len);

		body = xstrndup(bytes ? (const char *)bytes : "", len);
		*status_out = http_status(message);
	}
	if (fd >= 0)
		close(fd);
	http_message_free(message);
	return body;
}

char *fetch_file(const char *path, long max, int from_end)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char *text = NULL;
	long len = 0;
	ssize_t n = 1;

	if (fd < 0)
		return NULL;
	if (from_end && lseek(fd, 0, SEEK_END) > max)
		lseek(fd, -max, SEEK_END);
	else if (from_end)
		lseek(fd, 0, SEEK_SET);
	while (n > 0 && len < max) {
		long room = max - len < CHUNK ? max - len : CHUNK;

		text = xrealloc(text, (size_t)(len + room) + 1);
		n = read(fd, text + len, (size_t)room);
		if (n > 0)
			len += n;
	}
	close(fd);
	if (n < 0 && !len) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}
