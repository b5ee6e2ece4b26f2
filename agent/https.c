/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTPS exchange. Talks to connect.h for the connection and to chan.h for
 * its bytes; the answer is bounded by http.h.
 *
 * What one gets wrong: with TLS 1.3 the handshake is over for the client before
 * the server has looked at its certificate, so a refused certificate shows up
 * as a failed read.
 */
#include "agent/https.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/chan.h"
#include "shared/http.h"
#include "shared/tls.h"

struct https {
	struct loop *loop;
	https_fn *fn;
	void *arg;
	bool secret;

	/* what is pending; NULL = not pending */
	struct connect *connect;
	struct chan *chan;
	struct timer *deadline;

	char *request;
	size_t len;
	size_t sent;
	struct http_message *answer;
	struct https_result result;
};

void https_free(struct https *https)
{
	if (!https)
		return;
	connect_free(https->connect);
	chan_free(https->chan);
	timer_free(https->deadline);
	if (https->secret)
		wipe(https->request, https->len);
	free(https->request);
	http_message_free(https->answer);
	loop_free_later(https->loop, free, https);
}

static void finish(struct https *https)
{
	/* The body is the message's: free it after the call. */
	struct http_message *answer = https->answer;
	struct https_result result = https->result;

	https->answer = NULL;
	https_free(https);
	https->fn(https->arg, &result);
	http_message_free(answer);
}

static void finish_failed(struct https *https, const char *why)
{
	https->result.status = 0;
	snprintf(https->result.why, sizeof(https->result.why), "%s", why);
	finish(https);
}

static void finish_answered(struct https *https)
{
	size_t len;

	https->result.status = http_status(https->answer);
	https->result.body = (const char *)http_body(https->answer, &len);
	https->result.len = len;
	if (!https->result.body)
		https->result.body = "";
	finish(https);
}

static void finish_broken(struct https *https, int error)
{
	char text[256];

	tls_error_text(text, sizeof(text));
	finish_failed(https,
		text[0] ? text : (error ? strerror(-error) : "hung up early"));
}

/* False when the exchange has ended. */
static bool send_rest(struct https *https)
{
	while (https->sent < https->len) {
		ssize_t n = chan_write(https->chan,
			https->request + https->sent, https->len - https->sent);

		if (n == -EAGAIN)
			return true;
		if (n < 0) {
			finish_broken(https, n);
			return false;
		}
		https->sent += n;
	}
	return true;
}

static void on_ready(void *arg)
{
	struct https *https = arg;
	enum http_result result = HTTP_MORE;
	char buf[4096];
	size_t used;
	ssize_t n;

	if (!send_rest(https))
		return;
	while (result == HTTP_MORE) {
		n = chan_read(https->chan, buf, sizeof(buf));
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			finish_broken(https, n);
			return;
		}
		result = n ? http_feed(https->answer, buf, n, &used)
			   : http_end(https->answer);
	}
	wipe(buf, sizeof(buf));
	if (result == HTTP_DONE)
		finish_answered(https);
	else if (result == HTTP_TOO_LARGE)
		finish_failed(https, "the answer is too large");
	else
		finish_failed(https, "the answer is not HTTP");
}

static void on_deadline(void *arg)
{
	finish_failed(arg, "no answer in time");
}

static void on_connected(void *arg, const struct connect_result *result)
{
	struct https *https = arg;

	https->connect = NULL;
	if (result->fd < 0) {
		https->result.failure = result->failure;
		finish_failed(https, result->why);
		return;
	}
	https->result.connected = true;
	https->result.proxy = result->proxy;
	https->chan = chan_new_tls(https->loop, result->fd, result->ssl);
	timer_set(https->deadline, HTTPS_WHOLE_MS);
	chan_watch(https->chan, on_ready, https);
}

static char *format_request(
	const struct https_request *request, size_t *len_out)
{
	size_t body_len = request->body ? strlen(request->body) : 0;
	char name[IDENTITY_SERVER_NAME_MAX];
	char *text;

	identity_server_name(request->to.cluster, name);
	if (request->body)
		text = xasprintf("%s %s HTTP/1.1\r\nHost: %s\r\n"
				 "Content-Type: %s\r\nContent-Length: %zu\r\n"
				 "Connection: close\r\n\r\n%s",
			request->method, request->path, name,
			request->content_type, body_len, request->body);
	else
		text = xasprintf("%s %s HTTP/1.1\r\nHost: %s\r\n"
				 "Connection: close\r\n\r\n",
			request->method, request->path, name);
	*len_out = strlen(text);
	return text;
}

struct https *https_new(struct loop *loop, struct resolver *resolver,
	const struct https_request *request, https_fn *fn, void *arg)
{
	struct https *https = xcalloc(1, sizeof(*https));
	struct connect_request to = request->to;

	https->loop = loop;
	https->fn = fn;
	https->arg = arg;
	https->secret = request->secret;
	https->request = format_request(request, &https->len);
	https->answer = http_message_new(HTTP_RESPONSE_MESSAGE, true);
	https->deadline = timer_new(loop, on_deadline, https);
	to.alpn = TLS_ALPN_AGENT;
	to.is_wanted = NULL;
	https->connect = connect_new(loop, resolver, &to, on_connected, https);
	return https;
}
