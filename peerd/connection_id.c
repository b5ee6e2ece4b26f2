/* SPDX-License-Identifier: Apache-2.0 */
/* Names of client connections: see connection_id.h. */
#include "peerd/connection_id.h"

#include <openssl/rand.h>
#include <string.h>

#include "shared/log.h"

void connection_id_make(uint8_t out[CONNECTION_ID_SIZE])
{
	if (RAND_bytes(out, CONNECTION_ID_SIZE) != 1)
		fatal("no random numbers");
}

void connection_id_format(const uint8_t id[CONNECTION_ID_SIZE], char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < CONNECTION_ID_SIZE; i++) {
		*out++ = digits[id[i] >> 4];
		*out++ = digits[id[i] & 15];
	}
	*out = '\0';
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool connection_id_parse(const char *text, uint8_t out[CONNECTION_ID_SIZE])
{
	uint8_t id[CONNECTION_ID_SIZE];

	if (strlen(text) != 2 * CONNECTION_ID_SIZE)
		return false;
	for (int i = 0; i < CONNECTION_ID_SIZE; i++) {
		int high = digit_value(text[2 * i]);
		int low = digit_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		id[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(out, id, sizeof(id));
	return true;
}
