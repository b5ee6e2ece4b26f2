/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Descriptors watched edge-triggered in both directions, registered once and
 * never re-armed, which is what the two-threaded pump of stream.c relies on:
 * an epoll set of our own, itself one descriptor of the loop.
 */

#include <stdint.h>

#include "shared/loop.h"

struct edges;

/* Embedded in the object that owns the descriptor. */
struct edge {
	/* On the loop's thread: something became readable or writable, or the
	 * other end has gone. May be called when nothing is left to do. */
	void (*on_edge)(struct edge *edge);
};

struct edges *edges_new(struct loop *loop);
/* Every descriptor must have been removed. */
void edges_free(struct edges *edges);

/* The first edge comes by itself. 0 or -errno. */
int edges_add(struct edges *edges, int fd, struct edge *edge);
/* On the loop's thread, before the descriptor is closed; edge may still be in
 * the batch at hand, so it is freed with loop_free_later(). */
void edges_remove(struct edges *edges, int fd);
