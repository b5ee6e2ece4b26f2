/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Typed, bounded fields of a JSON object that a peer sent, with an error that
 * names the place: `proxies[3].id: is missing`. Keys that nobody asks for are
 * ignored, so that a newer peer may say more. Pure.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FIELD_ERROR_MAX 256

/* One object being read. place is its path with a dot behind ("services[0].")
 * or empty; error is shared by the objects of a document and holds the first
 * one met. Both are borrowed. */
struct field {
	json_t *object;
	const char *place;
	char *error; /* FIELD_ERROR_MAX bytes */
};

/* The object that a whole text is; duplicate keys are refused. Gives (to
 * json_decref()), or NULL and error. */
json_t *field_document(const char *text, size_t len, char *error);

/* All return 0, or -EBADMSG with error set. An optional field that is absent or
 * null leaves its output as it was. */

/* Text of fewer than size bytes without control characters. */
int field_text(const struct field *field, const char *key, bool required,
	char *out, size_t size);
int field_number(const struct field *field, const char *key, bool required,
	uint64_t max, uint64_t *out);
/* An array (object) of at most max members; borrowed; absent: NULL. */
int field_array(
	const struct field *field, const char *key, size_t max, json_t **out);
int field_object(
	const struct field *field, const char *key, size_t max, json_t **out);

/* Text that is no member of an object: a value at `place` + `key`. */
int field_value(const struct field *field, const char *key, json_t *value,
	char *out, size_t size);

/* Sets error to `<place><key>: <why>`; -EBADMSG. */
int field_fail(const struct field *field, const char *key, const char *why);
