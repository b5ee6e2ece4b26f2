/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nghttp2 as tunnels use it: options, settings, and the callbacks that turn its
 * events into verbs of tunnels and streams. Owns callbacks and options (in the
 * hub) and each tunnel's session.
 *
 * What a newcomer gets wrong: callbacks run inside mem_recv or mem_send. They
 * may submit, never send, receive or delete. A stream's struct is found through
 * its user data, which is NULL for streams we never met.
 */
#include <errno.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/tunnel_internal.h"

/* Peers are authenticated and clients that hang up are normal, so the agent
 * must not take a burst of resets for an attack (default: 1,000 end it). */
#define RESET_BURST 1000000
#define RESET_RATE 100000

static struct tunnel_stream *find(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(
	nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	struct tunnel *tunnel = user_data;
	struct tunnel_stream *stream;

	if (tunnel->role != TUNNEL_AGENT ||
		frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	stream = tunnel_stream_new(tunnel, frame->hd.stream_id);
	tunnel_message_begin(stream);
	nghttp2_session_set_stream_user_data(session, stream->id, stream);
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame,
	const uint8_t *name, size_t name_len, const uint8_t *value,
	size_t value_len, uint8_t flags, void *user_data)
{
	struct tunnel_stream *stream = find(session, frame->hd.stream_id);

	if (!stream || stream->ended)
		return 0;
	if (tunnel_message_header(stream, name, name_len, value, value_len))
		return 0;
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets the stream */
}

static void handle_settings(struct tunnel *tunnel, const nghttp2_frame *frame)
{
	if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
		tunnel_peer_ready(tunnel);
}

static void handle_ping(struct tunnel *tunnel, const nghttp2_frame *frame)
{
	if (frame->hd.flags & NGHTTP2_FLAG_ACK)
		tunnel_pong(tunnel, frame->ping.opaque_data);
}

static void handle_goaway(struct tunnel *tunnel, const nghttp2_frame *frame)
{
	tunnel_peer_goaway(tunnel, frame->goaway.error_code);
}

/* END_STREAM may stand on either kind of frame. */
static void handle_stream_frame(
	struct tunnel *tunnel, const nghttp2_frame *frame)
{
	struct tunnel_stream *stream =
		find(tunnel->session, frame->hd.stream_id);

	if (!stream || stream->ended)
		return;
	if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		stream->in_ended = true;
	if (frame->hd.type == NGHTTP2_HEADERS)
		tunnel_message_head_ended(stream);
	if (!stream->in_ended || stream->ended)
		return;
	tunnel_message_ended(stream);
	tunnel_stream_touch(stream);
}

/* Frames that mean something to us; nghttp2 deals with the others. */
static void (*const frame_handlers[])(
	struct tunnel *tunnel, const nghttp2_frame *frame) = {
	[NGHTTP2_DATA] = handle_stream_frame,
	[NGHTTP2_HEADERS] = handle_stream_frame,
	[NGHTTP2_SETTINGS] = handle_settings,
	[NGHTTP2_PING] = handle_ping,
	[NGHTTP2_GOAWAY] = handle_goaway,
};

static int on_frame_recv(
	nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	size_t type = frame->hd.type;

	if (type < sizeof(frame_handlers) / sizeof(frame_handlers[0]) &&
		frame_handlers[type])
		frame_handlers[type](user_data, frame);
	return 0;
}

/* Credit for the connection on receipt: if it waited for the channels, a few
 * stalled streams would stop all the others. */
static void credit_connection(struct tunnel *tunnel, size_t len)
{
	struct tunnel_window_facts facts = {
		.now_us = tunnel->hub->now_us,
		.rtt_us = tunnel->rtt_min_us,
		.max = TUNNEL_CONNECTION_WINDOW_MAX,
		.room = TUNNEL_CONNECTION_WINDOW_MAX,
		.drains = true,
	};
	uint32_t increment =
		tunnel_window_credit(&tunnel->window, (uint32_t)len, &facts);

	if (increment)
		nghttp2_submit_window_update(tunnel->session, NGHTTP2_FLAG_NONE,
			0, (int32_t)increment);
}

static int on_data_chunk_recv(nghttp2_session *session, uint8_t flags,
	int32_t id, const uint8_t *data, size_t len, void *user_data)
{
	struct tunnel *tunnel = user_data;
	struct tunnel_stream *stream = find(session, id);

	credit_connection(tunnel, len);
	tunnel->hub->bytes_in += len;
	if (stream && !stream->ended)
		tunnel_flow_receive(stream, data, len);
	return 0;
}

static int on_stream_close(
	nghttp2_session *session, int32_t id, uint32_t code, void *user_data)
{
	struct tunnel_stream *stream = find(session, id);

	if (stream)
		tunnel_stream_closed(stream, code);
	return 0;
}

/* What our own GOAWAY blames the peer for is why the tunnel ends. */
static int on_frame_send(
	nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	struct tunnel *tunnel = user_data;

	if (frame->hd.type == NGHTTP2_GOAWAY &&
		frame->goaway.error_code != NGHTTP2_NO_ERROR && !tunnel->reason)
		tunnel->reason = xasprintf("peer broke HTTP/2: %s",
			nghttp2_http2_strerror(frame->goaway.error_code));
	return 0;
}

static ssize_t on_provide(nghttp2_session *session, int32_t id, uint8_t *buf,
	size_t len, uint32_t *flags, nghttp2_data_source *source,
	void *user_data)
{
	struct tunnel_stream *stream = find(session, id);

	if (!stream)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return tunnel_flow_fill(stream, buf, len, flags);
}

/* Our frames are small or large, whatever more the peer would take; nghttp2
 * applies the windows. */
static ssize_t on_payload_length(nghttp2_session *session, uint8_t type,
	int32_t id, int32_t session_window, int32_t stream_window,
	uint32_t max_frame_size, void *user_data)
{
	struct tunnel_stream *stream = find(session, id);
	size_t len = stream ? tunnel_flow_payload(stream) : TUNNEL_PAYLOAD;

	return len <= max_frame_size ? (ssize_t)len : (ssize_t)TUNNEL_PAYLOAD;
}

const nghttp2_data_provider tunnel_session_provider = {
	.read_callback = on_provide,
};

static nghttp2_option *new_option(enum tunnel_role role)
{
	nghttp2_option *option;

	if (nghttp2_option_new(&option) < 0)
		abort();
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_max_deflate_dynamic_table_size(option, 0);
	if (role == TUNNEL_AGENT)
		nghttp2_option_set_stream_reset_rate_limit(
			option, RESET_BURST, RESET_RATE);
	return option;
}

void tunnel_session_setup(struct tunnel_hub *hub)
{
	nghttp2_session_callbacks *callbacks;

	if (nghttp2_session_callbacks_new(&callbacks) < 0)
		abort();
	nghttp2_session_callbacks_set_on_begin_headers_callback(
		callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(
		callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
		callbacks, on_data_chunk_recv);
	nghttp2_session_callbacks_set_on_stream_close_callback(
		callbacks, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(
		callbacks, on_frame_send);
	nghttp2_session_callbacks_set_data_source_read_length_callback(
		callbacks, on_payload_length);
	hub->callbacks = callbacks;
	hub->options[TUNNEL_PROXY] = new_option(TUNNEL_PROXY);
	hub->options[TUNNEL_AGENT] = new_option(TUNNEL_AGENT);
}

static int submit_settings(struct tunnel *tunnel)
{
	bool proxy = tunnel->role == TUNNEL_PROXY;
	const nghttp2_settings_entry entries[] = {
		{NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
			TUNNEL_STREAM_WINDOW_MIN},
		{NGHTTP2_SETTINGS_MAX_FRAME_SIZE, TUNNEL_LARGE_FRAME},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, TUNNEL_HEAD_BYTES},
		{proxy ? NGHTTP2_SETTINGS_ENABLE_PUSH
		       : NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
			proxy ? 0 : tunnel->hub->settings.max_streams},
	};

	return nghttp2_submit_settings(tunnel->session, NGHTTP2_FLAG_NONE,
		entries, sizeof(entries) / sizeof(entries[0]));
}

/* The first tunnel says which kind of process this is. */
static void prepare_memory(struct tunnel *tunnel)
{
	struct tunnel_hub *hub = tunnel->hub;

	if (!hub->mem_tried)
		hub->mem = tunnel_mem_new(tunnel->role == TUNNEL_PROXY
						  ? TUNNEL_PROXY_SLOTS
						  : TUNNEL_AGENT_SLOTS);
	hub->mem_tried = true;
	tunnel->mem_user.mem = hub->mem;
}

static int new_session(struct tunnel *tunnel)
{
	struct tunnel_hub *hub = tunnel->hub;
	nghttp2_mem functions = tunnel_mem_functions(&tunnel->mem_user);

	if (tunnel->role == TUNNEL_PROXY)
		return nghttp2_session_client_new3(&tunnel->session,
			hub->callbacks, tunnel, hub->options[TUNNEL_PROXY],
			&functions);
	return nghttp2_session_server_new3(&tunnel->session, hub->callbacks,
		tunnel, hub->options[TUNNEL_AGENT], &functions);
}

int tunnel_session_start(struct tunnel *tunnel)
{
	int ret;

	prepare_memory(tunnel);
	ret = new_session(tunnel);
	if (ret == 0)
		ret = submit_settings(tunnel);
	/* SETTINGS change streams only; the connection starts at 65,535. */
	if (ret == 0)
		ret = nghttp2_submit_window_update(tunnel->session,
			NGHTTP2_FLAG_NONE, 0,
			TUNNEL_CONNECTION_WINDOW -
				NGHTTP2_INITIAL_CONNECTION_WINDOW_SIZE);
	return ret < 0 ? -ENOMEM : 0;
}
