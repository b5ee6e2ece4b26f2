/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See etcd_client.h. Owns the channel, the calls and the streams. What a
 * newcomer gets wrong: a write whose answer was lost may have been made, so it
 * is not made again but answered UNAVAILABLE. And a member that is left may
 * still carry out what it has been asked, when a leader has been elected: its
 * channel lives on until those calls have ended.
 */
#include <grpc/grpc_security.h>
#include <grpc/status.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "auth/etcd_client.h"
#include "etcd.pb-c.h"
#include "shared/alloc.h"
#include "shared/backoff.h"
#include "shared/file.h"
#include "shared/log.h"

#define PROBE_MS 1500
#define ELECTION_MS 3000 /* more than with etcd's defaults */
#define SWEEP_MS 250	 /* calls that have waited too long */
#define PAUSE_STEP_MS 200
#define PAUSE_MAX_MS 2000

/* One member's channel. */
struct member {
	LIST_ENTRY(member) entry;
	struct rpc_channel *channel;
	unsigned calls; /* under way on it */
	bool left;	/* for another: goes with the last call */
};

struct etcd_call {
	TAILQ_ENTRY(etcd_call) entry;
	struct etcd_client *client;
	const struct etcd_method *method;
	grpc_byte_buffer *request;
	etcd_done *done;
	void *arg;
	int64_t deadline;      /* loop_now() */
	struct member *member; /* that has been asked; NULL: none */
};

struct etcd_stream {
	LIST_ENTRY(etcd_stream) entry;
	struct rpc_client_call *call;
	void (*on_message)(void *arg, const ProtobufCMessage *message);
	void (*on_end)(void *arg, int status, const char *message);
	void *arg;
	bool closed;
};

struct etcd_client {
	struct loop *loop;
	struct rpc_cq *cq;
	const struct etcd_client_ops *ops;
	void *arg;

	char **endpoints;
	unsigned endpoint_count;
	unsigned current;
	char *ca_pem; /* NULL with tls: the system's */
	char *cert_pem;
	char *key_pem;
	bool tls;
	char *user;
	char *password;
	char *probe_key;

	struct member *member;	     /* NULL: between two attempts */
	LIST_HEAD(, member) members; /* that one, and those that were left */
	bool ready;
	bool ending;
	bool told; /* this outage has been logged */
	char *error;
	int64_t since;
	unsigned tried; /* members in a row that did not answer */
	struct backoff pause;
	struct timer *retry;
	struct timer *sweep;
	TAILQ_HEAD(, etcd_call) calls;
	LIST_HEAD(, etcd_stream) streams;
};

static const struct etcd_method authenticate = {
	"/etcdserverpb.Auth/Authenticate",
	&peerway__etcd__authenticate_response__descriptor, true, PROBE_MS};
static const struct etcd_method probe = {"/etcdserverpb.KV/Range",
	&peerway__etcd__range_response__descriptor, true, PROBE_MS};

static void try_next(void *arg);
static void on_sweep(void *arg);
static void call_send(struct etcd_call *call);

/* ---- what it takes ---- */

/* NULL when there is none, or with *error_out, which stays when it is set. */
static char *read_file(const char *path, char **error_out)
{
	return *path && !*error_out ? file_text(path, error_out) : NULL;
}

static char *first_line(char *text)
{
	if (text)
		text[strcspn(text, "\r\n")] = '\0';
	return text;
}

