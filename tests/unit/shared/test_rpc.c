/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client, server and credentials against each other over loopback, in one
 * process: roles, servers that are not the one meant, a new identity, late
 * answers, silent callers, streams whose reader leaves, the end of either side.
 */
#include "tests/unit/test.h"

#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "auth.pb-c.h"
#include "shared/alloc.h"
#include "shared/pki.h"
#include "shared/rpc.h"
#include "tests/unit/host_ca.h"

#define UUID "12345678-9abc-4def-8123-456789abcdef"
#define LOOKUP "/peerway.auth.AuthService/Lookup"
#define WATCH "/peerway.auth.AuthService/Watch"
#define JOIN "/peerway.auth.AuthService/Join"

struct fixture {
	struct loop *loop;
	struct rpc_cq *cq;
	struct ca ca;
	struct ca stranger;
	struct rpc_identity *server_holder;
	struct rpc_server *server;
	bool stopped;

	/* the client's side */
	struct rpc_identity *holder;
	struct rpc_channel *channel;
	int status; /* -1: not yet */
	char message[200];
	char refused[100];
	uint64_t revision;
	unsigned received;

	/* the server's side */
	struct rpc_server_call *open; /* a stream, or an unanswered call */
	unsigned handled;
	struct host_identity caller;
	bool gone;
	bool drained;
};

/* ---- identities ---- */

static struct rpc_identity *holder_make(
	struct ca *ca, const char *role, const char *uuid)
{
	struct tls_identity *identity = ca_identity(ca, role, uuid);
	struct rpc_identity *holder = rpc_identity_new(identity);

	tls_identity_unref(identity);
	return holder;
}

/* ---- the server ---- */

static void on_server_drain(void *arg, bool gone)
{
	struct fixture *f = arg;

	f->gone |= gone;
	f->drained |= !gone;
}

static void handle_lookup(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *request)
{
	const Peerway__Auth__LookupRequest *ask = (const void *)request;
	Peerway__Auth__LookupResponse answer =
		PEERWAY__AUTH__LOOKUP_RESPONSE__INIT;
	struct fixture *f = arg;

	f->handled++;
	f->caller = *caller;
	if (strcmp(ask->agent_id, "silence") == 0) {
		f->open = call;
		return;
	}
	if (strcmp(ask->agent_id, "nobody") == 0) {
		rpc_fail(call, GRPC_STATUS_NOT_FOUND, "no %s", ask->agent_id);
		return;
	}
	answer.revision = 42;
	rpc_reply(call, &answer.base);
}

static void handle_watch(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *request)
{
	struct fixture *f = arg;

	f->handled++;
	f->open = call;
	rpc_on_drain(call, 1000, on_server_drain, f);
}

static const struct rpc_method methods[] = {
	{LOOKUP, &peerway__auth__lookup_request__descriptor, IDENTITY_PROXY,
		handle_lookup},
	{WATCH, &peerway__auth__watch_request__descriptor, IDENTITY_PROXY,
		handle_watch},
	{JOIN, &peerway__auth__lookup_request__descriptor, 0, handle_lookup},
	{NULL, NULL, 0, NULL},
};

static void push(struct fixture *f, uint64_t revision, size_t filler)
{
	Peerway__Auth__WatchResponse message =
		PEERWAY__AUTH__WATCH_RESPONSE__INIT;
	char *text = xcalloc(1, filler + 1);

	memset(text, 'x', filler);
	message.store_id = text;
	message.revision = revision;
	assert_true(rpc_push(f->open, &message.base) >= 0);
	free(text);
}

/* ---- the client ---- */

static void on_refused(void *arg, const char *why)
{
	struct fixture *f = arg;

	snprintf(f->refused, sizeof(f->refused), "%s", why);
}

static void on_end(void *arg, int status, const char *message)
{
	struct fixture *f = arg;

	assert_int_equal(f->status, -1);
	f->status = status;
	snprintf(f->message, sizeof(f->message), "%s", message);
}

static void on_answer(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Auth__LookupResponse *answer = (const void *)response;
	struct fixture *f = arg;

	on_end(arg, status, message);
	assert_int_equal(status == 0, response != NULL);
	if (answer)
		f->revision = answer->revision;
}

static void on_watched(void *arg, const ProtobufCMessage *message)
{
	const Peerway__Auth__WatchResponse *response = (const void *)message;
	struct fixture *f = arg;

	assert_int_equal(response->revision, f->revision + 1);
	f->revision = response->revision;
	f->received++;
}

/* Turns until *flag, at most 10 s. */
#define UNTIL(f, condition)                                     \
	do {                                                    \
		int64_t end = loop_now((f)->loop) + 10000;      \
		while (!(condition)) {                          \
			assert_true(loop_now((f)->loop) < end); \
			turn(f);                                \
		}                                               \
	} while (0)

