/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message as 3080 and its clients read them. The first byte chooses the
 * kind, whether a body is wanted and how long the pieces are.
 */
#include <stdint.h>
#include <stdlib.h>

#include "shared/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_message *message;
	enum http_result result = HTTP_MORE;
	size_t step, len;

	if (!size)
		return 0;
	message = http_message_new(
		(data[0] & 1) ? HTTP_RESPONSE_MESSAGE : HTTP_REQUEST_MESSAGE,
		!(data[0] & 2));
	step = (data[0] >> 2) + 1;
	data++;
	size--;
	while (size && result == HTTP_MORE) {
		size_t used;

		result = http_feed(
			message, data, size < step ? size : step, &used);
		data += used;
		size -= used;
	}
	if (result == HTTP_MORE)
		result = http_end(message);
	if (result == HTTP_DONE) {
		http_method(message);
		http_target(message);
		http_header(message, "content-length");
		http_body(message, &len);
		if (len > HTTP_BODY_MAX)
			abort();
	}
	http_message_free(message);
	return 0;
}