struct etcd_client *etcd_client_new(struct loop *loop, struct rpc_cq *cq,
	const struct etcd_options *options, const struct etcd_client_ops *ops,
	void *arg, char **error_out)
{
	struct etcd_client *client = xcalloc(1, sizeof(*client));

	*error_out = NULL;
	client->loop = loop;
	client->cq = cq;
	client->ops = ops;
	client->arg = arg;
	client->tls = options->tls;
	client->endpoint_count = options->endpoint_count;
	client->endpoints =
		xcalloc(options->endpoint_count, sizeof(*client->endpoints));
	for (unsigned i = 0; i < options->endpoint_count; i++)
		client->endpoints[i] = xstrdup(options->endpoints[i]);
	client->ca_pem = read_file(options->ca_file, error_out);
	client->cert_pem = read_file(options->cert_file, error_out);
	client->key_pem = read_file(options->key_file, error_out);
	client->user = xstrdup(options->user);
	client->password =
		first_line(read_file(options->password_file, error_out));
	client->probe_key = xstrdup(options->probe_key);
	client->error = xstrdup("no member of etcd has answered yet");
	client->since = loop_now(loop);
	client->pause = (struct backoff){PAUSE_STEP_MS, PAUSE_MAX_MS, 0};
	TAILQ_INIT(&client->calls);
	LIST_INIT(&client->streams);
	LIST_INIT(&client->members);
	client->retry = timer_new(loop, try_next, client);
	client->sweep = timer_new(loop, on_sweep, client);
	if (*error_out) {
		etcd_client_free(client);
		return NULL;
	}
	timer_set(client->retry, 0);
	return client;
}

static grpc_channel_credentials *creds(const struct etcd_client *client)
{
	grpc_ssl_pem_key_cert_pair pair = {client->key_pem, client->cert_pem};

	if (!client->tls)
		return grpc_insecure_credentials_create();
	return grpc_ssl_credentials_create_ex(
		client->ca_pem, client->cert_pem ? &pair : NULL, NULL, NULL);
}

/* ---- calls ---- */

static void call_finish(struct etcd_call *call, int status, const char *message,
	const ProtobufCMessage *response)
{
	TAILQ_REMOVE(&call->client->calls, call, entry);
	grpc_byte_buffer_destroy(call->request);
	call->done(call->arg, status, message, response);
	free(call);
}

/* The member's or the way's fault, not the question's. */
static bool is_away(int status)
{
	return status == GRPC_STATUS_UNAVAILABLE ||
	       status == GRPC_STATUS_DEADLINE_EXCEEDED ||
	       status == GRPC_STATUS_CANCELLED;
}

/* Refused without being carried out, for a reason that passes: the token has
 * run out, etcd's users have changed, there is no leader, nobody is there. */
static bool is_unheard(int status, const char *message)
{
	return status == GRPC_STATUS_UNAUTHENTICATED ||
	       strstr(message, "revision of auth store is old") ||
	       strstr(message, "etcdserver: no leader") ||
	       strstr(message, "failed to connect to all addresses");
}

static void member_free(struct member *member)
{
	LIST_REMOVE(member, entry);
	rpc_channel_free(member->channel);
	free(member);
}

static void member_let_go(struct etcd_client *client, struct member *member)
{
	if (member->left && member->calls == 0 && !client->ending)
		member_free(member);
}

static void on_answer(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct etcd_call *call = arg;
	struct etcd_client *client = call->client;
	struct member *member = call->member;
	bool unheard = status && is_unheard(status, message);

	call->member = NULL;
	if (client->ending || (!is_away(status) && !unheard)) {
		call_finish(call, status, message, response);
	} else {
		if (member == client->member)
			etcd_client_move(client, status, message);
		if (!unheard && !call->method->repeatable)
			call_finish(
				call, GRPC_STATUS_UNAVAILABLE, message, NULL);
		else if (client->ready)
			call_send(call);
	}
	member->calls--; /* until here it could not go */
	member_let_go(client, member);
}

static void call_send(struct etcd_call *call)
{
	int64_t left = call->deadline - loop_now(call->client->loop);

	if (left < 1)
		left = 1;
	if (call->method->repeatable && left > call->method->ms / 2)
		left = call->method->ms / 2;
	call->member = call->client->member;
	call->member->calls++;
	rpc_unary_packed(call->member->channel, call->method->path,
		call->request, call->method->response, (uint32_t)left,
		on_answer, call);
}

/* Calls that nobody could be asked. An election is waited for; when it has
 * taken longer than they do, nothing is worth waiting for. */
