/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads registration, discovery and answers to a join: every length and range
 * is checked here, so that those who call hold plain structs of fixed size.
 *
 * What one gets wrong: jansson allows U+0000 only on request, so its strings
 * end where C's do; their length in bytes is json_string_length().
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/field.h"

int field_fail(const struct field *field, const char *key, const char *why)
{
	snprintf(field->error, FIELD_ERROR_MAX, "%s%s: %s", field->place, key,
		why);
	return -EBADMSG;
}

json_t *field_document(const char *text, size_t len, char *error)
{
	json_error_t at;
	json_t *document = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);

	if (!document) {
		snprintf(error, FIELD_ERROR_MAX, "line %d: %s", at.line,
			at.text);
		return NULL;
	}
	if (!json_is_object(document)) {
		snprintf(error, FIELD_ERROR_MAX, "is not a JSON object");
		json_decref(document);
		return NULL;
	}
	return document;
}

/* The member, or NULL with *ret_out 0 (optional) or -EBADMSG (required). */
static json_t *member(
	const struct field *field, const char *key, bool required, int *ret_out)
{
	json_t *value = json_object_get(field->object, key);

	*ret_out = 0;
	if (value && !json_is_null(value))
		return value;
	if (required)
		*ret_out = field_fail(field, key, "is missing");
	return NULL;
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

int field_value(const struct field *field, const char *key, json_t *value,
	char *out, size_t size)
{
	char why[64];

	if (!json_is_string(value))
		return field_fail(field, key, "is not a string");
	if (json_string_length(value) >= size) {
		snprintf(
			why, sizeof(why), "is longer than %zu bytes", size - 1);
		return field_fail(field, key, why);
	}
	if (has_control(json_string_value(value)))
		return field_fail(field, key, "has a control character");
	memcpy(out, json_string_value(value), json_string_length(value) + 1);
	return 0;
}

int field_text(const struct field *field, const char *key, bool required,
	char *out, size_t size)
{
	int ret;
	json_t *value = member(field, key, required, &ret);

	return value ? field_value(field, key, value, out, size) : ret;
}

int field_number(const struct field *field, const char *key, bool required,
	uint64_t max, uint64_t *out)
{
	int ret;
	json_t *value = member(field, key, required, &ret);
	char why[64];

	if (!value)
		return ret;
	if (!json_is_integer(value))
		return field_fail(field, key, "is not a whole number");
	if (json_integer_value(value) < 0 ||
		(uint64_t)json_integer_value(value) > max) {
		snprintf(why, sizeof(why), "is not within 0 and %llu",
			(unsigned long long)max);
		return field_fail(field, key, why);
	}
	*out = json_integer_value(value);
	return 0;
}

static int collection(const struct field *field, const char *key,
	json_type type, size_t max, json_t **out)
{
	int ret;
	json_t *value = member(field, key, false, &ret);
	size_t count;
	char why[64];

	*out = NULL;
	if (!value)
		return 0;
	if (json_typeof(value) != type)
		return field_fail(field, key,
			type == JSON_ARRAY ? "is not a list"
					   : "is not an object");
	count = type == JSON_ARRAY ? json_array_size(value)
				   : json_object_size(value);
	if (count > max) {
		snprintf(why, sizeof(why), "has more than %zu entries", max);
		return field_fail(field, key, why);
	}
	*out = value;
	return 0;
}

int field_array(
	const struct field *field, const char *key, size_t max, json_t **out)
{
	return collection(field, key, JSON_ARRAY, max, out);
}

int field_object(
	const struct field *field, const char *key, size_t max, json_t **out)
{
	return collection(field, key, JSON_OBJECT, max, out);
}
