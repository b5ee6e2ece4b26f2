/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A watch of the store as messages to watchers: changes that come within a
 * moment are gathered, in order, and packed once, for however many it is that
 * get them. The first after a quiet moment waits for nothing.
 */

#include <grpc/byte_buffer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/backend.h"
#include "shared/loop.h"

struct feed;

struct feed_ops {
	/* All there is of the revisions up to this one; records 0: nothing of
	 * anybody's concern. Borrows message. May free the feed. */
	void (*on_message)(void *arg, grpc_byte_buffer *message,
		uint64_t revision, size_t records);
	/* See backend_watch_ops; what was gathered is lost. May free it. */
	void (*on_end)(void *arg, enum backend_status why);
};

struct feed_options {
	const char *store_id;
	uint64_t revision;  /* what is known: it begins behind that */
	uint64_t head;	    /* in every message; when it is reached, a message
			       says so, whether or not there is anything in it */
	uint32_t gather_ms; /* from one message to the next, at least */
};

/* Borrows all but options. */
struct feed *feed_new(struct loop *loop, struct backend *backend,
	const struct feed_options *options, const struct feed_ops *ops,
	void *arg);
/* NULL is fine. Not a word more. */
void feed_free(struct feed *feed);

/* How far it has come, with what is gathered and not yet sent. */
uint64_t feed_revision(const struct feed *feed);
/* Sends what is gathered now. */
void feed_flush(struct feed *feed);
void feed_pause(struct feed *feed, bool paused);
