/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of `peerctl connect`, with poll(2) and one buffer each way.
 *
 * stdin and stdout may be anything (pipes of ssh, sockets, files, a terminal)
 * and are shared with other processes, so they are not made non-blocking: a
 * pipe takes PIPE_BUF bytes without blocking once poll() says POLLOUT, and a
 * socket is asked not to wait in each call.
 */
#include "peerctl/pump.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_SIZE 65536

struct buffer {
	unsigned char bytes[BUFFER_SIZE];
	size_t begin;
	size_t end;
};

struct pump {
	struct client *client;
	int in;
	int out;
	struct buffer up;   /* stdin -> connection */
	struct buffer down; /* connection -> stdout */
	bool in_ended;
	bool notified;	/* close_notify is out */
	bool tls_ended; /* the other side's close_notify is in */
	bool out_closed;
	bool out_is_socket;
	bool write_blocked; /* TLS waits for the socket to take more */
	bool read_blocked;  /* TLS waits for the socket to give more */
	int error;
};

static bool is_empty(const struct buffer *b)
{
	return b->begin == b->end;
}

static void take(struct buffer *b, size_t len)
{
	b->begin += len;
	if (is_empty(b))
		b->begin = b->end = 0;
}

static void read_stdin(struct pump *p)
{
	ssize_t n = read(p->in, p->up.bytes, sizeof(p->up.bytes));

	if (n > 0)
		p->up.end = n;
	else if (n == 0)
		p->in_ended = true;
	else if (errno != EINTR && errno != EAGAIN)
		p->error = -errno;
}

/* What SSL said about a call that gave ret. */
static void note_tls(struct pump *p, int ret)
{
	switch (SSL_get_error(p->client->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		p->read_blocked = true;
		break;
	case SSL_ERROR_WANT_WRITE:
		p->write_blocked = true;
		break;
	case SSL_ERROR_ZERO_RETURN:
		p->tls_ended = true;
		break;
	case SSL_ERROR_SYSCALL:
		p->error = errno ? -errno : -ECONNRESET;
		break;
	default:
		/* Also an end of TCP without close_notify. */
		p->error = -ECONNRESET;
	}
}

static void write_tls(struct pump *p)
{
	SSL *ssl = p->client->ssl;
	int ret;

	p->write_blocked = false;
	while (!is_empty(&p->up) && !p->write_blocked && !p->error) {
		ret = SSL_write(ssl, p->up.bytes + p->up.begin,
			p->up.end - p->up.begin);
		if (ret > 0)
			take(&p->up, ret);
		else
			note_tls(p, ret);
	}
	if (!p->in_ended || !is_empty(&p->up) || p->notified || p->error)
		return;
	ret = SSL_shutdown(ssl);
	p->notified = ret >= 0;
	if (ret < 0)
		note_tls(p, ret);
}

static void read_tls(struct pump *p)
{
	int ret;

	p->read_blocked = false;
	ret = SSL_read(p->client->ssl, p->down.bytes, sizeof(p->down.bytes));
	if (ret > 0)
		p->down.end = ret;
	else
		note_tls(p, ret);
}

static void write_stdout(struct pump *p)
{
	const unsigned char *bytes = p->down.bytes + p->down.begin;
	size_t len = p->down.end - p->down.begin;
	ssize_t n;

	if (p->out_is_socket)
		n = send(p->out, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		n = write(p->out, bytes, len < PIPE_BUF ? len : PIPE_BUF);
	if (n > 0)
		take(&p->down, n);
	else if (n < 0 && errno != EINTR && errno != EAGAIN)
		p->error = -errno;
}

static void close_stdout(struct pump *p)
{
	if (p->out_is_socket)
		shutdown(p->out, SHUT_WR);
	close(p->out);
	p->out_closed = true;
}

static bool is_done(const struct pump *p)
{
	return p->error || (p->notified && p->out_closed);
}

enum { IN, OUT, NET, COUNT };

static void wait_ready(struct pump *p, struct pollfd *fds)
{
	bool wants_in = !p->in_ended && is_empty(&p->up);
	bool wants_net = !p->tls_ended && is_empty(&p->down);
	/* TLS may hold what poll() cannot see. */
	bool pending = wants_net && !p->read_blocked;

	fds[IN] = (struct pollfd){wants_in ? p->in : -1, POLLIN, 0};
	fds[OUT] =
		(struct pollfd){is_empty(&p->down) ? -1 : p->out, POLLOUT, 0};
	fds[NET] = (struct pollfd){-1, 0, 0};
	if (wants_net)
		fds[NET].events |= POLLIN;
	if (p->out_closed)
		fds[NET].events |= POLLRDHUP;
	if (p->write_blocked)
		fds[NET].events |= POLLOUT;
	/* Else a hang-up would be reported again and again. */
	if (fds[NET].events)
		fds[NET].fd = p->client->fd;
	if (poll(fds, COUNT, pending ? 0 : -1) < 0 && errno != EINTR)
		p->error = -errno;
	if (pending)
		fds[NET].revents |= POLLIN;
}

static void turn(struct pump *p)
{
	struct pollfd fds[COUNT];

	wait_ready(p, fds);
	if (p->error)
		return;
	if (fds[IN].revents)
		read_stdin(p);
	if (!p->tls_ended && is_empty(&p->down) &&
		fds[NET].revents & (POLLIN | POLLHUP | POLLERR))
		read_tls(p);
	if (fds[OUT].revents)
		write_stdout(p);
	if (!p->error)
		write_tls(p);
	if (p->tls_ended && is_empty(&p->down) && !p->out_closed)
		close_stdout(p);
	/* After its close_notify the proxy ends TCP when nobody reads us any
	 * more; what stdin still has is of no use. */
	if (p->out_closed &&
		fds[NET].revents & (POLLRDHUP | POLLHUP | POLLERR)) {
		p->notified = true;
		p->error = 0;
	}
}

int pump_run(struct client *client, int in, int out)
{
	static struct pump p;
	int type;
	socklen_t len = sizeof(type);

	p = (struct pump){.client = client, .in = in, .out = out};
	p.out_is_socket = !getsockopt(out, SOL_SOCKET, SO_TYPE, &type, &len);
	memcpy(p.down.bytes, client->first, client->first_len);
	p.down.end = client->first_len;
	SSL_set_mode(client->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	while (!is_done(&p))
		turn(&p);
	return p.error;
}
