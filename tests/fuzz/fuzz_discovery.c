/* SPDX-License-Identifier: Apache-2.0 */
/* What is read must be written again, and refusals must have a reason. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/discovery.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *error = NULL;
	struct discovery *in =
		discovery_from_json((const char *)data, size, &error);
	struct discovery *again;
	char *text;

	if (!in) {
		if (!error || !*error)
			abort();
		free(error);
		return 0;
	}
	text = discovery_to_json(in, true);
	if (!text)
		abort();
	again = discovery_from_json(text, strlen(text), &error);
	if (!again)
		abort();
	discovery_free(again);
	discovery_free(in);
	free(text);
	return 0;
}
