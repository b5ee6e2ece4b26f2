/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What travels as HTTP/2 messages: heads of requests and answers, bodies of
 * bounded size, lines of an answer that stays open; and the calls that open
 * streams. Talks to nghttp2; owns the memory of a message until it is handed to
 * the user of the tunnel.
 *
 * What a newcomer gets wrong: everything here was said by a peer. More than we
 * take costs the peer its stream, nothing else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/tunnel_internal.h"

/* Pseudo headers, the caller's, and a few of ours. */
#define HEAD_FIELDS (TUNNEL_HEADER_MAX + 6)

/* A head that we send: values copied, cleaned of what HTTP/2 forbids. */
struct head {
	nghttp2_nv fields[HEAD_FIELDS];
	size_t count;
	char text[TUNNEL_HEAD_BYTES];
	size_t text_len;
	bool overflow;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static void head_add(struct head *head, const char *name, const char *value)
{
	char *copy = head->text + head->text_len;
	size_t len;

	while (is_blank(*value))
		value++;
	len = strlen(value);
	while (len > 0 && is_blank(value[len - 1]))
		len--;
	if (head->count == HEAD_FIELDS ||
		len > sizeof(head->text) - head->text_len) {
		head->overflow = true;
		return;
	}
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)value[i];

		copy[i] = c < 0x20 || c == 0x7f ? '?' : value[i];
	}
	head->text_len += len;
	head->fields[head->count++] = (nghttp2_nv){
		.name = (uint8_t *)name,
		.value = (uint8_t *)copy,
		.namelen = strlen(name),
		.valuelen = len,
	};
}

static void head_add_number(
	struct head *head, const char *name, unsigned long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", number);
	head_add(head, name, text);
}

