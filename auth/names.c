/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names for certificates, see names.h. Pure. What a newcomer gets wrong: a name
 * below teleport.cluster.local is what proxies and auth servers are recognised
 * by, so it never comes from outside.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "auth/names.h"
#include "shared/alloc.h"

#define DNS_MAX 253
#define LABEL_MAX 63
#define RESERVED "teleport.cluster.local"

bool names_is_address(const char *text)
{
	unsigned char bytes[16];

	return inet_pton(AF_INET, text, bytes) == 1 ||
	       inet_pton(AF_INET6, text, bytes) == 1;
}

static bool is_reserved(const char *text)
{
	size_t len = strlen(text);
	size_t reserved = strlen(RESERVED);

	return len >= reserved && !strcmp(text + len - reserved, RESERVED);
}

/* Labels of letters, digits and hyphens, the last of them no number: an
 * address that is not quite one is not a name either. */
static bool is_dns_name(const char *text)
{
	const char *label = text;

	if (!strncmp(text, "*.", 2))
		label = text + 2;
	if (strlen(text) > DNS_MAX)
		return false;
	for (;;) {
		size_t len =
			strspn(label, "abcdefghijklmnopqrstuvwxyz0123456789-");

		if (len == 0 || len > LABEL_MAX || label[0] == '-' ||
			label[len - 1] == '-')
			return false;
		if (label[len] == '\0')
			return !isdigit((unsigned char)label[0]) ||
			       strspn(label, "0123456789") < len;
		if (label[len] != '.')
			return false;
		label += len + 1;
	}
}

static char *lower(const char *text)
{
	char *copy = xstrdup(text);

	for (char *c = copy; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return copy;
}

static bool has_lower(const struct names *names, const char *text)
{
	for (unsigned i = 0; i < names->count; i++)
		if (!strcmp(names->items[i], text))
			return true;
	return false;
}

bool names_has(const struct names *names, const char *text)
{
	char *copy = lower(text);
	bool has = has_lower(names, copy);

	free(copy);
	return has;
}

int names_add(struct names *names, const char *text)
{
	char *copy = lower(text);
	int ret = 0;

	if ((!names_is_address(copy) && !is_dns_name(copy)) ||
		is_reserved(copy))
		ret = -EINVAL;
	else if (has_lower(names, copy))
		ret = 0;
	else if (names->count == NAMES_MAX)
		ret = -ENOSPC;
	else {
		names->items[names->count++] = copy;
		return 0;
	}
	free(copy);
	return ret;
}

void names_deinit(struct names *names)
{
	for (unsigned i = 0; i < names->count; i++)
		free(names->items[i]);
	names->count = 0;
}

json_t *names_to_json(const struct names *names)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < names->count; i++)
		json_array_append_new(array, json_string(names->items[i]));
	return array;
}

int names_from_json(const json_t *array, struct names *names)
{
	size_t i;
	json_t *item;

	memset(names, 0, sizeof(*names));
	if (!array || json_is_null(array))
		return 0;
	if (!json_is_array(array))
		return -EINVAL;
	json_array_foreach(array, i, item)
	{
		int ret = json_is_string(item)
				  ? names_add(names, json_string_value(item))
				  : -EINVAL;

		if (ret < 0)
			return ret;
	}
	return 0;
}
