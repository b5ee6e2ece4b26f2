/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One HTTP/1.1 message, parsed by libhttp-parser within bounds: what clients
 * and joining agents send to 3080, and what agent and peerctl get back. Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_MAX 16384
#define HTTP_BODY_MAX (1u << 20)
#define HTTP_HEADERS_MAX 100

enum http_kind { HTTP_REQUEST_MESSAGE, HTTP_RESPONSE_MESSAGE };

struct http_message;
/* body: whether a body is wanted; without, parsing ends at the head, as for a
 * response to CONNECT. Gives. */
struct http_message *http_message_new(enum http_kind kind, bool body);
void http_message_free(struct http_message *message);

enum http_result { HTTP_MORE, HTTP_DONE, HTTP_INVALID, HTTP_TOO_LARGE };
/* Feeds bytes; *used_out is how many belong to the message (the rest comes
 * after it: CONNECT's first bytes). */
enum http_result http_feed(struct http_message *message, const void *data,
	size_t len, size_t *used_out);
/* The connection ended: a body without length is complete. */
enum http_result http_end(struct http_message *message);

/* After the head. */
const char *http_method(const struct http_message *message);
const char *http_target(const struct http_message *message); /* as sent */
int http_status(const struct http_message *message);
/* What stands behind the status, printable and cut at 63 bytes; may be empty.
 */
const char *http_reason(const struct http_message *message);
/* First header of that name (any case), or NULL. */
const char *http_header(const struct http_message *message, const char *name);
const uint8_t *http_body(const struct http_message *message, size_t *len_out);
