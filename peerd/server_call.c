/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of a peer, from its headers to its end: see server.h for the states.
 * Owns the call until it is joined with a stream and again after that has
 * ended; the switchboard decides where a dial goes and answers by id.
 *
 * A newcomer's trap: a call object is freed only when all its batches are back,
 * RECV_CLOSE among them, whatever else has happened to it.
 */
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peerd/idmap.h"
#include "peerd/message.h"
#include "peerd/meters.h"
#include "peerd/server_private.h"
#include "peerd/trace_report.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define CALL_OF(tag, field) \
	((struct call *)((char *)(tag)-offsetof(struct call, field)))

/* ---- the end of a call ---- */

static void call_free(struct call *call)
{
	struct server *server = call->server;

	grpc_metadata_array_destroy(&call->metadata);
	if (call->method == METHOD_UNKNOWN)
		grpc_call_details_destroy(&call->details);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	if (call->call)
		grpc_call_unref(call->call);
	rpc_span_end(&call->span,
		call->cancelled ? GRPC_STATUS_CANCELLED : call->status);
	if (call->id)
		idmap_remove(server->calls, call->id);
	if (call->fd >= 0)
		close(call->fd);
	credit_end(&call->credit, &server->peerd->hub.credit);
	timer_free(call->first_frame);
	free(call->called);
	loop_free_later(server->peerd->loop, free, call);
	server_forget(server);
}

void server_call_settle(struct call *call)
{
	if (call->pending == 0 && !call->stream &&
		(call->closed || !call->call))
		call_free(call);
}

static void start(struct call *call, const grpc_op *ops, size_t count,
	struct rpc_tag *tag)
{
	grpc_call_error error =
		grpc_call_start_batch(call->call, ops, count, tag, NULL);

	assert(error == GRPC_CALL_OK);
	(void)error;
	call->pending++;
}

/* The last word. reason may be NULL. */
static void end_call(struct call *call, grpc_status_code status,
	const char *reason, const char *text)
{
	grpc_slice details = grpc_slice_from_copied_string(text);
	grpc_metadata trailer;
	grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};

	call->state = CALL_ENDING;
	call->status = status;
	if (call->first_frame)
		timer_clear(call->first_frame);
	ops[1].data.send_status_from_server.status = status;
	ops[1].data.send_status_from_server.status_details = &details;
	if (reason) {
		trailer.key = grpc_slice_from_static_string(PEERD_KEY_REASON);
		trailer.value = grpc_slice_from_static_string(reason);
		ops[1].data.send_status_from_server.trailing_metadata_count = 1;
		ops[1].data.send_status_from_server.trailing_metadata =
			&trailer;
	}
	start(call, ops, 2, &call->reply_tag);
	grpc_slice_unref(details);
}

/* Of a dial that came to no stream. */
static void log_failed(const struct call *call, const char *why)
{
	char hex[2 * CONNECTION_ID_SIZE + 1];

	connection_id_format(call->connection_id, hex);
	log_limited(LOG_INFO,
		"peer's dial failed: %s peer=%s agent=%s type=%s to=%s "
		"source=%s user=%s conn=%s",
		why, call->caller.uuid, call->called->agent_id,
		call->called->type, call->called->to, call->called->source,
		call->user, hex);
}

static void on_closed(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, close_tag);
	struct server *server = call->server;

	call->closed = true;
	call->pending--;
	if (call->first_frame)
		timer_clear(call->first_frame);
	if (call->state == CALL_DIALING)
		server->ops->on_gone(server->arg, call->id);
	if (call->state == CALL_DIALING || call->state == CALL_ESTABLISHING)
		log_failed(call, "the peer gave it up");
	if (call->stream)
		stream_call_over(call->stream,
			call->cancelled ? GRPC_STATUS_CANCELLED
					: GRPC_STATUS_OK,
			"the peer ended the stream");
	server_call_settle(call);
}

static void on_replied(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, reply_tag);

	call->pending--;
	server_call_settle(call);
}

/* ---- the first frame ---- */

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void refuse_first_frame(
	struct call *call, grpc_status_code status, const char *text)
{
	struct peerd *peerd = call->server->peerd;

	metric_add(&peerd->metrics, METER_SERVED_REFUSED, 1);
	log_limited(LOG_WARN, "peer's dial refused: %s peer=%s", text,
		call->caller.uuid);
	end_call(call, status, "invalid", text);
}

static void on_first_frame_late(void *arg)
{
	struct call *call = arg;

	if (call->method == METHOD_ASK)
		server_call_fail(call, GRPC_STATUS_DEADLINE_EXCEEDED,
			"no question within 5 s");
	else
		refuse_first_frame(call, GRPC_STATUS_DEADLINE_EXCEEDED,
			"no dial request within 5 s");
}

/* One call metadata value as text; empty when absent or too long. */
static void metadata_value(
	const struct call *call, const char *key, char *out, size_t size)
{
	out[0] = '\0';
	for (size_t i = 0; i < call->metadata.count; i++) {
		grpc_slice value = call->metadata.metadata[i].value;
		size_t len = GRPC_SLICE_LENGTH(value);

		if (grpc_slice_str_cmp(call->metadata.metadata[i].key, key) ||
			len >= size)
			continue;
		memcpy(out, GRPC_SLICE_START_PTR(value), len);
		out[len] = '\0';
		return;
	}
}

