/* SPDX-License-Identifier: Apache-2.0 */
/* A proxy's Publish, as bytes from the network, up to the transaction. */
#include <stdint.h>
#include <stdlib.h>

#include "auth/backend_ops.h"
#include "auth/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Peerway__Auth__PublishRequest *request =
		peerway__auth__publish_request__unpack(NULL, size, data);
	const char *reason;
	struct records_batch *batch;

	if (!request)
		return 0;
	batch = records_batch_new(
		request, "11111111-1111-4111-8111-111111111111", &reason);
	/* whatever is let through is a transaction that the store takes */
	if (batch && !backend_txn_is_valid(&batch->txn))
		abort();
	records_batch_free(batch);
	peerway__auth__publish_request__free_unpacked(request, NULL);
	return 0;
}
