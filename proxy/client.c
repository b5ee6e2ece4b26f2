/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a client connection; what its request wants is served by web.c
 * and connect.c. Owns the channel until it is joined.
 *
 * What a newcomer gets wrong: a client that has sent its request and FIN is not
 * gone, it only has no more to say (`printf ... | nc`); only an error is an
 * abort. So end of file during a dial ends nothing and is met again, and
 * carried over, by the session.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/answer.h"
#include "proxy/client.h"
#include "proxy/connect.h"
#include "proxy/dial.h"
#include "proxy/join.h"
#include "proxy/listener.h"
#include "proxy/web.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/relay.h"

#define REQUEST_MAX (HTTP_HEAD_MAX + JOIN_BODY_MAX)
#define CLOSING_MS 2000

#define BIT(n) (1u << (n))
static const unsigned next_states[] = {
	[CLIENT_HEAD] = BIT(CLIENT_ASKING) | BIT(CLIENT_DIALING) |
			BIT(CLIENT_ANSWERING) | BIT(CLIENT_DEAD),
	[CLIENT_ASKING] = BIT(CLIENT_ANSWERING) | BIT(CLIENT_DEAD),
	[CLIENT_DIALING] = BIT(CLIENT_ANSWERING) | BIT(CLIENT_DEAD),
	[CLIENT_ANSWERING] =
		BIT(CLIENT_CLOSING) | BIT(CLIENT_RELAYING) | BIT(CLIENT_DEAD),
	[CLIENT_CLOSING] = BIT(CLIENT_DEAD),
	[CLIENT_RELAYING] = BIT(CLIENT_DEAD),
	[CLIENT_DEAD] = 0,
};

static void set_state(struct client *client, enum client_state state)
{
	assert(next_states[client->state] & BIT(state));
	client->state = state;
}

static void free_client(void *arg)
{
	struct client *client = arg;

	timer_free(client->deadline);
	http_message_free(client->request);
	session_deinit(&client->session);
	free(client->user);
	free(client->first);
	free(client->out);
	free(client);
}

void client_drop(struct client *client, enum client_end end, const char *why)
{
	struct worker *worker = client->worker;
	uint64_t sent, received;

	if (client->state == CLIENT_DEAD)
		return;
	if (client->state != CLIENT_RELAYING)
		log_debug("client ended: %s source=%s ms=%lld", why,
			client->source,
			(long long)(loop_now(worker->loop) - client->started));
	if (client->state == CLIENT_RELAYING && client->dial) {
		dial_counts(client->dial, &sent, &received);
		session_log_end(&client->session, "session ended",
			loop_now(worker->loop), -ECANCELED, sent, received);
		worker_session_ends(worker, sent, received);
	}
	set_state(client, CLIENT_DEAD);
	metric_add(&worker->metrics, PROXY_END_DONE + (int)end, 1);
	TAILQ_REMOVE(&worker->clients, client, entry);
	worker->client_count--;
	timer_clear(client->deadline);
	if (client->dial)
		dial_cancel(client->dial);
	client->dial = NULL;
	chan_free(client->chan);
	client->chan = NULL;
	loop_free_later(worker->loop, free_client, client);
	listener_resume_all(worker);
}

static void on_deadline(void *arg)
{
	client_drop(arg, CLIENT_TIMED_OUT, "timed out");
}

/* --- reading the request --- */

static void dispatch(struct client *client)
{
	if (strcmp(http_method(client->request), "CONNECT") == 0)
		connect_serve(client);
	else
		web_serve(client);
}

/* Keeps what followed the head of CONNECT; at most RELAY_BUFFER bytes. */
static void keep(struct client *client, const uint8_t *data, size_t len)
{
	if (!len)
		return;
	client->first = xrealloc(client->first, client->first_len + len);
	memcpy(client->first + client->first_len, data, len);
	client->first_len += len;
}

static void feed(struct client *client, const uint8_t *data, size_t len)
{
	size_t used = 0;
	enum http_result result = http_feed(client->request, data, len, &used);

	client->request_len += used;
	switch (result) {
	case HTTP_MORE:
		if (client->request_len > REQUEST_MAX)
			client_refuse(client, 413, "the request is too large");
		break;
	case HTTP_DONE:
		keep(client, data + used, len - used);
		timer_clear(client->deadline);
		dispatch(client);
		break;
	case HTTP_INVALID:
		client_refuse(client, 400, "not an HTTP/1.1 request");
		break;
	case HTTP_TOO_LARGE:
		client_refuse(client, 431, "the request is too large");
		break;
	}
}

static void gone(struct client *client, ssize_t n)
{
	client_drop(client, CLIENT_GONE,
		n ? strerror((int)-n) : "closed before its request");
}

static void read_head(struct client *client)
{
	uint8_t buf[HTTP_HEAD_MAX];

	while (client->state == CLIENT_HEAD) {
		ssize_t n = chan_read(client->chan, buf, sizeof(buf));

		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			gone(client, n);
			return;
		}
		feed(client, buf, (size_t)n);
		wipe(buf, (size_t)n); /* a join carries a token */
	}
}