static void take_metadata(struct call *call)
{
	char text[256];

	metadata_value(call, PEERD_KEY_CONNECTION, text, sizeof(text));
	if (!connection_id_parse(text, call->connection_id))
		connection_id_make(call->connection_id);
	metadata_value(call, PEERD_KEY_USER, call->user, sizeof(call->user));
	metadata_value(call, EXT_KEY, text, sizeof(text));
	call->ext = ext_parse(text, strlen(text)) & call->server->peerd->ext;
	metadata_value(call, EXT_CREDIT_KEY, text, sizeof(text));
	call->allowed = ext_parse_credit(text, strlen(text), CREDIT_MAX);
}

static void dial(struct call *call, const struct request *request)
{
	struct server *server = call->server;
	struct server_dial dial = {
		.request = request,
		.peer_id = call->caller.uuid,
		.connection_id = call->connection_id,
		.user = call->user,
	};

	take_metadata(call);
	call->called = xcalloc(1, sizeof(*call->called));
	snprintf(call->called->agent_id, sizeof(call->called->agent_id), "%s",
		request->agent_id);
	snprintf(call->called->type, sizeof(call->called->type), "%s",
		request->type);
	snprintf(call->called->to, sizeof(call->called->to), "%s",
		request->destination);
	snprintf(call->called->source, sizeof(call->called->source), "%s",
		request->source);
	call->state = CALL_DIALING;
	call->asked_us = now_us();
	server->ops->on_dial(server->arg, call->id, &dial);
}

static void take_request(struct call *call, const uint8_t *bytes, size_t len)
{
	struct request request;
	char *text = NULL;
	int status;

	rpc_meter_received(call->span.meter, len);
	status = request_parse(bytes, len, &request, &text);
	if (status == REQUEST_OK) {
		dial(call, &request);
		request_deinit(&request);
	} else {
		refuse_first_frame(call, (grpc_status_code)status, text);
	}
	free(text);
}

static void on_first_frame(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, read_tag);
	uint8_t *bytes;
	size_t len = 0;

	call->pending--;
	timer_clear(call->first_frame);
	if (call->closed || call->state != CALL_READING || !ok) {
		server_call_settle(call);
		return;
	}
	bytes = call->received
			? message_bytes(call->received, REQUEST_FRAME_MAX, &len)
			: NULL;
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	call->received = NULL;
	if (call->method == METHOD_ASK)
		mesh_serve(call, bytes, bytes ? len : 0);
	else
		take_request(call, bytes ? bytes : (const uint8_t *)"",
			bytes ? len : 0);
	free(bytes);
	server_call_settle(call);
}

static void read_first_frame(struct call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
		.data.recv_message.recv_message = &call->received};

	call->state = CALL_READING;
	call->first_frame =
		timer_new(call->server->peerd->loop, on_first_frame_late, call);
	timer_set(call->first_frame, SERVER_FIRST_FRAME_MS);
	start(call, &op, 1, &call->read_tag);
}

/* ---- the headers ---- */

static struct rpc_meter *meter_of(const struct call *call)
{
	return rpc_meter(&call->server->peerd->rpc, RPC_SERVER,
		call->method == METHOD_DIAL ? RPC_DIAL : RPC_PING);
}

void server_call_reply(struct call *call, grpc_byte_buffer *message)
{
	grpc_op ops[3] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE},
		{.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};

	call->state = CALL_ENDING;
	ops[1].data.send_message.send_message = message;
	ops[2].data.send_status_from_server.status = GRPC_STATUS_OK;
	start(call, ops, 3, &call->reply_tag);
}

void server_call_fail(
	struct call *call, grpc_status_code status, const char *text)
{
	end_call(call, status, NULL, text);
}

static void reply_ping(struct call *call)
{
	grpc_byte_buffer *message = message_of("", 0);

	rpc_meter_received(call->span.meter, 0);
	rpc_meter_sent(call->span.meter, 0);
	server_call_reply(call, message);
	grpc_byte_buffer_destroy(message);
}

static void deny(struct call *call)
{
	struct peerd *peerd = call->server->peerd;
	char *peer = grpc_call_get_peer(call->call);

	metric_add(&peerd->metrics, METER_SERVED_DENIED, 1);
	log_debug("call refused: expected Proxy client credentials addr=%s",
		peer);
	gpr_free(peer);
	end_call(call, GRPC_STATUS_PERMISSION_DENIED, NULL,
		"expected Proxy client credentials");
}

static void await_close(struct call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
		.data.recv_close_on_server.cancelled = &call->cancelled};

	start(call, &op, 1, &call->close_tag);
}

