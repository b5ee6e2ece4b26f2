/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The head of a plain HTTP answer, read from a socket to its last byte and not
 * a byte further: what a proxy says that is too busy for TLS, and what an HTTP
 * proxy says before TLS can begin.
 */

#include <stddef.h>
#include <stdint.h>

/* The answer is signed by nobody, so it cannot keep an agent away for long. A
 * proxy of ours says 72 at most. */
#define PLAIN_RETRY_MIN_MS 1000
#define PLAIN_RETRY_MAX_MS 75000

struct plain;
struct plain *plain_new(size_t max);
void plain_free(struct plain *plain);

/* 0: complete; -EAGAIN: not yet; -EBADMSG: no HTTP, or longer than max; else
 * -errno, -ECONNRESET also for an end in the middle. */
int plain_read(struct plain *plain, int fd);

/* When complete. */
int plain_status(const struct plain *plain);
/* Printable, may be empty. */
const char *plain_reason(const struct plain *plain);
/* Retry-After, within the bounds above; 0: none that is a number. */
uint32_t plain_retry_after_ms(const struct plain *plain);
