/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded HTTP/1.1 messages on libhttp-parser.
 *
 * All text of the head lies in one buffer, as NUL-ended strings; the parser
 * gives it in pieces, which are appended to the string that is open. A piece of
 * another kind (name, value) ends the open string.
 *
 * What one gets wrong: the parser's own bound on the head is 80 KiB and counts
 * anew for trailers, so the bytes are counted here, before the parser sees
 * them.
 */
#include <http_parser.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/alloc.h"
#include "shared/http.h"

#define NO_TEXT SIZE_MAX

enum text_kind { TEXT_NONE, TEXT_TARGET, TEXT_NAME, TEXT_VALUE };

struct header {
	size_t name; /* offsets into text */
	size_t value;
};

struct http_message {
	http_parser parser;
	enum http_kind kind;
	bool want_body;
	enum http_result result;
	bool head_done;
	char reason[64];
	size_t head_len; /* bytes given to the parser for the head */

	char *text;
	size_t text_len;
	size_t text_size;
	enum text_kind open; /* what the last string of text is */
	size_t target;
	struct header headers[HTTP_HEADERS_MAX];
	unsigned header_count;

	uint8_t *body;
	size_t body_len;
	size_t body_size;
};

static int fail(struct http_message *message, enum http_result result)
{
	message->result = result;
	return -1;
}

static bool reserve(struct http_message *message, size_t len)
{
	size_t size = message->text_size ? message->text_size : 512;
	char *text;

	while (size < message->text_len + len + 1)
		size *= 2;
	if (size == message->text_size)
		return true;
	text = realloc(message->text, size);
	if (!text)
		return false;
	message->text = text;
	message->text_size = size;
	return true;
}

/* Appends to the open string of that kind, or begins one; *start_out is where
 * a new one begins and untouched otherwise. */
static int append(struct http_message *message, enum text_kind kind,
	const char *data, size_t len, size_t *start_out)
{
	/* What the parser hands out was counted against HTTP_HEAD_MAX; one NUL
	 * for each string comes on top. Trailers have no use: dropped. */
	if (message->head_done)
		return 0;
	if (!reserve(message, len + 1))
		return fail(message, HTTP_TOO_LARGE);
	if (message->open != kind) {
		if (message->open != TEXT_NONE)
			message->text_len++; /* over the NUL */
		*start_out = message->text_len;
		message->open = kind;
	}
	memcpy(message->text + message->text_len, data, len);
	message->text_len += len;
	message->text[message->text_len] = '\0';
	return 0;
}

static int on_status(http_parser *parser, const char *data, size_t len)
{
	struct http_message *message = parser->data;
	size_t have = strlen(message->reason);

	for (; len-- > 0 && have < sizeof(message->reason) - 1; data++)
		message->reason[have++] =
			*data >= ' ' && *data <= '~' ? *data : '?';
	return 0;
}

static int on_url(http_parser *parser, const char *data, size_t len)
{
	struct http_message *message = parser->data;

	return append(message, TEXT_TARGET, data, len, &message->target);
}

static int on_header_field(http_parser *parser, const char *data, size_t len)
{
	struct http_message *message = parser->data;

	if (message->head_done)
		return 0;
	if (message->open != TEXT_NAME) {
		if (message->header_count == HTTP_HEADERS_MAX)
			return fail(message, HTTP_TOO_LARGE);
		message->headers[message->header_count].value = NO_TEXT;
		message->header_count++;
	}
	return append(message, TEXT_NAME, data, len,
		&message->headers[message->header_count - 1].name);
}

static int on_header_value(http_parser *parser, const char *data, size_t len)
{
	struct http_message *message = parser->data;

	if (message->head_done || !message->header_count)
		return 0;
	return append(message, TEXT_VALUE, data, len,
		&message->headers[message->header_count - 1].value);
}

static int on_headers_complete(http_parser *parser)
{
	struct http_message *message = parser->data;

	message->head_done = true;
	if (parser->http_major != 1)
		return fail(message, HTTP_INVALID);
	if (!message->want_body)
		return 2; /* neither a body nor another message follows */
	/* ULLONG_MAX: no length was given */
	if (parser->content_length != UINT64_MAX &&
		parser->content_length > HTTP_BODY_MAX)
		return fail(message, HTTP_TOO_LARGE);
	return 0;
}

