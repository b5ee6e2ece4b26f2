/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Over a line with 20 ms there and back: windows grow for a stream that drains,
 * within its bound, and do not for one that stalls.
 */
#include <sys/queue.h>

#include "tests/unit/shared/tunnel_scene.h"

#include "shared/tunnel_internal.h"
#include "tests/unit/shared/slow_line.h"

static void begin_slow(struct scene *scene, struct slow_line *line,
	const struct tunnel_settings *settings)
{
	struct loop *loop = loop_new();
	int done[2] = {-EAGAIN, -EAGAIN};
	struct chan *chans[2];
	struct chan *ends[2];

	*scene = (struct scene){0};
	for (int i = 0; i < 2; i++) {
		SSL_CTX *ctx = tls_pair_ctx(i == 0);
		SSL *ssl = SSL_new(ctx);
		int fds[2];

		SSL_CTX_free(ctx);
		if (i == 0)
			SSL_set_accept_state(ssl);
		else
			SSL_set_connect_state(ssl);
		assert_int_equal(sock_pair(fds), 0);
		chans[i] = chan_new_tls(loop, fds[0], ssl);
		ends[i] = chan_new_fd(loop, fds[1]);
	}
	slow_line_start(line, loop, ends[0], ends[1], 10);
	while (done[0] || done[1]) {
		loop_turn(loop, true);
		for (int i = 0; i < 2; i++)
			if (done[i])
				done[i] = chan_handshake(chans[i]);
		assert_true(done[0] == 0 || done[0] == -EAGAIN);
		assert_true(done[1] == 0 || done[1] == -EAGAIN);
	}
	scene_begin_over(scene, loop, chans, settings);
	run_until(loop, both_ready, scene, 60);
}

/* scene_end() frees the loop, so the line must have gone before. */
static void end_slow(struct scene *scene, struct slow_line *line)
{
	for (int role = 0; role < 2; role++)
		if (!scene->over[role])
			tunnel_close(scene->tunnels[role], 0, "test over");
	run_until(scene->loop, both_over, scene, 60);
	slow_line_stop(line);
	scene_end(scene);
}

static bool client_got_32_mib(void *arg)
{
	return scene_of(arg)->pairs[0].client.received >= 32 * MIB;
}

static void test_window_grows_with_the_line(void **state)
{
	struct tunnel_settings settings = scene_settings;
	struct slow_line line;
	struct scene scene;
	struct tunnel *proxy;
	int64_t started;

	settings.stream_buffer_max = 4 * MIB;
	begin_slow(&scene, &line, &settings);
	proxy = scene.tunnels[TUNNEL_PROXY];
	scene_pairs(&scene, 1);
	scene.pairs[0].service.to_send = 64 * MIB;
	started = loop_now(scene.loop);
	pair_open(&scene.pairs[0]);
	run_until(scene.loop, client_got_32_mib, &scene, 60);
	printf("32 MiB with a round trip of %u us: %lld ms, "
	       "windows %u and %u KiB\n",
		tunnel_rtt_us(proxy),
		(long long)(loop_now(scene.loop) - started),
		TAILQ_FIRST(&proxy->streams)->window.size >> 10,
		proxy->window.size >> 10);
	assert_true(tunnel_rtt_us(proxy) >= 18000);
	assert_int_equal(TAILQ_FIRST(&proxy->streams)->window.size, 4 * MIB);
	assert_true(proxy->window.size >= 2 * MIB);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(&scene.pairs[0]);
	end_slow(&scene, &line);
}

static bool holds_a_window(void *arg)
{
	return scene_stats(scene_of(arg), 0).bytes_held >= 200 << 10;
}

static void test_stalled_stream_keeps_its_window(void **state)
{
	struct tunnel_settings settings = scene_settings;
	struct slow_line line;
	struct scene scene;
	struct tunnel *proxy;

	settings.stream_buffer_max = 4 * MIB;
	begin_slow(&scene, &line, &settings);
	proxy = scene.tunnels[TUNNEL_PROXY];
	scene_pairs(&scene, 1);
	scene.pairs[0].client.paused = true;
	scene.pairs[0].service.to_send = 16 * MIB;
	pair_open(&scene.pairs[0]);
	run_until(scene.loop, holds_a_window, &scene, 60);
	run_for(scene.loop, 200);
	assert_true(TAILQ_FIRST(&proxy->streams)->window.size <=
		    2 * TUNNEL_STREAM_WINDOW);
	assert_true(
		scene_stats(&scene, 0).bytes_held <= 2 * TUNNEL_STREAM_WINDOW);
	endpoint_resume(&scene.pairs[0].client);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(&scene.pairs[0]);
	end_slow(&scene, &line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_window_grows_with_the_line),
		cmocka_unit_test(test_stalled_stream_keeps_its_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
