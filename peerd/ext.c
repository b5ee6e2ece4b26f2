/* SPDX-License-Identifier: Apache-2.0 */
/* The names of the protocol's extensions: see ext.h. A newcomer's trap: a list
 * comes from the network and is not terminated. */
#include "peerd/ext.h"

#include <string.h>

static const struct {
	const char *name;
	unsigned bit;
} names[] = {
	{"eof", EXT_EOF},
	{"credit", EXT_CREDIT},
	{"frame64k", EXT_FRAME64K},
	{"reason", EXT_REASON},
	{"trace", EXT_TRACE},
};

#define COUNT (sizeof(names) / sizeof(names[0]))

static unsigned bit_of(const char *text, size_t len)
{
	for (size_t i = 0; i < COUNT; i++) {
		if (strlen(names[i].name) == len &&
			memcmp(names[i].name, text, len) == 0)
			return names[i].bit;
	}
	return 0;
}

unsigned ext_parse(const char *text, size_t len)
{
	const char *end = text + len;
	unsigned set = 0;

	while (text < end) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		const char *stop = comma ? comma : end;
		const char *next = comma ? comma + 1 : end;

		while (text < stop && *text == ' ')
			text++;
		while (stop > text && stop[-1] == ' ')
			stop--;
		set |= bit_of(text, (size_t)(stop - text));
		text = next;
	}
	return set;
}

size_t ext_format(unsigned set, char out[EXT_TEXT_MAX])
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < COUNT; i++) {
		if (!(set & names[i].bit))
			continue;
		if (n)
			out[n++] = ',';
		strcpy(out + n, names[i].name);
		n += strlen(names[i].name);
	}
	return n;
}

uint64_t ext_parse_credit(const char *text, size_t len, uint64_t max)
{
	uint64_t value = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		value = value * 10 + (uint64_t)(text[i] - '0');
		if (value > max)
			return 0;
	}
	return value;
}