/* Bytes that come before the answer are kept, so that an abort is noticed. */
static void read_ahead(struct client *client)
{
	uint8_t buf[16384];

	while (client->first_len + sizeof(buf) <= RELAY_BUFFER) {
		ssize_t n = chan_read(client->chan, buf, sizeof(buf));

		if (n == -EAGAIN || n == 0)
			return;
		if (n < 0) {
			gone(client, n);
			return;
		}
		keep(client, buf, (size_t)n);
	}
}

/* --- answering --- */

static void begin_session(struct client *client)
{
	struct chan *chan = client->chan;

	set_state(client, CLIENT_RELAYING);
	timer_clear(client->deadline);
	client->chan = NULL;
	worker_session_begins(client->worker);
	dial_join(client->dial, chan, client->first, client->first_len);
	free(client->first);
	client->first = NULL;
	free(client->out);
	client->out = NULL;
	http_message_free(client->request);
	client->request = NULL;
}

static void drain_input(struct client *client)
{
	uint8_t buf[4096];
	ssize_t n;

	while ((n = chan_read(client->chan, buf, sizeof(buf))) > 0)
		;
	if (n != -EAGAIN)
		client_drop(client, CLIENT_ANSWERED, "answered");
}

static void send_answer(struct client *client)
{
	int ret;

	while (client->out_sent < client->out_len) {
		ssize_t n =
			chan_write(client->chan, client->out + client->out_sent,
				client->out_len - client->out_sent);

		if (n == -EAGAIN)
			return;
		if (n < 0) {
			gone(client, n);
			return;
		}
		client->out_sent += (size_t)n;
	}
	if (client->joins) {
		begin_session(client);
		return;
	}
	ret = chan_shutdown(client->chan);
	if (ret == -EAGAIN)
		return;
	/* Closing with unread input would make the kernel send RST, which can
	 * destroy the answer on its way. */
	set_state(client, CLIENT_CLOSING);
	timer_set(client->deadline, CLOSING_MS);
	drain_input(client);
}

void client_answer(struct client *client, char *head_and_body, bool joins)
{
	set_state(client, CLIENT_ANSWERING);
	timer_set(client->deadline,
		client->worker->conf->proxy.handshake_timeout);
	client->out = head_and_body;
	client->out_len = strlen(head_and_body);
	client->joins = joins;
	send_answer(client);
}

void client_refuse(struct client *client, int status, const char *format, ...)
{
	char *reason, *body;
	va_list ap;

	va_start(ap, format);
	reason = xvasprintf(format, ap);
	va_end(ap);
	log_limited(LOG_INFO, "client refused: %s status=%d source=%s user=%s",
		reason, status, client->source,
		client->user ? client->user->name : "-");
	body = xasprintf("%s\n", reason);
	client_answer(client, answer_text(status, "text/plain", body), false);
	free(body);
	free(reason);
}

void client_ask(struct client *client, uint64_t id)
{
	set_state(client, CLIENT_ASKING);
	client->asked_id = id;
	timer_set(client->deadline, client->worker->conf->proxy.dial_timeout);
}

struct client *client_asking(struct worker *worker, uint64_t id)
{
	struct client *client;

	TAILQ_FOREACH (client, &worker->clients, entry) {
		if (client->state == CLIENT_ASKING &&
			(!id || client->asked_id == id))
			return client;
	}
	return NULL;
}

void client_dial(struct client *client, struct dial *dial)
{
	set_state(client, CLIENT_DIALING);
	client->dial = dial;
}

/* --- */

static void on_ready(void *arg)
{
	static void (*const handlers[])(struct client *) = {
		[CLIENT_HEAD] = read_head,
		[CLIENT_ASKING] = read_ahead,
		[CLIENT_DIALING] = read_ahead,
		[CLIENT_ANSWERING] = send_answer,
		[CLIENT_CLOSING] = drain_input,
		[CLIENT_RELAYING] = NULL,
		[CLIENT_DEAD] = NULL,
	};
	struct client *client = arg;

	if (handlers[client->state])
		handlers[client->state](client);
}

static void identify(struct client *client, SSL *ssl)
{
	X509 *leaf = trust_leaf(ssl);

	if (client->kind != TRUST_USER || !leaf)
		return;
	client->user = xcalloc(1, sizeof(*client->user));
	if (identity_of_user(leaf, client->user, &client->user_error)) {
		free(client->user);
		client->user = NULL;
	}
}

void client_start(struct worker *worker, struct chan *chan,
	enum trust_kind kind, const char *source)
{
	struct client *client = xcalloc(1, sizeof(*client));

	client->worker = worker;
	client->state = CLIENT_HEAD;
	client->kind = kind;
	client->started = loop_now(worker->loop);
	snprintf(client->source, sizeof(client->source), "%s", source);
	identify(client, chan_ssl(chan));
	client->chan = chan;
	client->request = http_message_new(HTTP_REQUEST_MESSAGE, true);
	client->deadline = timer_new(worker->loop, on_deadline, client);
	timer_set(client->deadline, worker->conf->proxy.handshake_timeout);
	TAILQ_INSERT_TAIL(&worker->clients, client, entry);
	worker->client_count++;
	chan_watch(client->chan, on_ready, client);
}

void client_drop_all(struct worker *worker)
{
	struct client *client;

	while ((client = TAILQ_FIRST(&worker->clients)))
		client_drop(client, CLIENT_SHUTDOWN, "shutting down");
}
