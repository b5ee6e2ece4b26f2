/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Test help: a proxy's and an agent's end of one tunnel in one process, over
 * TLS on a socket pair, and CONNECT streams between endpoints that check every
 * byte. A client endpoint sends pattern 2n and expects 2n + 1; the service at
 * the other end of its stream the reverse.
 *
 * What the agent does with a request is said by its authority or path:
 *   "p:<n>"       joined with the service endpoint of stream n
 *   "refuse:1"    refused with 404 and a reason
 *   "silent:1"    not answered
 *   GET  /echo    a reply of its headers' count and the path
 *   POST /echo    its body
 *   GET  /events  stays open; scene->events is the stream
 */

#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <unistd.h>

#include "shared/sock.h"
#include "shared/tunnel.h"
#include "tests/unit/shared/endpoint.h"
#include "tests/unit/shared/tls_pair.h"

#define MIB (1u << 20)

struct pair {
	struct scene *scene;
	unsigned number;
	struct endpoint client;
	struct endpoint service;
	struct tunnel_stream *stream; /* the proxy's */
	bool tcp;		      /* the client comes by TCP */
	struct chan *joined;	      /* the proxy's side of the client */
	int status;
	char reason[64];
	bool proxy_over;
	bool agent_over;
	struct tunnel_stream_result proxy_result;
	struct tunnel_stream_result agent_result;
};

struct scene {
	struct loop *loop;
	struct tunnel_hub *hubs[2]; /* by role */
	struct tunnel *tunnels[2];
	bool ready[2];
	bool over[2];
	char why[2][128];
	struct pair *pairs;
	unsigned pair_count;
	unsigned requests;
	unsigned silent_over;
	struct tunnel_stream *events;
	bool events_over;
};

static inline void plain_pair(struct loop *loop, struct chan *chans[2])
{
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	chans[0] = chan_new_fd(loop, fds[0]);
	chans[1] = chan_new_fd(loop, fds[1]);
}

/* The same over TCP, where a reset destroys what was sent before it. */
static inline void tcp_pair(struct loop *loop, struct chan *chans[2])
{
	struct sock_addr addr;
	int listener;
	int fds[2];

	assert_int_equal(sock_parse("127.0.0.1:1", 1, &addr), 0);
	((struct sockaddr_in *)&addr.ss)->sin_port = 0;
	listener = sock_listen(&addr, false, 1);
	assert_true(listener >= 0);
	addr.len = sizeof(addr.ss);
	getsockname(listener, (struct sockaddr *)&addr.ss, &addr.len);
	fds[1] = sock_connect(&addr);
	assert_true(fds[1] >= 0);
	do {
		fds[0] = accept4(
			listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fds[0] < 0 && errno == EAGAIN);
	assert_true(fds[0] >= 0);
	close(listener);
	chans[0] = chan_new_fd(loop, fds[0]);
	chans[1] = chan_new_fd(loop, fds[1]);
}

static inline struct scene *scene_of(void *arg)
{
	return arg;
}

static void on_ready(struct tunnel *tunnel, void *arg)
{
	struct scene *scene = scene_of(arg);
	int role = tunnel == scene->tunnels[TUNNEL_AGENT];

	assert_false(scene->ready[role]);
	scene->ready[role] = true;
}

static void on_tunnel_end(struct tunnel *tunnel, void *arg, const char *reason)
{
	struct scene *scene = scene_of(arg);
	int role = tunnel == scene->tunnels[TUNNEL_AGENT];

	assert_false(scene->over[role]);
	scene->over[role] = true;
	scene->ready[role] = false;
	snprintf(scene->why[role], sizeof(scene->why[role]), "%s", reason);
}

static void on_service_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	struct pair *pair = arg;

	assert_false(pair->agent_over);
	pair->agent_over = true;
	pair->agent_result = *result;
}

static void on_silent_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	scene_of(arg)->silent_over++;
}

static void on_events_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	scene_of(arg)->events_over = true;
	scene_of(arg)->events = NULL;
}

static const struct tunnel_stream_ops service_ops = {.on_end = on_service_end};
static const struct tunnel_stream_ops silent_ops = {.on_end = on_silent_end};
static const struct tunnel_stream_ops events_ops = {.on_end = on_events_end};

