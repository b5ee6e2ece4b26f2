/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Bytes that wait for a stream's reader, in memory of their own: a gRPC slice
 * of a few bytes may keep a whole read buffer alive, a copy costs what it says.
 * One thread puts, one takes, at the same time.
 */

#include <pthread.h>
#include <stddef.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct backlog_chunk;

struct backlog {
	pthread_mutex_t lock;
	TAILQ_HEAD(backlog_list, backlog_chunk) chunks;
	size_t len;
};

void backlog_init(struct backlog *backlog);
void backlog_deinit(struct backlog *backlog);
/* Copies. */
void backlog_put(
	struct backlog *backlog, const struct iovec *pieces, size_t count);
size_t backlog_len(struct backlog *backlog);
/* What comes first, at most max pieces, borrowed until backlog_drop(); their
 * number. */
size_t backlog_peek(struct backlog *backlog, struct iovec *pieces, size_t max);
/* The first len bytes are done with. */
void backlog_drop(struct backlog *backlog, size_t len);