static int on_body(http_parser *parser, const char *data, size_t len)
{
	struct http_message *message = parser->data;
	size_t size = message->body_size ? message->body_size : 1024;
	uint8_t *body = message->body;

	if (len > HTTP_BODY_MAX - message->body_len)
		return fail(message, HTTP_TOO_LARGE);
	while (size < message->body_len + len)
		size *= 2;
	if (size != message->body_size) {
		body = realloc(message->body, size);
		if (!body)
			return fail(message, HTTP_TOO_LARGE);
		message->body = body;
		message->body_size = size;
	}
	memcpy(body + message->body_len, data, len);
	message->body_len += len;
	return 0;
}

static int on_message_complete(http_parser *parser)
{
	struct http_message *message = parser->data;

	message->result = HTTP_DONE;
	/* What follows belongs to the caller. */
	http_parser_pause(parser, 1);
	return 0;
}

static const http_parser_settings callbacks = {
	.on_url = on_url,
	.on_status = on_status,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

struct http_message *http_message_new(enum http_kind kind, bool body)
{
	struct http_message *message = xcalloc(1, sizeof(*message));

	http_parser_init(&message->parser,
		kind == HTTP_REQUEST_MESSAGE ? HTTP_REQUEST : HTTP_RESPONSE);
	message->parser.data = message;
	message->kind = kind;
	message->want_body = body;
	message->result = HTTP_MORE;
	message->target = NO_TEXT;
	return message;
}

void http_message_free(struct http_message *message)
{
	if (!message)
		return;
	/* A join request carries a token. */
	wipe(message->text, message->text_size);
	wipe(message->body, message->body_size);
	free(message->text);
	free(message->body);
	free(message);
}

/* One piece, of at most what the head may still have. */
static size_t feed_piece(
	struct http_message *message, const char *data, size_t len)
{
	size_t room = HTTP_HEAD_MAX - message->head_len;
	bool in_head = !message->head_done;
	size_t used;

	if (in_head && len > room)
		len = room;
	used = http_parser_execute(&message->parser, &callbacks, data, len);
	if (in_head)
		message->head_len += used;
	if (message->result != HTTP_MORE)
		return used;
	if (HTTP_PARSER_ERRNO(&message->parser) != HPE_OK)
		message->result = HTTP_INVALID;
	else if (!message->head_done && message->head_len >= HTTP_HEAD_MAX)
		message->result = HTTP_TOO_LARGE;
	return used;
}

enum http_result http_feed(struct http_message *message, const void *data,
	size_t len, size_t *used_out)
{
	size_t used = 0;

	while (message->result == HTTP_MORE && used < len)
		used += feed_piece(
			message, (const char *)data + used, len - used);
	*used_out = used;
	return message->result;
}

enum http_result http_end(struct http_message *message)
{
	if (message->result != HTTP_MORE)
		return message->result;
	http_parser_execute(&message->parser, &callbacks, NULL, 0);
	if (message->result == HTTP_MORE)
		message->result = HTTP_INVALID;
	return message->result;
}

const char *http_method(const struct http_message *message)
{
	return http_method_str(message->parser.method);
}

const char *http_target(const struct http_message *message)
{
	return message->target == NO_TEXT ? ""
					  : message->text + message->target;
}

int http_status(const struct http_message *message)
{
	return message->parser.status_code;
}

const char *http_reason(const struct http_message *message)
{
	return message->reason;
}

const char *http_header(const struct http_message *message, const char *name)
{
	for (unsigned i = 0; i < message->header_count; i++) {
		const struct header *header = &message->headers[i];

		if (strcasecmp(message->text + header->name, name) != 0)
			continue;
		return header->value == NO_TEXT ? ""
						: message->text + header->value;
	}
	return NULL;
}

const uint8_t *http_body(const struct http_message *message, size_t *len_out)
{
	*len_out = message->body_len;
	return message->body;
}
