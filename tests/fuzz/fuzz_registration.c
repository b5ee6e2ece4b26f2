/* SPDX-License-Identifier: Apache-2.0 */
/* What is read must be written again, and refusals must have a reason. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/registration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *error = NULL;
	struct registration *in =
		registration_from_json((const char *)data, size, &error);
	struct registration *again;
	char *text;

	if (!in) {
		if (!error || !*error)
			abort();
		free(error);
		return 0;
	}
	text = registration_to_json(in);
	if (!text)
		abort();
	again = registration_from_json(text, strlen(text), &error);
	if (!again)
		abort();
	registration_free(again);
	registration_free(in);
	free(text);
	return 0;
}
