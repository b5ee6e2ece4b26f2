/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte channels: a descriptor, or TLS over one, behind a table of four calls.
 * Talks to the loop for edges; owns descriptor and SSL.
 *
 * What a newcomer gets wrong: the event is added once and never changed, so an
 * edge that is not followed by reading (or writing) until -EAGAIN is lost. A
 * channel remembers -EAGAIN and answers it without a system call until the
 * next edge.
 */
#include "shared/chan.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/sock.h"

/* One TLS record. A blocked SSL_write must be repeated with at least the same
 * length, so no attempt is longer than what goes into one record. */
#define RECORD_MAX 16384

struct chan_io {
	ssize_t (*read)(struct chan *chan, void *buf, size_t len);
	ssize_t (*write)(struct chan *chan, const void *buf, size_t len);
	ssize_t (*writev)(
		struct chan *chan, const struct iovec *iov, int count);
	int (*shutdown)(struct chan *chan);
};

struct chan {
	struct loop *loop;
	const struct chan_io *io;
	SSL *ssl;	  /* NULL: plain */
	struct event *ev; /* NULL: not yet watched */
	void (*on_ready)(void *arg);
	void *arg;
	struct loop_task first_call;
	int fd;
	int read_error; /* -errno, kept: the kernel tells it only once */
	bool read_blocked;
	bool write_blocked;
	bool shut; /* plain: our end is said */
};

/* Only a watched channel hears when the block ends. */
static int blocked(struct chan *chan, bool *flag)
{
	*flag = chan->ev != NULL;
	return -EAGAIN;
}

static ssize_t plain_result(struct chan *chan, ssize_t n, bool *flag)
{
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return blocked(chan, flag);
	return -errno;
}

static ssize_t plain_read(struct chan *chan, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = read(chan->fd, buf, len);
	} while (n < 0 && errno == EINTR);
	if (n == 0 && len > 0 && !chan->shut && sock_pair_is_torn(chan->fd))
		return -ECONNRESET;
	return plain_result(chan, n, &chan->read_blocked);
}

static ssize_t plain_write(struct chan *chan, const void *buf, size_t len)
{
	ssize_t n;

	do {
		n = write(chan->fd, buf, len);
	} while (n < 0 && errno == EINTR);
	return plain_result(chan, n, &chan->write_blocked);
}

static ssize_t plain_writev(
	struct chan *chan, const struct iovec *iov, int count)
{
	ssize_t n;

	do {
		n = writev(chan->fd, iov, count);
	} while (n < 0 && errno == EINTR);
	return plain_result(chan, n, &chan->write_blocked);
}

static int plain_shutdown(struct chan *chan)
{
	chan->shut = true;
	return shutdown(chan->fd, SHUT_WR) < 0 ? -errno : 0;
}

static const struct chan_io plain_io = {
	.read = plain_read,
	.write = plain_write,
	.writev = plain_writev,
	.shutdown = plain_shutdown,
};

/* What an SSL call that returned ret means, as 0 (end of stream) or -errno. */
static int tls_result(struct chan *chan, int ret, bool *flag)
{
	int saved = errno;

	switch (SSL_get_error(chan->ssl, ret)) {
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return blocked(chan, flag);
	case SSL_ERROR_SYSCALL:
		return saved ? -saved : -ECONNRESET;
	default:
		return -EPROTO;
	}
}

/*
 * Fills buf over record bounds: a buffer slightly smaller than a record would
 * otherwise give a full and a tiny read in turn.
 */
static ssize_t tls_read(struct chan *chan, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t want = len - done;
		int n;

		/* A stale entry would turn "want read" into a fatal error. */
		ERR_clear_error();
		errno = 0;
		n = SSL_read(chan->ssl, (char *)buf + done,
			want > INT_MAX ? INT_MAX : (int)want);
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		n = tls_result(chan, n, &chan->read_blocked);
		if (done == 0)
			return n;
		if (n < 0 && n != -EAGAIN)
			chan->read_error = n;
		break;
	}
	return (ssize_t)done;
}

static ssize_t tls_write(struct chan *chan, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t want = len - done < RECORD_MAX ? len - done : RECORD_MAX;
		int n;

		ERR_clear_error();
		errno = 0;
		n = SSL_write(chan->ssl, (const char *)buf + done, (int)want);
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		n = tls_result(chan, n, &chan->write_blocked);
		if (done > 0)
			break;
		return n == 0 ? -EPIPE : n;
	}
	return (ssize_t)done;
}

static ssize_t tls_writev(struct chan *chan, const struct iovec *iov, int count)
{
	size_t done = 0;

	for (int i = 0; i < count; i++) {
		ssize_t n = tls_write(chan, iov[i].iov_base, iov[i].iov_len);

		if (n < 0)
			return done ? (ssize_t)done : n;
		done += (size_t)n;
		if ((size_t)n < iov[i].iov_len)
			break;
	}
	return (ssize_t)done;
}

