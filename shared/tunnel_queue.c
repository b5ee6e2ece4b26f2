/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue of bytes: see tunnel_queue.h. Pure: it knows neither tunnels nor
 * bounds. Doubling keeps appending cheap; bytes move to the front only when
 * that frees half the block, so draining stays linear as well.
 */
#include "shared/tunnel_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_MIN 1024

static int make_room(struct tunnel_queue *queue, size_t len)
{
	size_t need = queue->len + len;
	size_t size = queue->size ? queue->size : QUEUE_MIN;
	uint8_t *data;

	if (queue->start + need <= queue->size)
		return 0;
	if (queue->start > 0 && queue->start >= queue->len) {
		memcpy(queue->data, queue->data + queue->start, queue->len);
		queue->start = 0;
		if (need <= queue->size)
			return 0;
	}
	while (size < queue->start + need)
		size *= 2;
	data = realloc(queue->data, size);
	if (!data)
		return -ENOMEM;
	queue->data = data;
	queue->size = size;
	return 0;
}

int tunnel_queue_append(
	struct tunnel_queue *queue, const void *data, size_t len)
{
	int ret;

	if (len == 0)
		return 0;
	ret = make_room(queue, len);
	if (ret < 0)
		return ret;
	memcpy(queue->data + queue->start + queue->len, data, len);
	queue->len += len;
	return 0;
}

void tunnel_queue_drop(struct tunnel_queue *queue, size_t len)
{
	assert(len <= queue->len);
	queue->start += len;
	queue->len -= len;
	if (queue->len == 0)
		tunnel_queue_clear(queue);
}

void tunnel_queue_clear(struct tunnel_queue *queue)
{
	free(queue->data);
	*queue = (struct tunnel_queue){0};
}
