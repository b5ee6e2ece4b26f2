/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A blocking byte stream with one deadline for all, over a plain socket or
 * over TLS. Belongs to one thread.
 */

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pump_io {
	int fd;
	SSL *ssl;	     /* NULL: plain */
	int64_t deadline_ms; /* of pump_now_ms() */
	short wants;	     /* what the last try waits for, of poll() */
};

int64_t pump_now_ms(void);

/* Takes fd and ssl (may be NULL); makes fd non-blocking. */
void pump_io_init(struct pump_io *io, int fd, SSL *ssl, int64_t deadline_ms);
void pump_io_deinit(struct pump_io *io);

/* One try: bytes moved, 0 at the end (reading only), -EAGAIN with io->wants
 * set, or another -errno. */
ssize_t pump_io_read(struct pump_io *io, void *buf, size_t len);
ssize_t pump_io_write(struct pump_io *io, const void *buf, size_t len);
/* TLS as a client, to its end. 0 or -errno. */
int pump_io_handshake(struct pump_io *io);

/* Waits for events; 0, or -ETIMEDOUT after the deadline. */
int pump_io_wait(struct pump_io *io, short events);

/* All len bytes. 0 or -errno; -EPIPE when the stream ends before. */
int pump_io_read_all(struct pump_io *io, void *buf, size_t len);
int pump_io_write_all(struct pump_io *io, const void *buf, size_t len);