static void on_sweep(void *arg)
{
	struct etcd_client *client = arg;
	int64_t now = loop_now(client->loop);
	bool given_up = !client->ready && now - client->since >= ELECTION_MS;
	struct etcd_call *call;

	do { /* from the beginning: done() may do anything */
		TAILQ_FOREACH (call, &client->calls, entry)
			if (!call->member &&
				(given_up || now >= call->deadline))
				break;
		if (call)
			call_finish(call, GRPC_STATUS_UNAVAILABLE,
				client->error, NULL);
	} while (call);
	if (!TAILQ_EMPTY(&client->calls))
		timer_set(client->sweep, SWEEP_MS);
}

void etcd_call(struct etcd_client *client, const struct etcd_method *method,
	grpc_byte_buffer *request, etcd_done *done, void *arg)
{
	struct etcd_call *call = xcalloc(1, sizeof(*call));

	call->client = client;
	call->method = method;
	call->request = request;
	call->done = done;
	call->arg = arg;
	call->deadline = loop_now(client->loop) + method->ms;
	TAILQ_INSERT_TAIL(&client->calls, call, entry);
	if (client->ready)
		call_send(call);
	if (!timer_is_set(client->sweep))
		timer_set(client->sweep, SWEEP_MS);
}

/* ---- streams ---- */

static void on_stream_message(void *arg, const ProtobufCMessage *message)
{
	struct etcd_stream *stream = arg;

	if (!stream->closed)
		stream->on_message(stream->arg, message);
}

static void on_stream_end(void *arg, int status, const char *message)
{
	struct etcd_stream *stream = arg;

	LIST_REMOVE(stream, entry);
	if (!stream->closed)
		stream->on_end(stream->arg, status, message);
	free(stream);
}

struct etcd_stream *etcd_stream_open(struct etcd_client *client,
	const struct etcd_method *method, const ProtobufCMessage *request,
	void (*on_message)(void *arg, const ProtobufCMessage *message),
	void (*on_end)(void *arg, int status, const char *message), void *arg)
{
	struct etcd_stream *stream = xcalloc(1, sizeof(*stream));

	stream->on_message = on_message;
	stream->on_end = on_end;
	stream->arg = arg;
	LIST_INSERT_HEAD(&client->streams, stream, entry);
	stream->call = rpc_stream(client->member->channel, method->path,
		request, method->response, on_stream_message, on_stream_end,
		stream);
	return stream;
}

void etcd_stream_close(struct etcd_stream *stream)
{
	if (!stream || stream->closed)
		return;
	stream->closed = true;
	rpc_client_cancel(stream->call);
}

/* ---- members ---- */

static void set_error(struct etcd_client *client, char *error)
{
	free(client->error);
	client->error = error;
}

/* Its streams end; it goes with the last of its calls. */
static void leave_member(struct etcd_client *client)
{
	struct member *member = client->member;
	struct etcd_stream *stream;

	client->member = NULL;
	if (!member)
		return;
	do { /* from the beginning: on_end() may close another */
		LIST_FOREACH (stream, &client->streams, entry)
			if (!stream->closed)
				break;
		if (stream) {
			etcd_stream_close(stream);
			stream->on_end(stream->arg, GRPC_STATUS_CANCELLED,
				"its member was left");
		}
	} while (stream);
	member->left = true;
	member_let_go(client, member);
}

static void member_failed(
	struct etcd_client *client, int status, const char *message)
{
	bool was_ready = client->ready;
	int64_t delay = 0;

	set_error(client, xasprintf("etcd: %s endpoint=%s status=%d", message,
				  client->endpoints[client->current], status));
	if (was_ready || !client->told)
		log_warn("store is away: %s", client->error);
	else
		log_debug("store is away: %s", client->error);
	client->told = true;
	client->ready = false;
	if (was_ready)
		client->since = loop_now(client->loop);
	client->current = (client->current + 1) % client->endpoint_count;
	if (++client->tried >= client->endpoint_count) {
		client->tried = 0;
		delay = backoff_failed(&client->pause, arc4random());
	}
	timer_set(client->retry, delay);
	leave_member(client);
	if (was_ready)
		client->ops->on_away(client->arg);
}