static int check_open(const struct tunnel *tunnel)
{
	if (tunnel->state != TUNNEL_READY)
		return -ENOTCONN;
	/* nghttp2 would queue what exceeds the limit, without a word. */
	if (tunnel->open_count >=
		nghttp2_session_get_remote_settings(tunnel->session,
			NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
		return -EAGAIN;
	return 0;
}

static void on_deadline(void *arg)
{
	tunnel_stream_finish(arg, -ETIMEDOUT);
}

static void set_deadline(struct tunnel_stream *stream, uint32_t ms)
{
	stream->timer = timer_new(stream->hub->loop, on_deadline, stream);
	timer_set(stream->timer, ms);
}

static void clear_deadline(struct tunnel_stream *stream)
{
	timer_free(stream->timer);
	stream->timer = NULL;
}

/* Sends head on stream; 0, or the stream has ended and will be told. */
static int submit_request(
	struct tunnel_stream *stream, const struct head *head, bool has_body)
{
	stream->id = nghttp2_submit_request(stream->tunnel->session, NULL,
		head->fields, head->count,
		has_body ? &tunnel_session_provider : NULL, stream);
	stream->out_ended = !has_body;
	tunnel_wake(stream->tunnel);
	if (stream->id >= 0)
		return 0;
	stream->closed = true;
	stream->tunnel->open_count--;
	/* The caller learns it from our result, not from on_end. */
	stream->ops = NULL;
	free(stream->exchange);
	stream->exchange = NULL;
	tunnel_stream_finish(stream, -ENOTCONN);
	return -ENOTCONN;
}

int tunnel_connect(struct tunnel *tunnel, const char *authority,
	const struct tunnel_header *headers, size_t header_count,
	uint32_t deadline_ms, const struct tunnel_stream_ops *ops, void *arg,
	struct tunnel_stream **stream_out)
{
	struct tunnel_stream *stream;
	struct head head;
	int ret = check_open(tunnel);

	if (ret < 0)
		return ret;
	head.count = head.text_len = head.overflow = 0;
	head_add(&head, ":method", "CONNECT");
	head_add(&head, ":authority", authority);
	for (size_t i = 0; i < header_count; i++)
		head_add(&head, headers[i].name, headers[i].value);
	if (head.overflow || header_count > TUNNEL_HEADER_MAX)
		return -EINVAL;
	stream = tunnel_stream_new(tunnel, -1);
	tunnel_stream_set_ops(stream, ops, arg);
	ret = submit_request(stream, &head, true);
	if (ret < 0)
		return ret;
	set_deadline(stream, deadline_ms);
	*stream_out = stream;
	return 0;
}

int tunnel_exchange(
	struct tunnel *tunnel, const struct tunnel_exchange *exchange)
{
	struct tunnel_queue body = {0};
	struct tunnel_stream *stream;
	struct head head;
	int ret = check_open(tunnel);

	if (ret < 0)
		return ret;
	if (exchange->len > TUNNEL_BODY_MAX)
		return -EMSGSIZE;
	head.count = head.text_len = head.overflow = 0;
	head_add(&head, ":method", exchange->method);
	head_add(&head, ":scheme", "https");
	head_add(&head, ":authority", "agent");
	head_add(&head, ":path", exchange->path);
	if (exchange->len > 0)
		head_add_number(&head, "content-length", exchange->len);
	if (head.overflow)
		return -EINVAL;
	if (tunnel_queue_append(&body, exchange->body, exchange->len) < 0)
		return -ENOMEM;
	stream = tunnel_stream_new(tunnel, -1);
	stream->exchange = xcalloc(1, sizeof(*exchange));
	*stream->exchange = *exchange;
	stream->exchange->body = NULL; /* the caller's */
	stream->wants_body = true;
	stream->out = body;
	stream->out_final = true;
	ret = submit_request(stream, &head, exchange->len > 0);
	if (ret < 0)
		return ret;
	set_deadline(stream, TUNNEL_EXCHANGE_MS);
	return 0;
}

void tunnel_message_begin(struct tunnel_stream *stream)
{
	struct tunnel_head *head = xcalloc(1, sizeof(*head));

	head->method = head->path = head->authority = "";
	stream->head = head;
	stream->wants_body = true; /* unless it is CONNECT */
}

static const char *keep_text(
	struct tunnel_head *head, const uint8_t *text, size_t len)
{
	char *copy = head->text + head->text_len;

	if (len + 1 > sizeof(head->text) - head->text_len)
		return NULL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	head->text_len += len + 1;
	return copy;
}

static bool request_header(struct tunnel_head *head, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len)
{
	const char *name_text = keep_text(head, name, name_len);
	const char *value_text = keep_text(head, value, value_len);

	if (!name_text || !value_text)
		return false;
	if (strcmp(name_text, ":method") == 0)
		head->method = value_text;
	else if (strcmp(name_text, ":path") == 0)
		head->path = value_text;
	else if (strcmp(name_text, ":authority") == 0)
		head->authority = value_text;
	else if (name_text[0] == ':')
		return true;
	else if (head->header_count < TUNNEL_HEADER_MAX)
		head->headers[head->header_count++] =
			(struct tunnel_header){name_text, value_text};
	else
		return false;
	return true;
}

static bool is_named(const char *want, const uint8_t *name, size_t len)
{
	return strlen(want) == len && memcmp(want, name, len) == 0;
}

/* nghttp2 has checked that :status is three digits. */
static void answer_header(struct tunnel_stream *stream, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len)
{
	if (is_named(":status", name, name_len) && value_len == 3) {
		stream->status = (value[0] - '0') * 100 +
				 (value[1] - '0') * 10 + (value[2] - '0');
	} else if (is_named("peerway-reason", name, name_len)) {
		free(stream->reason);
		stream->reason = xstrndup((const char *)value,
			value_len < TUNNEL_REASON_MAX ? value_len
						      : TUNNEL_REASON_MAX);
	}
}

bool tunnel_message_header(struct tunnel_stream *stream, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len)
{
	if (stream->tunnel->role == TUNNEL_PROXY) {
		answer_header(stream, name, name_len, value, value_len);
		return true;
	}
	if (!stream->head)
		return true; /* trailers */
	return request_header(stream->head, name, name_len, value, value_len);
}

static const uint8_t *body_bytes(const struct tunnel_queue *body)
{
	return body->data ? tunnel_queue_head(body) : (const uint8_t *)"";
}

static void deliver_request(struct tunnel_stream *stream)
{
	struct tunnel *tunnel = stream->tunnel;
	struct tunnel_head *head = stream->head;
	struct tunnel_request request = {
		.method = head->method,
		.path = head->path,
		.authority = head->authority,
		.headers = head->headers,
		.header_count = head->header_count,
	};

	stream->head = NULL;
	stream->wants_body = false;
	if (tunnel->state < TUNNEL_CLOSING)
		tunnel->ops->on_request(tunnel, tunnel->arg, stream, &request,
			body_bytes(&stream->body), stream->body.len);
	tunnel_queue_clear(&stream->body);
	free(head);
}

static void deliver_answer(struct tunnel_stream *stream)
{
	if (stream->answered || stream->status < 200)
		return; /* trailers; 1xx */
	stream->answered = true;
	if (stream->exchange) {
		if (stream->exchange->stream_lines)
			clear_deadline(stream);
		return;
	}
	clear_deadline(stream);
	if (stream->ops && stream->ops->on_response)
		stream->ops->on_response(stream, stream->arg, stream->status,
			stream->reason ? stream->reason : "");
	if (stream->status != 200)
		tunnel_stream_finish(stream, -ECONNREFUSED);
}

void tunnel_message_head_ended(struct tunnel_stream *stream)
{
	if (stream->tunnel->role == TUNNEL_PROXY)
		deliver_answer(stream);
	else if (stream->head && strcmp(stream->head->method, "CONNECT") == 0)
		deliver_request(stream);
}

/* Hands over each complete line, without its end. */
static void deliver_lines(struct tunnel_stream *stream)
{
	struct tunnel_queue *body = &stream->body;
	const struct tunnel_exchange *exchange = stream->exchange;

	while (!stream->ended && body->len > 0) {
		const uint8_t *line = tunnel_queue_head(body);
		const uint8_t *end = memchr(line, '\n', body->len);

		if (!end)
			return;
		exchange->on_data(exchange->arg, stream->status, line,
			(size_t)(end - line), false);
		tunnel_queue_drop(body, (size_t)(end - line) + 1);
	}
}

void tunnel_message_data(
	struct tunnel_stream *stream, const uint8_t *data, size_t len)
{
	struct tunnel_queue *body = &stream->body;

	if (body->len + len > TUNNEL_BODY_MAX ||
		tunnel_queue_append(body, data, len) < 0) {
		tunnel_stream_finish(stream, -EMSGSIZE);
		return;
	}
	if (stream->exchange && stream->exchange->stream_lines)
		deliver_lines(stream);
}

void tunnel_message_ended(struct tunnel_stream *stream)
{
	struct tunnel_exchange *exchange = stream->exchange;

	if (stream->head)
		deliver_request(stream);
	if (!exchange)
		return;
	stream->exchange = NULL;
	clear_deadline(stream);
	exchange->on_data(exchange->arg, stream->status,
		body_bytes(&stream->body), stream->body.len, true);
	free(exchange);
}

void tunnel_message_lost(struct tunnel_stream *stream)
{
	struct tunnel_exchange *exchange = stream->exchange;

	if (!exchange)
		return;
	stream->exchange = NULL;
	exchange->on_data(exchange->arg, 0, (const uint8_t *)"", 0, true);
	free(exchange);
}

/* Agent: the one answer to a request; what still comes in is not wanted. */
static void respond(
	struct tunnel_stream *stream, const struct head *head, bool has_body)
{
	if (stream->ended || stream->answered)
		return;
	stream->answered = true;
	stream->in_broken = true;
	stream->out_ended = !has_body;
	if (nghttp2_submit_response(stream->tunnel->session, stream->id,
		    head->fields, head->count,
		    has_body ? &tunnel_session_provider : NULL) < 0)
		tunnel_stream_finish(stream, -ENOMEM);
	tunnel_wake(stream->tunnel);
}

void tunnel_stream_reply(struct tunnel_stream *stream, int status,
	const char *content_type, const void *body, size_t len)
{
	struct head head;

	head.count = head.text_len = head.overflow = 0;
	head_add_number(&head, ":status", (unsigned long)status);
	head_add(&head, "content-type", content_type);
	head_add_number(&head, "content-length", len);
	stream->out_final = true;
	if (stream->ended)
		return;
	if (tunnel_queue_append(&stream->out, body, len) < 0) {
		tunnel_stream_finish(stream, -ENOMEM);
		return;
	}
	respond(stream, &head, len > 0);
}

void tunnel_stream_refuse(
	struct tunnel_stream *stream, int status, const char *reason)
{
	char text[TUNNEL_REASON_MAX];
	struct head head;

	snprintf(text, sizeof(text), "%s", reason);
	head.count = head.text_len = head.overflow = 0;
	head_add_number(&head, ":status", (unsigned long)status);
	head_add(&head, "peerway-reason", text);
	respond(stream, &head, false);
}

void tunnel_stream_reply_open(
	struct tunnel_stream *stream, const char *content_type)
{
	struct head head;

	head.count = head.text_len = head.overflow = 0;
	head_add(&head, ":status", "200");
	head_add(&head, "content-type", content_type);
	stream->pushing = true;
	respond(stream, &head, true);
}

int tunnel_stream_push(
	struct tunnel_stream *stream, const void *data, size_t len)
{
	if (stream->ended || !stream->pushing || stream->out_final)
		return -ENOTCONN;
	if (stream->out.len + len > TUNNEL_BODY_MAX ||
		tunnel_queue_append(&stream->out, data, len) < 0)
		return -ENOBUFS;
	tunnel_stream_resume(stream);
	return 0;
}