static void nothing(void *arg)
{
}

static void turn(struct fixture *f)
{
	struct timer *timer = timer_new(f->loop, nothing, NULL);

	timer_set(timer, 20);
	loop_turn(f->loop, true);
	timer_free(timer);
}

/* Connects as role of ca, expecting a server of the role and uuid. */
static void dial(struct fixture *f, struct ca *ca, const char *role,
	unsigned expect, const char *expect_uuid)
{
	char name[IDENTITY_SERVER_NAME_MAX];
	char address[40];

	rpc_channel_free(f->channel);
	rpc_identity_free(f->holder);
	f->holder = holder_make(ca, role, UUID);
	identity_server_name(CLUSTER, name);
	snprintf(address, sizeof(address), "127.0.0.1:%d",
		rpc_server_port(f->server));
	f->channel = rpc_channel_new(f->cq, address, name,
		rpc_channel_creds(f->holder, CLUSTER, expect, expect_uuid,
			on_refused, f));
}

static int ask(struct fixture *f, const char *method, const char *agent_id)
{
	Peerway__Auth__LookupRequest request =
		PEERWAY__AUTH__LOOKUP_REQUEST__INIT;

	request.agent_id = (char *)agent_id;
	f->status = -1;
	rpc_unary(f->channel, method, &request.base,
		&peerway__auth__lookup_response__descriptor, 8000, on_answer,
		f);
	UNTIL(f, f->status >= 0);
	return f->status;
}

static struct rpc_client_call *watch(struct fixture *f)
{
	Peerway__Auth__WatchRequest request =
		PEERWAY__AUTH__WATCH_REQUEST__INIT;
	struct rpc_client_call *call;

	f->status = -1;
	call = rpc_stream(f->channel, WATCH, &request.base,
		&peerway__auth__watch_response__descriptor, on_watched, on_end,
		f);
	UNTIL(f, f->open);
	return call;
}

static void on_stopped(void *arg)
{
	struct fixture *f = arg;

	f->stopped = true;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char *error = NULL;

	f->loop = loop_new();
	rpc_require_tls13();
	f->cq = rpc_cq_new(f->loop, 1);
	f->ca = ca_make();
	f->stranger = ca_make();
	f->server_holder = holder_make(&f->ca, "Auth", UUID);
	f->server = rpc_server_new(f->cq, "127.0.0.1:0",
		rpc_server_creds(f->server_holder, false), CLUSTER, methods, f,
		&error);
	assert_non_null(f->server);
	dial(f, &f->ca, "Proxy", IDENTITY_AUTH, NULL);
	*state = f;
	return 0;
}

static void stop(struct fixture *f)
{
	if (!f->stopped)
		rpc_server_stop(f->server, 0, on_stopped, f);
	UNTIL(f, f->stopped);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rpc_channel_free(f->channel);
	stop(f);
	rpc_cq_free(f->cq);
	rpc_identity_free(f->holder);
	rpc_identity_free(f->server_holder);
	ca_free(&f->ca);
	ca_free(&f->stranger);
	loop_free(f->loop);
	free(f);
	return 0;
}

/* ---- tests ---- */

static void a_call_is_answered_and_its_caller_known(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
	assert_int_equal(f->revision, 42);
	assert_int_equal(f->caller.roles, IDENTITY_PROXY);
	assert_string_equal(f->caller.uuid, UUID);
}

static void a_refusal_carries_status_and_text(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, LOOKUP, "nobody"), GRPC_STATUS_NOT_FOUND);
	assert_string_equal(f->message, "no nobody");
}

static void another_role_is_refused_before_the_handler(void **state)
{
	struct fixture *f = *state;

	dial(f, &f->ca, "Node", IDENTITY_AUTH, NULL);
	assert_int_equal(
		ask(f, LOOKUP, "agent"), GRPC_STATUS_PERMISSION_DENIED);
	assert_int_equal(f->handled, 0);
	/* the connection serves what the role may call */
	assert_int_equal(ask(f, JOIN, "agent"), GRPC_STATUS_OK);
}

static void a_certificate_of_another_ca_gets_no_connection(void **state)
{
	struct fixture *f = *state;

	dial(f, &f->stranger, "Proxy", IDENTITY_AUTH, NULL);
	assert_int_equal(ask(f, JOIN, "agent"), GRPC_STATUS_UNAVAILABLE);
	assert_int_equal(f->handled, 0);
}

static void an_unknown_method_is_unimplemented(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, "/peerway.auth.AuthService/Guess", "x"),
		GRPC_STATUS_UNIMPLEMENTED);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
}