void etcd_client_move(
	struct etcd_client *client, int status, const char *message)
{
	if (client->ready) /* or it has been left already */
		member_failed(client, status, message);
}

static void on_probed(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__RangeResponse *range = (const void *)response;
	struct etcd_client *client = arg;
	struct etcd_call *call;

	if (client->ending)
		return;
	if (status != GRPC_STATUS_OK || !range->header) {
		member_failed(client, status, message);
		return;
	}
	if (client->told)
		log_info("store answers: etcd endpoint=%s",
			client->endpoints[client->current]);
	client->ready = true;
	client->told = false;
	client->tried = 0;
	client->since = loop_now(client->loop);
	backoff_succeeded(&client->pause);
	set_error(client, xstrdup(""));
	client->ops->on_ready(client->arg, range->header->cluster_id,
		range->header->revision);
	TAILQ_FOREACH (call, &client->calls, entry)
		if (!call->member && client->ready)
			call_send(call);
}

static void send_probe(struct etcd_client *client)
{
	Peerway__Etcd__RangeRequest request =
		PEERWAY__ETCD__RANGE_REQUEST__INIT;

	request.key = (ProtobufCBinaryData){
		strlen(client->probe_key), (uint8_t *)client->probe_key};
	request.limit = 1;
	request.keys_only = true;
	rpc_unary(client->member->channel, probe.path, &request.base,
		probe.response, probe.ms, on_probed, client);
}

static void on_authenticated(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Etcd__AuthenticateResponse *answer =
		(const void *)response;
	struct etcd_client *client = arg;

	if (client->ending)
		return;
	if (status != GRPC_STATUS_OK) {
		member_failed(client, status, message);
		return;
	}
	rpc_channel_metadata(client->member->channel, "token", answer->token);
	send_probe(client);
}

static void try_next(void *arg)
{
	struct etcd_client *client = arg;
	Peerway__Etcd__AuthenticateRequest request =
		PEERWAY__ETCD__AUTHENTICATE_REQUEST__INIT;

	client->member = xcalloc(1, sizeof(*client->member));
	LIST_INSERT_HEAD(&client->members, client->member, entry);
	client->member->channel = rpc_channel_new(client->cq,
		client->endpoints[client->current], NULL, creds(client));
	/* a member without a leader says so at once */
	rpc_channel_metadata(client->member->channel, "hasleader", "true");
	if (!*client->user) {
		send_probe(client);
		return;
	}
	request.name = client->user;
	request.password = client->password ? client->password : (char *)"";
	rpc_unary(client->member->channel, authenticate.path, &request.base,
		authenticate.response, authenticate.ms, on_authenticated,
		client);
}

/* ---- the end, and what others ask ---- */

void etcd_client_free(struct etcd_client *client)
{
	struct etcd_call *call;
	struct member *member;

	if (!client)
		return;
	client->ending = true;
	client->ready = false;
	while ((member = LIST_FIRST(&client->members)))
		member_free(member);
	while ((call = TAILQ_FIRST(&client->calls)))
		call_finish(call, GRPC_STATUS_CANCELLED, "closed", NULL);
	timer_free(client->retry);
	timer_free(client->sweep);
	for (unsigned i = 0; i < client->endpoint_count; i++)
		free(client->endpoints[i]);
	free(client->endpoints);
	free(client->ca_pem);
	free(client->cert_pem);
	if (client->key_pem)
		wipe(client->key_pem, strlen(client->key_pem));
	free(client->key_pem);
	free(client->user);
	if (client->password)
		wipe(client->password, strlen(client->password));
	free(client->password);
	free(client->probe_key);
	free(client->error);
	free(client);
}

bool etcd_client_is_ready(const struct etcd_client *client)
{
	return client->ready;
}

const char *etcd_client_error(const struct etcd_client *client)
{
	return client->error;
}

const char *etcd_client_endpoint(const struct etcd_client *client)
{
	return client->endpoints[client->current];
}

int64_t etcd_client_since(const struct etcd_client *client)
{
	return client->since;
}
