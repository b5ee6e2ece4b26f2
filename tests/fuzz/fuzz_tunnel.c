/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer may send through a tunnel, after TLS: the first byte chooses our
 * role, the rest is fed to it. CONNECT is joined with a channel, everything
 * else answered; the proxy's end has a stream and an exchange open.
 */
#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "shared/sock.h"
#include "shared/tunnel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tunnel_settings settings = {
	.max_streams = 100,
	.ping_interval_ms = 60000,
	.ping_count_max = 2,
	.stream_buffer_max = 1 << 16,
	.buffer_max = 1 << 18,
};

struct fuzz {
	struct loop *loop;
	struct tunnel_hub *hub;
	bool over;
	unsigned exchanges;
};

static void join_echo(struct fuzz *fuzz, struct tunnel_stream *stream)
{
	int fds[2];

	assert(sock_pair(fds) == 0);
	assert(write(fds[1], "hello", 5) == 5);
	close(fds[1]);
	tunnel_stream_join(stream, chan_new_fd(fuzz->loop, fds[0]), "first", 5);
}

static void on_response(
	struct tunnel_stream *stream, void *arg, int status, const char *text)
{
	if (status == 200)
		join_echo(arg, stream);
}

static const struct tunnel_stream_ops stream_ops = {
	.on_response = on_response,
};

static void on_data(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct fuzz *fuzz = arg;

	if (end)
		fuzz->exchanges--;
}

static void on_ready(struct tunnel *tunnel, void *arg)
{
	struct fuzz *fuzz = arg;
	struct tunnel_stream *stream;
	struct tunnel_exchange exchange = {
		.method = "GET",
		.path = "/",
		.stream_lines = true,
		.on_data = on_data,
		.arg = arg,
	};

	tunnel_connect(
		tunnel, "s:1", NULL, 0, 60000, &stream_ops, arg, &stream);
	if (tunnel_exchange(tunnel, &exchange) == 0)
		fuzz->exchanges++;
}

static void on_request(struct tunnel *tunnel, void *arg,
	struct tunnel_stream *stream, const struct tunnel_request *request,
	const uint8_t *body, size_t len)
{
	if (strcmp(request->method, "CONNECT") == 0)
		join_echo(arg, stream);
	else if (strcmp(request->path, "/open") == 0)
		tunnel_stream_reply_open(stream, "text/plain");
	else if (len > 0)
		tunnel_stream_reply(stream, 200, "text/plain", body, len);
	else
		tunnel_stream_refuse(stream, 404, request->path);
}

static void on_end(struct tunnel *tunnel, void *arg, const char *reason)
{
	((struct fuzz *)arg)->over = true;
}

static const struct tunnel_ops proxy_ops = {
	.on_ready = on_ready,
	.on_end = on_end,
};
static const struct tunnel_ops agent_ops = {
	.on_request = on_request,
	.on_end = on_end,
};

/* Feeds it all; stops when the tunnel reads no more. */
static void feed(struct fuzz *fuzz, int fd, const uint8_t *data, size_t size)
{
	char sink[4096];

	for (int idle = 0; idle < 3 && !fuzz->over;) {
		ssize_t n = size > 0 ? write(fd, data, size) : -1;

		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
		loop_turn(fuzz->loop, false);
		while (read(fd, sink, sizeof(sink)) > 0)
			idle = 0;
		if (n <= 0)
			idle++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz fuzz;
	struct tunnel_hub_stats stats;
	struct tunnel *tunnel;
	enum tunnel_role role;
	int fds[2];

	if (size < 1)
		return 0;
	if (!fuzz.loop) {
		fuzz.loop = loop_new();
		fuzz.hub = tunnel_hub_new(fuzz.loop, &settings);
	}
	fuzz.over = false;
	role = data[0] & 1 ? TUNNEL_AGENT : TUNNEL_PROXY;
	assert(sock_pair(fds) == 0);
	tunnel = tunnel_new(fuzz.hub, role, chan_new_fd(fuzz.loop, fds[0]),
		role == TUNNEL_PROXY ? &proxy_ops : &agent_ops, &fuzz);
	feed(&fuzz, fds[1], data + 1, size - 1);
	if (!fuzz.over)
		tunnel_close(tunnel, 0, "input ends");
	while (!fuzz.over)
		loop_turn(fuzz.loop, false);
	close(fds[1]);
	loop_turn(fuzz.loop, false);
	tunnel_hub_stats(fuzz.hub, &stats);
	assert(stats.tunnels == 0 && stats.streams == 0);
	assert(fuzz.exchanges == 0);
	return 0;
}