void server_call_begin(struct call *call)
{
	struct server *server = call->server;
	const char *cluster = server->peerd->conf->cluster_name;

	call->id = idmap_add(server->calls, call);
	call->since = loop_now(server->peerd->loop);
	call->close_tag.run = on_closed;
	call->read_tag.run = on_first_frame;
	call->reply_tag.run = on_replied;
	await_close(call);
	if (call->method == METHOD_DIAL || call->method == METHOD_PING)
		rpc_span_start(&call->span, meter_of(call));
	if (rpc_caller(NULL, call->call, cluster, &call->caller) < 0 ||
		!(call->caller.roles & IDENTITY_PROXY))
		deny(call);
	else if (call->method == METHOD_DIAL || call->method == METHOD_ASK)
		read_first_frame(call);
	else if (call->method == METHOD_PING)
		reply_ping(call);
	else
		end_call(call, GRPC_STATUS_UNIMPLEMENTED, NULL,
			"unknown method");
}

/* ---- the switchboard's answer ---- */

static void on_stream_end(void *arg, const struct stream_result *result)
{
	struct call *call = arg;
	char hex[2 * CONNECTION_ID_SIZE + 1];

	connection_id_format(call->connection_id, hex);
	log_info("stream ended: %s side=callee peer=%s agent=%s type=%s to=%s "
		 "source=%s user=%s sent=%llu received=%llu ms=%lld conn=%s",
		result->why, call->caller.uuid, call->called->agent_id,
		call->called->type, call->called->to, call->called->source,
		call->user, (unsigned long long)result->sent,
		(unsigned long long)result->received,
		(long long)(loop_now(call->server->peerd->loop) - call->since),
		hex);
	call->stream = NULL;
	call->status = result->clean ? GRPC_STATUS_OK : GRPC_STATUS_UNAVAILABLE;
	server_call_settle(call);
}

static void on_established(struct rpc_tag *tag, bool ok)
{
	struct call *call = CALL_OF(tag, reply_tag);
	struct stream_setup setup = {
		.side = STREAM_CALLEE,
		.call = call->call,
		.fd = call->fd,
		.ext = call->ext,
		.allowed = call->allowed,
		.credit = call->credit,
		.on_end = on_stream_end,
		.arg = call,
	};

	call->pending--;
	if (ok && !call->closed) {
		call->fd = -1;
		call->credit.out = 0; /* the stream's now */
		call->state = CALL_JOINED;
		call->stream = stream_new(&call->server->peerd->hub, &setup);
	}
	server_call_settle(call);
}

static struct call *find_dialing(struct server *server, uint64_t id)
{
	struct call *call = idmap_find(server->calls, id);

	return call && call->state == CALL_DIALING && !call->closed ? call
								    : NULL;
}

/* Our answer to the caller's extensions; values are the caller's to unref. */
static size_t answer_extensions(
	struct call *call, uint32_t worker, grpc_metadata out[3])
{
	struct credit_pool *pool = &call->server->peerd->hub.credit;
	char text[EXT_TEXT_MAX];
	size_t count = 0;

	if (ext_format(call->ext, text) > 0) {
		out[count].key = grpc_slice_from_static_string(EXT_KEY);
		out[count++].value = grpc_slice_from_copied_string(text);
	}
	if (call->ext & EXT_CREDIT) {
		snprintf(text, sizeof(text), "%lld",
			(long long)credit_begin(&call->credit, pool));
		out[count].key = grpc_slice_from_static_string(EXT_CREDIT_KEY);
		out[count++].value = grpc_slice_from_copied_string(text);
	}
	if (call->ext & EXT_TRACE) {
		const struct trace_report report = {.worker = worker,
			.us = (uint64_t)(now_us() - call->asked_us)};

		trace_report_format(&report, text);
		out[count].key = grpc_slice_from_static_string(TRACE_KEY);
		out[count++].value = grpc_slice_from_copied_string(text);
	}
	return count;
}

void server_accept(struct server *server, uint64_t id, int fd, uint32_t worker)
{
	static const char established[] = {0x12, 0x00};
	struct call *call = find_dialing(server, id);
	grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
		{.op = GRPC_OP_SEND_MESSAGE}};
	grpc_metadata metadata[3];
	grpc_byte_buffer *message;
	size_t count;

	if (!call) {
		close(fd);
		return;
	}
	metric_add(&server->peerd->metrics, METER_SERVED_OK, 1);
	call->state = CALL_ESTABLISHING;
	call->fd = fd;
	message = message_of(established, sizeof(established));
	ops[1].data.send_message.send_message = message;
	count = answer_extensions(call, worker, metadata);
	ops[0].data.send_initial_metadata.metadata = metadata;
	ops[0].data.send_initial_metadata.count = count;
	call->reply_tag.run = on_established;
	rpc_meter_sent(call->span.meter, sizeof(established));
	start(call, ops, 2, &call->reply_tag);
	for (size_t i = 0; i < count; i++)
		grpc_slice_unref(metadata[i].value);
	grpc_byte_buffer_destroy(message);
}

void server_refuse(struct server *server, uint64_t id, grpc_status_code status,
	const char *reason, const char *text)
{
	struct call *call = find_dialing(server, id);

	if (!call)
		return;
	metric_add(&server->peerd->metrics, METER_SERVED_REFUSED, 1);
	log_failed(call, text);
	end_call(call, status, reason, text);
}
