/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A byte channel to a client or a service: a plain stream socket, or TLS over
 * one. Both look alike, so TLS is decided where the channel is made. No
 * buffers of its own: who reads gives the memory.
 *
 * Readiness is edge-triggered and registered once: after on_ready, read until
 * -EAGAIN and write until -EAGAIN or the next edge will not come. (TLS may
 * need to write in order to read; the channel hides that.)
 */

#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "shared/loop.h"

struct chan;

/* Takes fd (and ssl, whose fd is set here), in every case. */
struct chan *chan_new_fd(struct loop *loop, int fd);
struct chan *chan_new_tls(struct loop *loop, int fd, SSL *ssl);
/* Closes; NULL is fine. Safe inside on_ready (freed at the end of the turn). */
void chan_free(struct chan *chan);

/* on_ready: something may have become possible. Borrows arg; NULL stops. The
 * first call comes by itself, at the end of this turn or in the next. */
void chan_watch(struct chan *chan, void (*on_ready)(void *arg), void *arg);

/* TLS only: drives the handshake (the role was set on the SSL). 0 when done,
 * -EAGAIN, -EINPROGRESS (the ClientHello callback made it wait: no edge will
 * come), or -EPROTO (tls_error_text() says why) or -errno. */
int chan_handshake(struct chan *chan);
SSL *chan_ssl(struct chan *chan);

/* > 0 bytes; 0 end of stream (FIN, close_notify); -EAGAIN; -errno (-ECONNRESET
 * also for an end of a pair that was torn, sock_pair()). */
ssize_t chan_read(struct chan *chan, void *buf, size_t len);
/* > 0 bytes, perhaps fewer; -EAGAIN; -errno. After -EAGAIN a TLS channel wants
 * the same bytes again, wherever they lie now; more may follow them. */
ssize_t chan_write(struct chan *chan, const void *buf, size_t len);
ssize_t chan_writev(struct chan *chan, const struct iovec *iov, int count);
/* Half-close after everything written has gone: FIN, or close_notify. 0,
 * -EAGAIN (call again when ready) or -errno. */
int chan_shutdown(struct chan *chan);

int chan_fd(const struct chan *chan);
/* Moves the descriptor out of a channel and frees it: gives. Plain, or TLS on
 * which nothing was written yet. */
int chan_release_fd(struct chan *chan);
/* close() will send RST. */
void chan_abort(struct chan *chan);
