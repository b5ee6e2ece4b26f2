/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to a join, which nobody has signed for us: never taken. */
#include <stdint.h>
#include <stdlib.h>

#include "agent/issued.h"
#include "shared/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static EVP_PKEY *key;
	struct issued_expect expect = {
		.cluster = "example",
		.host_uuid = "0a1b2c3d-0000-4000-8000-00000000000a",
		.ca_pin = "sha256:00",
	};
	char *error = NULL;

	if (!key)
		key = pki_key_new();
	expect.key = key;
	if (issued_from_json((const char *)data, size, &expect, &error))
		abort();
	if (!error || !*error)
		abort();
	free(error);
	return 0;
}