static int tls_shutdown(struct chan *chan)
{
	int ret;

	ERR_clear_error();
	errno = 0;
	ret = SSL_shutdown(chan->ssl);
	if (ret >= 0) /* 0: sent, the peer's has not come */
		return 0;
	ret = tls_result(chan, ret, &chan->write_blocked);
	return ret == 0 ? -EPROTO : ret;
}

static const struct chan_io tls_io = {
	.read = tls_read,
	.write = tls_write,
	.writev = tls_writev,
	.shutdown = tls_shutdown,
};

struct chan *chan_new_fd(struct loop *loop, int fd)
{
	struct chan *chan = xcalloc(1, sizeof(*chan));

	chan->loop = loop;
	chan->io = &plain_io;
	chan->fd = fd;
	return chan;
}

struct chan *chan_new_tls(struct loop *loop, int fd, SSL *ssl)
{
	struct chan *chan = chan_new_fd(loop, fd);

	chan->io = &tls_io;
	chan->ssl = ssl;
	/* Fails only without memory for a BIO; every call then fails. */
	if (SSL_set_fd(ssl, fd) != 1)
		chan->read_error = -ENOMEM;
	SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE |
				  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				  SSL_MODE_RELEASE_BUFFERS);
	/* One read(2) per record instead of two; readers go on to -EAGAIN, so
	 * nothing stays behind in OpenSSL. */
	SSL_set_read_ahead(ssl, 1);
	/* Programs that close without close_notify are common. What came
	 * before is whole, and the other direction must stay usable. */
	SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
	return chan;
}

static void stop_watching(struct chan *chan)
{
	chan->on_ready = NULL;
	loop_cancel(chan->loop, &chan->first_call);
	if (chan->ev)
		event_free(chan->ev);
	chan->ev = NULL;
}

void chan_free(struct chan *chan)
{
	if (!chan)
		return;
	stop_watching(chan);
	SSL_free(chan->ssl);
	chan->ssl = NULL;
	if (chan->fd >= 0)
		close(chan->fd);
	chan->fd = -1;
	loop_free_later(chan->loop, free, chan);
}

static void call_ready(struct chan *chan)
{
	if (chan->on_ready)
		chan->on_ready(chan->arg);
}

static void on_edge(evutil_socket_t fd, short what, void *arg)
{
	struct chan *chan = arg;

	chan->read_blocked = false;
	chan->write_blocked = false;
	call_ready(chan);
}

static void on_first_call(struct loop_task *task)
{
	call_ready((struct chan *)((char *)task -
				   offsetof(struct chan, first_call)));
}

void chan_watch(struct chan *chan, void (*on_ready)(void *arg), void *arg)
{
	chan->on_ready = on_ready;
	chan->arg = arg;
	if (!on_ready) {
		loop_cancel(chan->loop, &chan->first_call);
		return;
	}
	if (!chan->ev) {
		chan->ev = event_new(loop_base(chan->loop), chan->fd,
			EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_edge, chan);
		if (!chan->ev || event_add(chan->ev, NULL) < 0)
			chan->read_error = -ENOMEM;
	}
	chan->first_call.run = on_first_call;
	loop_defer(chan->loop, &chan->first_call);
}

int chan_handshake(struct chan *chan)
{
	int ret;

	assert(chan->ssl);
	if (chan->read_error)
		return chan->read_error;
	ERR_clear_error();
	errno = 0;
	ret = SSL_do_handshake(chan->ssl);
	if (ret == 1)
		return 0;
	if (SSL_get_error(chan->ssl, ret) == SSL_ERROR_WANT_CLIENT_HELLO_CB)
		return -EINPROGRESS;
	ret = tls_result(chan, ret, &chan->read_blocked);
	/* The handshake may wait for either direction: ask again each time. */
	chan->read_blocked = false;
	return ret == 0 ? -ECONNRESET : ret;
}

SSL *chan_ssl(struct chan *chan)
{
	return chan->ssl;
}

ssize_t chan_read(struct chan *chan, void *buf, size_t len)
{
	ssize_t n;

	if (chan->read_error)
		return chan->read_error;
	if (chan->read_blocked)
		return -EAGAIN;
	n = chan->io->read(chan, buf, len);
	if (n < 0 && n != -EAGAIN)
		chan->read_error = (int)n;
	return n;
}

ssize_t chan_write(struct chan *chan, const void *buf, size_t len)
{
	if (chan->write_blocked)
		return -EAGAIN;
	return chan->io->write(chan, buf, len);
}

ssize_t chan_writev(struct chan *chan, const struct iovec *iov, int count)
{
	if (chan->write_blocked)
		return -EAGAIN;
	return chan->io->writev(chan, iov, count);
}

int chan_shutdown(struct chan *chan)
{
	return chan->io->shutdown(chan);
}

int chan_fd(const struct chan *chan)
{
	return chan->fd;
}

int chan_release_fd(struct chan *chan)
{
	int fd = chan->fd;

	stop_watching(chan);
	chan->fd = -1;
	chan_free(chan);
	return fd;
}

void chan_abort(struct chan *chan)
{
	sock_reset_on_close(chan->fd);
}