static void serve_connect(struct scene *scene, struct tunnel_stream *stream,
	const char *authority)
{
	unsigned number = (unsigned)strtoul(authority + 2, NULL, 10);
	struct pair *pair = &scene->pairs[number];
	struct chan *chans[2];

	if (strncmp(authority, "refuse", 6) == 0) {
		tunnel_stream_refuse(stream, 404, " no such\nservice ");
		return;
	}
	if (strncmp(authority, "silent", 6) == 0) {
		tunnel_stream_set_ops(stream, &silent_ops, scene);
		return;
	}
	assert_true(number < scene->pair_count);
	plain_pair(scene->loop, chans);
	endpoint_start(&pair->service, scene->loop, chans[1], 2 * number + 1,
		2 * number, pair->service.to_send);
	tunnel_stream_set_ops(stream, &service_ops, pair);
	tunnel_stream_join(stream, chans[0], NULL, 0);
}

static void on_request(struct tunnel *tunnel, void *arg,
	struct tunnel_stream *stream, const struct tunnel_request *request,
	const uint8_t *body, size_t body_len)
{
	struct scene *scene = scene_of(arg);
	char text[64];

	scene->requests++;
	if (strcmp(request->method, "CONNECT") == 0) {
		serve_connect(scene, stream, request->authority);
	} else if (strcmp(request->method, "POST") == 0) {
		tunnel_stream_reply(stream, 200, "application/octet-stream",
			body, body_len);
	} else if (strcmp(request->path, "/events") == 0) {
		scene->events = stream;
		tunnel_stream_set_ops(stream, &events_ops, scene);
		tunnel_stream_reply_open(stream, "application/x-ndjson");
	} else {
		snprintf(text, sizeof(text), "%zu %s", request->header_count,
			request->path);
		tunnel_stream_reply(
			stream, 203, "text/plain", text, strlen(text));
	}
}

static const struct tunnel_ops scene_ops = {
	.on_ready = on_ready,
	.on_request = on_request,
	.on_end = on_tunnel_end,
};

static inline bool both_ready(void *arg)
{
	struct scene *scene = scene_of(arg);

	return scene->ready[0] && scene->ready[1];
}

static inline bool both_over(void *arg)
{
	struct scene *scene = scene_of(arg);

	return scene->over[0] && scene->over[1];
}

static const struct tunnel_settings scene_settings = {
	.max_streams = 10000,
	.ping_interval_ms = 60000,
	.ping_count_max = 3,
	.stream_buffer_max = 1 << 20,
	.buffer_max = 64 << 20,
};

static inline void scene_begin_over(struct scene *scene, struct loop *loop,
	struct chan *const chans[2], const struct tunnel_settings *settings)
{
	scene->loop = loop;
	for (int role = 0; role < 2; role++) {
		scene->hubs[role] = tunnel_hub_new(loop, settings);
		scene->tunnels[role] = tunnel_new(scene->hubs[role],
			(enum tunnel_role)role, chans[role], &scene_ops, scene);
	}
}

static inline void scene_begin_with(
	struct scene *scene, const struct tunnel_settings *settings)
{
	struct loop *loop = loop_new();
	struct chan *chans[2];
	int fds[2];

	*scene = (struct scene){0};
	assert_int_equal(sock_pair(fds), 0);
	tls_pair_chans(loop, fds, chans);
	scene_begin_over(scene, loop, chans, settings);
	run_until(loop, both_ready, scene, 5);
}

static inline void scene_begin(struct scene *scene)
{
	scene_begin_with(scene, &scene_settings);
}

static inline struct tunnel_hub_stats scene_stats(struct scene *scene, int role)
{
	struct tunnel_hub_stats stats;

	tunnel_hub_stats(scene->hubs[role], &stats);
	return stats;
}