static void a_server_of_another_role_or_name_is_refused(void **state)
{
	struct fixture *f = *state;

	dial(f, &f->ca, "Proxy", IDENTITY_PROXY, NULL);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_UNAVAILABLE);
	assert_string_equal(f->refused, "proxy system role required");
	dial(f, &f->ca, "Proxy", IDENTITY_AUTH,
		"00000000-9abc-4def-8123-456789abcdef");
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_UNAVAILABLE);
	assert_string_equal(f->refused, "connected to unexpected proxy");
	dial(f, &f->ca, "Proxy", IDENTITY_AUTH, UUID);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
}

static void a_new_identity_serves_new_connections(void **state)
{
	struct fixture *f = *state;
	struct tls_identity *next = ca_identity(
		&f->ca, "Auth", "22222222-9abc-4def-8123-456789abcdef");

	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
	rpc_identity_replace(f->server_holder, next);
	tls_identity_unref(next);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
	dial(f, &f->ca, "Proxy", IDENTITY_AUTH,
		"22222222-9abc-4def-8123-456789abcdef");
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
}

static void a_stream_arrives_in_order_and_ends(void **state)
{
	struct fixture *f = *state;

	watch(f);
	for (uint64_t i = 1; i <= 100; i++)
		push(f, i, 10000);
	UNTIL(f, f->drained);
	push(f, 101, 10000);
	rpc_fail(f->open, GRPC_STATUS_OK, "%s", "");
	UNTIL(f, f->status >= 0);
	assert_int_equal(f->status, GRPC_STATUS_OK);
	assert_int_equal(f->received, 101);
	assert_false(f->gone);
}

static void a_cancelled_stream_tells_the_server(void **state)
{
	struct fixture *f = *state;
	struct rpc_client_call *call = watch(f);

	push(f, 1, 10);
	UNTIL(f, f->received == 1);
	rpc_client_cancel(call);
	UNTIL(f, f->status >= 0 && f->gone);
	assert_int_equal(f->status, GRPC_STATUS_CANCELLED);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
}

static void a_freed_channel_ends_its_calls_at_once(void **state)
{
	struct fixture *f = *state;

	watch(f);
	rpc_channel_free(f->channel);
	f->channel = NULL;
	assert_int_equal(f->status, GRPC_STATUS_CANCELLED);
	UNTIL(f, f->gone);
}

static void a_late_answer_to_a_caller_who_left_is_harmless(void **state)
{
	struct fixture *f = *state;
	Peerway__Auth__LookupRequest request =
		PEERWAY__AUTH__LOOKUP_REQUEST__INIT;
	Peerway__Auth__LookupResponse answer =
		PEERWAY__AUTH__LOOKUP_RESPONSE__INIT;

	request.agent_id = (char *)"silence";
	f->status = -1;
	rpc_unary(f->channel, LOOKUP, &request.base,
		&peerway__auth__lookup_response__descriptor, 300, on_answer, f);
	UNTIL(f, f->status >= 0);
	assert_int_equal(f->status, GRPC_STATUS_DEADLINE_EXCEEDED);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
	rpc_reply(f->open, &answer.base);
}

static void a_stopped_server_ends_its_streams(void **state)
{
	struct fixture *f = *state;

	watch(f);
	stop(f);
	UNTIL(f, f->status >= 0);
	assert_int_equal(f->status, GRPC_STATUS_UNAVAILABLE);
	assert_true(f->gone);
}

/* A call of which the server hears the headers and nothing more. */
struct silent {
	struct rpc_tag start_tag;
	struct rpc_tag status_tag;
	grpc_metadata_array initial;
	grpc_metadata_array trailing;
	grpc_status_code status;
	grpc_slice details;
	unsigned ended;
};

static void on_silent_start(struct rpc_tag *tag, bool ok)
{
	((struct silent *)((char *)tag - offsetof(struct silent, start_tag)))
		->ended++;
}

static void on_silent_status(struct rpc_tag *tag, bool ok)
{
	((struct silent *)((char *)tag - offsetof(struct silent, status_tag)))
		->ended++;
}

static grpc_channel *raw_channel(struct fixture *f)
{
	char name[IDENTITY_SERVER_NAME_MAX];
	grpc_arg arg = {.type = GRPC_ARG_STRING,
		.key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
		.value.string = name};
	grpc_channel_args args = {.num_args = 1, .args = &arg};
	grpc_channel_credentials *creds = rpc_channel_creds(
		f->holder, CLUSTER, IDENTITY_AUTH, NULL, on_refused, f);
	grpc_channel *channel;
	char address[40];

	identity_server_name(CLUSTER, name);
	snprintf(address, sizeof(address), "127.0.0.1:%d",
		rpc_server_port(f->server));
	channel = grpc_channel_create(address, creds, &args);
	grpc_channel_credentials_release(creds);
	return channel;
}

