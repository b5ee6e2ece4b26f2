/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A queue of bytes in one growing block: bytes that wait for a stalled channel,
 * bodies being gathered, small answers on their way out. Empty means no memory.
 */

#include <stddef.h>
#include <stdint.h>

struct tunnel_queue {
	uint8_t *data;
	size_t start; /* the queued bytes are data[start .. start + len) */
	size_t len;
	size_t size;
};

/* Copies. 0 or -ENOMEM; the caller has checked its bound. */
int tunnel_queue_append(
	struct tunnel_queue *queue, const void *data, size_t len);
/* The oldest byte; of len bytes. */
static inline const uint8_t *tunnel_queue_head(const struct tunnel_queue *queue)
{
	return queue->data + queue->start;
}
/* Forgets the oldest len bytes (len <= queue->len). */
void tunnel_queue_drop(struct tunnel_queue *queue, size_t len);
void tunnel_queue_clear(struct tunnel_queue *queue);