/* Closes both tunnels; whatever happened, nothing may be left. */
static inline void scene_end(struct scene *scene)
{
	for (int role = 0; role < 2; role++)
		if (!scene->over[role])
			tunnel_close(scene->tunnels[role], 0, "test over");
	run_until(scene->loop, both_over, scene, 5);
	for (unsigned i = 0; i < scene->pair_count; i++) {
		endpoint_stop(&scene->pairs[i].client);
		endpoint_stop(&scene->pairs[i].service);
	}
	run_for(scene->loop, 1);
	for (int role = 0; role < 2; role++) {
		struct tunnel_hub_stats stats = scene_stats(scene, role);

		assert_int_equal(stats.tunnels, 0);
		assert_int_equal(stats.streams, 0);
		tunnel_hub_free(scene->hubs[role]);
		(void)stats;
	}
	free(scene->pairs);
	loop_turn(scene->loop, false);
	loop_free(scene->loop);
}

static void on_response(
	struct tunnel_stream *stream, void *arg, int status, const char *text)
{
	struct pair *pair = arg;

	pair->status = status;
	snprintf(pair->reason, sizeof(pair->reason), "%s", text);
	if (status == 200 && pair->joined) {
		tunnel_stream_join(stream, pair->joined, NULL, 0);
		pair->joined = NULL;
	}
}

static void on_stream_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	struct pair *pair = arg;

	assert_false(pair->proxy_over);
	pair->proxy_over = true;
	pair->proxy_result = *result;
	pair->stream = NULL;
	chan_free(pair->joined);
	pair->joined = NULL;
}

static const struct tunnel_stream_ops pair_ops = {
	.on_response = on_response,
	.on_end = on_stream_end,
};

static inline void scene_pairs(struct scene *scene, unsigned count)
{
	scene->pairs = calloc(count, sizeof(*scene->pairs));
	assert_non_null(scene->pairs);
	scene->pair_count = count;
	for (unsigned i = 0; i < count; i++) {
		scene->pairs[i].scene = scene;
		scene->pairs[i].number = i;
	}
}

/* Opens stream n; what the endpoints do was set in pairs[n] before. */
static inline int pair_open_to(struct pair *pair, const char *authority)
{
	static const struct tunnel_header headers[] = {
		{"peerway-source", "192.0.2.7:1234"},
	};
	struct scene *scene = pair->scene;
	struct chan *chans[2];
	int ret;

	ret = tunnel_connect(scene->tunnels[TUNNEL_PROXY], authority, headers,
		1, 5000, &pair_ops, pair, &pair->stream);
	if (ret < 0)
		return ret;
	if (pair->tcp)
		tcp_pair(scene->loop, chans);
	else
		plain_pair(scene->loop, chans);
	pair->joined = chans[0];
	endpoint_start(&pair->client, scene->loop, chans[1], 2 * pair->number,
		2 * pair->number + 1, pair->client.to_send);
	return 0;
}

static inline void pair_open(struct pair *pair)
{
	char authority[32];

	snprintf(authority, sizeof(authority), "p:%u", pair->number);
	assert_int_equal(pair_open_to(pair, authority), 0);
}

static inline bool pair_is_done(const struct pair *pair)
{
	return pair->proxy_over && pair->agent_over &&
	       endpoint_done(&pair->client) && endpoint_done(&pair->service);
}

static inline bool pairs_done(void *arg)
{
	struct scene *scene = scene_of(arg);

	for (unsigned i = 0; i < scene->pair_count; i++)
		if (!pair_is_done(&scene->pairs[i]))
			return false;
	return true;
}

static inline void pair_check_whole(const struct pair *pair)
{
	assert_int_equal(pair->proxy_result.error, 0);
	assert_int_equal(pair->agent_result.error, 0);
	assert_int_equal(pair->proxy_result.sent, pair->client.to_send);
	assert_int_equal(pair->proxy_result.received, pair->service.to_send);
	assert_int_equal(pair->agent_result.sent, pair->service.to_send);
	assert_int_equal(pair->agent_result.received, pair->client.to_send);
	assert_int_equal(pair->client.received, pair->service.to_send);
	assert_int_equal(pair->service.received, pair->client.to_send);
	assert_false(pair->client.corrupt || pair->service.corrupt);
	assert_false(pair->client.error || pair->service.error);
	assert_false(pair->client.send_error || pair->service.send_error);
}