/* The status with which the server ends it; its duration in *ms_out. */
static grpc_status_code call_silently(struct fixture *f, int64_t *ms_out)
{
	struct silent silent = {.details = grpc_empty_slice(),
		.start_tag.run = on_silent_start,
		.status_tag.run = on_silent_status};
	grpc_op start[] = {
		{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_RECV_INITIAL_METADATA,
			.data.recv_initial_metadata.recv_initial_metadata =
				&silent.initial},
	};
	grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
		.data.recv_status_on_client = {&silent.trailing, &silent.status,
			&silent.details, NULL}};
	grpc_channel *channel = raw_channel(f);
	grpc_call *call = grpc_channel_create_call(channel, NULL, 0,
		rpc_cq_queue(f->cq), grpc_slice_from_static_string(LOOKUP),
		NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	int64_t begin = loop_now(f->loop);

	grpc_metadata_array_init(&silent.initial);
	grpc_metadata_array_init(&silent.trailing);
	grpc_call_start_batch(call, start, 2, &silent.start_tag, NULL);
	grpc_call_start_batch(call, &status, 1, &silent.status_tag, NULL);
	UNTIL(f, silent.ended == 2);
	*ms_out = loop_now(f->loop) - begin;
	grpc_metadata_array_destroy(&silent.initial);
	grpc_metadata_array_destroy(&silent.trailing);
	grpc_slice_unref(silent.details);
	grpc_call_unref(call);
	grpc_channel_destroy(channel);
	return silent.status;
}

static void a_caller_without_the_role_is_refused_on_its_headers(void **state)
{
	struct fixture *f = *state;
	int64_t ms;

	dial(f, &f->ca, "Node", IDENTITY_AUTH, NULL);
	assert_int_equal(call_silently(f, &ms), GRPC_STATUS_PERMISSION_DENIED);
	assert_true(ms < 4000);
}

static void a_caller_who_says_nothing_is_ended_after_5_s(void **state)
{
	struct fixture *f = *state;
	int64_t ms;

	assert_int_equal(call_silently(f, &ms), GRPC_STATUS_DEADLINE_EXCEEDED);
	assert_true(ms >= 4900);
	assert_int_equal(f->handled, 0);
	assert_int_equal(ask(f, LOOKUP, "agent"), GRPC_STATUS_OK);
}

static void a_stream_that_is_not_read_can_be_failed(void **state)
{
	struct fixture *f = *state;

	watch(f);
	f->revision = UINT64_MAX; /* on_watched() counts from 0 */
	for (uint64_t i = 0; i < 40; i++)
		push(f, i, 1 << 20);
	rpc_fail(f->open, GRPC_STATUS_RESOURCE_EXHAUSTED, "too slow");
	UNTIL(f, f->status >= 0);
	assert_int_equal(f->status, GRPC_STATUS_RESOURCE_EXHAUSTED);
	assert_string_equal(f->message, "too slow");
	assert_true(f->received < 40);
	assert_false(f->gone); /* the handler has let go of it */
}

static void a_port_in_use_is_an_error(void **state)
{
	struct fixture *f = *state;
	char address[40];
	char *error = NULL;

	snprintf(address, sizeof(address), "127.0.0.1:%d",
		rpc_server_port(f->server));
	assert_null(rpc_server_new(f->cq, address,
		rpc_server_creds(f->server_holder, false), CLUSTER, methods, f,
		&error));
	assert_non_null(strstr(error, address));
	free(error);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_call_is_answered_and_its_caller_known),
		TEST(a_refusal_carries_status_and_text),
		TEST(another_role_is_refused_before_the_handler),
		TEST(a_certificate_of_another_ca_gets_no_connection),
		TEST(an_unknown_method_is_unimplemented),
		TEST(a_server_of_another_role_or_name_is_refused),
		TEST(a_new_identity_serves_new_connections),
		TEST(a_stream_arrives_in_order_and_ends),
		TEST(a_cancelled_stream_tells_the_server),
		TEST(a_freed_channel_ends_its_calls_at_once),
		TEST(a_late_answer_to_a_caller_who_left_is_harmless),
		TEST(a_stopped_server_ends_its_streams),
		TEST(a_caller_without_the_role_is_refused_on_its_headers),
		TEST(a_caller_who_says_nothing_is_ended_after_5_s),
		TEST(a_stream_that_is_not_read_can_be_failed),
		TEST(a_port_in_use_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
