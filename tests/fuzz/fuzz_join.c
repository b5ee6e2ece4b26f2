/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of /v1/agent/join and /renew, from whoever reaches 3080. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "proxy/join.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int renew = 0; renew < 2; renew++) {
		const char *reason = NULL;
		size_t len;
		uint8_t *packed =
			join_request_pack(renew, data, size, &len, &reason);

		assert(packed || reason);
		free(packed);
	}
	free(join_response_to_json(data, size));
	return 0;
}
