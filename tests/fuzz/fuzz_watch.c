/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of authd's watch, each message behind two bytes of length: any bytes
 * are skipped, gathered, applied or refused, and a revision never goes back but
 * by a snapshot.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "routed/apply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void feed(struct apply *apply, const uint8_t *data, size_t size)
{
	Peerway__Auth__WatchResponse *message =
		peerway__auth__watch_response__unpack(NULL, size, data);
	uint64_t before = apply->revision;
	const char *reason = NULL;
	enum apply_step step;

	if (!message)
		return;
	step = apply_next(apply, message, &reason);
	assert((step == APPLY_BROKEN) == (reason != NULL));
	assert(message->snapshot || apply->revision >= before);
	for (size_t i = 0; i < message->n_changes; i++)
		apply_is_fit(message->changes[i]);
	peerway__auth__watch_response__free_unpacked(message, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct apply apply;

	apply_init(&apply, "", 0);
	while (size >= 2) {
		size_t len = (size_t)data[0] << 8 | data[1];

		data += 2;
		size -= 2;
		if (len > size)
			len = size;
		feed(&apply, data, len);
		data += len;
		size -= len;
	}
	return 0;
}
