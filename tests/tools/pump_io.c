/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Tries on a non-blocking socket, and waiting. OpenSSL may want to write in
 * order to read; io->wants says so, whichever direction was tried.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/tools/pump_io.h"

int64_t pump_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void pump_io_init(struct pump_io *io, int fd, SSL *ssl, int64_t deadline_ms)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	io->fd = fd;
	io->ssl = ssl;
	io->deadline_ms = deadline_ms;
	io->wants = 0;
	if (ssl)
		SSL_set_fd(ssl, fd);
}

void pump_io_deinit(struct pump_io *io)
{
	SSL_free(io->ssl);
	close(io->fd);
}

/* What an unsuccessful SSL call means. */
static ssize_t tls_result(struct pump_io *io, int ret)
{
	switch (SSL_get_error(io->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		io->wants = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		io->wants = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return errno ? -errno : -ECONNRESET;
	default:
		return -EPROTO;
	}
}

ssize_t pump_io_read(struct pump_io *io, void *buf, size_t len)
{
	ssize_t n;

	if (io->ssl) {
		n = SSL_read(io->ssl, buf, (int)len);
		return n > 0 ? n : tls_result(io, (int)n);
	}
	n = recv(io->fd, buf, len, 0);
	io->wants = POLLIN;
	return n < 0 ? -errno : n;
}

ssize_t pump_io_write(struct pump_io *io, const void *buf, size_t len)
{
	ssize_t n;

	if (io->ssl) {
		n = SSL_write(io->ssl, buf, (int)len);
		return n > 0 ? n : tls_result(io, (int)n);
	}
	n = send(io->fd, buf, len, MSG_NOSIGNAL);
	io->wants = POLLOUT;
	return n < 0 ? -errno : n;
}

int pump_io_wait(struct pump_io *io, short events)
{
	struct pollfd entry = {.fd = io->fd, .events = events};
	int64_t left = io->deadline_ms - pump_now_ms();

	if (left <= 0 || poll(&entry, 1, (int)left) == 0)
		return -ETIMEDOUT;
	return 0;
}

int pump_io_handshake(struct pump_io *io)
{
	for (;;) {
		int ret = SSL_connect(io->ssl);
		ssize_t result;

		if (ret == 1)
			return 0;
		result = tls_result(io, ret);
		if (result != -EAGAIN)
			return result ? (int)result : -ECONNRESET;
		ret = pump_io_wait(io, io->wants);
		if (ret < 0)
			return ret;
	}
}

int pump_io_read_all(struct pump_io *io, void *buf, size_t len)
{
	uint8_t *at = buf;

	while (len > 0) {
		ssize_t n = pump_io_read(io, at, len);

		if (n == 0)
			return -EPIPE;
		if (n == -EAGAIN)
			n = pump_io_wait(io, io->wants);
		if (n < 0)
			return (int)n;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int pump_io_write_all(struct pump_io *io, const void *buf, size_t len)
{
	const uint8_t *at = buf;

	while (len > 0) {
		ssize_t n = pump_io_write(io, at, len);

		if (n == -EAGAIN)
			n = pump_io_wait(io, io->wants);
		if (n < 0)
			return (int)n;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}
