/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain heads. Talks to a socket it borrows; shared/http.h is the parser.
 *
 * What one gets wrong: behind the head of an HTTP proxy's answer come the bytes
 * of whoever it connected to. So what has arrived is looked at first, and only
 * what belongs to the head is taken.
 */
#include "agent/plain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/alloc.h"
#include "shared/http.h"

struct plain {
	struct http_message *message;
	size_t left; /* of max */
};

struct plain *plain_new(size_t max)
{
	struct plain *plain = xcalloc(1, sizeof(*plain));

	plain->message = http_message_new(HTTP_RESPONSE_MESSAGE, false);
	plain->left = max;
	return plain;
}

void plain_free(struct plain *plain)
{
	if (!plain)
		return;
	http_message_free(plain->message);
	free(plain);
}

/* Looks at what has arrived; gives its length, or -errno. */
static ssize_t look(const struct plain *plain, int fd, char *buf, size_t size)
{
	size_t len = plain->left < size ? plain->left : size;
	ssize_t n;

	if (!len)
		return -EBADMSG;
	n = recv(fd, buf, len, MSG_PEEK | MSG_DONTWAIT);
	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n;
}

int plain_read(struct plain *plain, int fd)
{
	enum http_result result = HTTP_MORE;
	char buf[1024];
	size_t used;
	ssize_t n;

	while (result == HTTP_MORE) {
		n = look(plain, fd, buf, sizeof(buf));
		if (n < 0)
			return n;
		result = http_feed(plain->message, buf, n, &used);
		if (recv(fd, buf, used, MSG_DONTWAIT) != (ssize_t)used)
			return -ECONNRESET;
		plain->left -= used;
	}
	return result == HTTP_DONE ? 0 : -EBADMSG;
}

int plain_status(const struct plain *plain)
{
	return http_status(plain->message);
}

const char *plain_reason(const struct plain *plain)
{
	return http_reason(plain->message);
}

uint32_t plain_retry_after_ms(const struct plain *plain)
{
	const char *text = http_header(plain->message, "Retry-After");
	size_t digits = text ? strspn(text, "0123456789") : 0;
	unsigned long seconds;

	if (!digits || text[digits])
		return 0; /* none, or a date */
	seconds = digits > 6 ? PLAIN_RETRY_MAX_MS : strtoul(text, NULL, 10);
	if (seconds < PLAIN_RETRY_MIN_MS / 1000)
		return PLAIN_RETRY_MIN_MS;
	if (seconds > PLAIN_RETRY_MAX_MS / 1000)
		return PLAIN_RETRY_MAX_MS;
	return seconds * 1000;
}
