/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests, limits and ends of tunnels: what one side asks the other answers,
 * what is too much costs a stream and not the tunnel, and each way of ending is
 * told once to everybody concerned.
 */
#include "tests/unit/shared/tunnel_scene.h"

#include <nghttp2/nghttp2.h>

#include "shared/tunnel_internal.h"

struct answer {
	int status;
	size_t len;
	unsigned lines;
	bool end;
	uint8_t *data;
	char last_line[64];
};

static void on_answer(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct answer *answer = arg;

	assert_false(answer->end);
	answer->status = status;
	answer->end = end;
	if (!end) {
		answer->lines++;
		snprintf(answer->last_line, sizeof(answer->last_line), "%.*s",
			(int)len, (const char *)data);
		return;
	}
	answer->len = len;
	answer->data = malloc(len + 1);
	assert_non_null(answer->data);
	memcpy(answer->data, data, len);
}

static bool answer_ended(void *arg)
{
	return ((struct answer *)arg)->end;
}

static int ask(struct scene *scene, struct answer *answer, const char *method,
	const char *path, const void *body, size_t len)
{
	struct tunnel_exchange exchange = {
		.method = method,
		.path = path,
		.body = body,
		.len = len,
		.on_data = on_answer,
		.arg = answer,
	};

	return tunnel_exchange(scene->tunnels[TUNNEL_PROXY], &exchange);
}

static void test_get_is_answered(void **state)
{
	struct answer answer = {0};
	struct scene scene;

	scene_begin(&scene);
	assert_int_equal(ask(&scene, &answer, "GET", "/x", NULL, 0), 0);
	run_until(scene.loop, answer_ended, &answer, 60);
	assert_int_equal(answer.status, 203);
	assert_int_equal(answer.len, 4);
	assert_memory_equal(answer.data, "0 /x", 4);
	free(answer.data);
	scene_end(&scene);
}

static void test_largest_body_is_echoed(void **state)
{
	struct answer answer = {0};
	struct scene scene;

	scene_begin(&scene);
	assert_int_equal(ask(&scene, &answer, "POST", "/x", pattern(),
				 TUNNEL_BODY_MAX + 1),
		-EMSGSIZE);
	assert_int_equal(
		ask(&scene, &answer, "POST", "/x", pattern(), TUNNEL_BODY_MAX),
		0);
	run_until(scene.loop, answer_ended, &answer, 60);
	assert_int_equal(answer.status, 200);
	assert_int_equal(answer.len, TUNNEL_BODY_MAX);
	assert_memory_equal(answer.data, pattern(), TUNNEL_BODY_MAX);
	free(answer.data);
	scene_end(&scene);
}

static bool has_events(void *arg)
{
	return scene_of(arg)->events != NULL;
}

static void test_exchange_hears_of_a_lost_tunnel(void **state)
{
	struct answer answer = {0};
	struct scene scene;

	scene_begin(&scene);
	assert_int_equal(ask(&scene, &answer, "GET", "/events", NULL, 0), 0);
	run_until(scene.loop, has_events, &scene, 60);
	tunnel_close(scene.tunnels[TUNNEL_AGENT], 0, "gone");
	run_until(scene.loop, answer_ended, &answer, 60);
	assert_int_equal(answer.status, 0);
	assert_true(scene.events_over);
	free(answer.data);
	scene_end(&scene);
}

static bool one_line(void *arg)
{
	return ((struct answer *)arg)->lines == 1;
}

static bool three_lines(void *arg)
{
	return ((struct answer *)arg)->lines == 3;
}

static void watch_events(struct scene *scene, struct answer *answer)
{
	struct tunnel_exchange exchange = {
		.method = "GET",
		.path = "/events",
		.stream_lines = true,
		.on_data = on_answer,
		.arg = answer,
	};

	assert_int_equal(
		tunnel_exchange(scene->tunnels[TUNNEL_PROXY], &exchange), 0);
	run_until(scene->loop, has_events, scene, 60);
}

static void test_pushed_lines_arrive_one_by_one(void **state)
{
	struct answer answer = {0};
	struct scene scene;

	scene_begin(&scene);
	watch_events(&scene, &answer);
	assert_int_equal(tunnel_stream_push(scene.events, "one\ntw", 6), 0);
	run_until(scene.loop, one_line, &answer, 60);
	assert_string_equal(answer.last_line, "one");
	assert_int_equal(tunnel_stream_push(scene.events, "o\nthree\n", 8), 0);
	run_until(scene.loop, three_lines, &answer, 60);
	assert_string_equal(answer.last_line, "three");
	assert_int_equal(answer.status, 200);
	assert_false(answer.end);
	scene_end(&scene);
	free(answer.data);
}

static void test_pushing_too_much_is_refused(void **state)
{
	struct answer answer = {0};
	struct scene scene;

	scene_begin(&scene);
	watch_events(&scene, &answer);
	assert_int_equal(
		tunnel_stream_push(scene.events, pattern(), TUNNEL_BODY_MAX),
		0);
	assert_int_equal(tunnel_stream_push(scene.events, "x", 1), -ENOBUFS);
	scene_end(&scene);
	free(answer.data);
}

/* An answer that stays open must not keep a tunnel from its goodbye. */
static void test_open_answer_ends_with_the_goodbye(void **state)
{
	for (int role = 0; role < 2; role++) {
		struct answer answer = {0};
		struct scene scene;

		scene_begin(&scene);
		watch_events(&scene, &answer);
		tunnel_close(scene.tunnels[role], 5000, "maintenance");
		run_until(scene.loop, both_over, &scene, 2);
		assert_true(answer.end);
		assert_string_equal(scene.why[role], "maintenance");
		assert_string_equal(scene.why[1 - role], "ended by the peer");
		scene_end(&scene);
		free(answer.data);
	}
}

static bool proxy_over(void *arg)
{
	return ((struct pair *)arg)->proxy_over;
}

static bool no_agent_streams(void *arg)
{
	return scene_stats(scene_of(arg), TUNNEL_AGENT).streams == 0;
}

static void test_refusal_says_why(void **state)
{
	struct scene scene;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	assert_int_equal(pair_open_to(&scene.pairs[0], "refuse:1"), 0);
	run_until(scene.loop, proxy_over, &scene.pairs[0], 60);
	assert_int_equal(scene.pairs[0].status, 404);
	assert_string_equal(scene.pairs[0].reason, "no such?service");
	assert_int_equal(scene.pairs[0].proxy_result.error, -ECONNREFUSED);
	run_until(scene.loop, no_agent_streams, &scene, 60);
	scene_end(&scene);
}

static bool silent_told(void *arg)
{
	return scene_of(arg)->silent_over == 1;
}

static void test_unanswered_connect_times_out(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	assert_int_equal(tunnel_connect(scene.tunnels[TUNNEL_PROXY], "silent:1",
				 NULL, 0, 50, &pair_ops, pair, &pair->stream),
		0);
	run_until(scene.loop, proxy_over, pair, 60);
	assert_int_equal(pair->proxy_result.error, -ETIMEDOUT);
	assert_int_equal(pair->status, 0);
	run_until(scene.loop, silent_told, &scene, 60);
	scene_end(&scene);
}

static bool five_requests(void *arg)
{
	return scene_of(arg)->requests == 5;
}

static void test_streams_beyond_the_agents_limit_are_not_queued(void **state)
{
	struct tunnel_settings settings = scene_settings;
	struct scene scene;

	settings.max_streams = 5;
	scene_begin_with(&scene, &settings);
	scene_pairs(&scene, 6);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(pair_open_to(&scene.pairs[i], "silent:1"), 0);
	assert_int_equal(pair_open_to(&scene.pairs[5], "silent:1"), -EAGAIN);
	tunnel_stream_reset(scene.pairs[0].stream);
	run_until(scene.loop, proxy_over, &scene.pairs[0], 60);
	assert_int_equal(pair_open_to(&scene.pairs[5], "silent:1"), 0);
	/* The first was never sent. */
	run_until(scene.loop, five_requests, &scene, 60);
	assert_int_equal(scene_stats(&scene, TUNNEL_AGENT).streams, 5);
	scene_end(&scene);
}

static bool all_silent_over(void *arg)
{
	return scene_of(arg)->silent_over == 5000;
}

/* Clients that hang up: 5,000 at once are far beyond the 1,000 at which an
 * HTTP/2 server takes resets for an attack. */
static void test_aborted_streams_leave_the_tunnel_untouched(void **state)
{
	struct scene scene;
	struct pair *steady;

	scene_begin(&scene);
	scene_pairs(&scene, 5001);
	steady = &scene.pairs[5000];
	steady->client.to_send = steady->service.to_send = 32 * MIB;
	pair_open(steady);
	for (unsigned i = 0; i < 5000; i++) {
		struct pair *pair = &scene.pairs[i];

		assert_int_equal(
			tunnel_connect(scene.tunnels[TUNNEL_PROXY], "silent:1",
				NULL, 0, 5000, &pair_ops, pair, &pair->stream),
			0);
		if (i % 500 != 499)
			continue;
		while (scene.requests < i + 2) {
			loop_turn(scene.loop, true);
			assert_false(scene.over[0] || scene.over[1]);
		}
		for (unsigned j = i - 499; j <= i; j++)
			tunnel_stream_reset(scene.pairs[j].stream);
	}
	while (!pair_is_done(steady))
		run_for(scene.loop, 10);
	pair_check_whole(steady);
	run_until(scene.loop, all_silent_over, &scene, 60);
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(scene.pairs[i].proxy_result.error, -ECANCELED);
	assert_int_equal(tunnel_stream_count(scene.tunnels[0]), 0);
	assert_int_equal(tunnel_stream_count(scene.tunnels[1]), 0);
	assert_true(tunnel_is_ready(scene.tunnels[0]));
	scene_end(&scene);
}

static bool transferring(void *arg)
{
	return scene_of(arg)->pairs[0].client.received > 0;
}

static bool first_pair_done(void *arg)
{
	return pair_is_done(&scene_of(arg)->pairs[0]);
}

static bool proxy_not_ready(void *arg)
{
	return !tunnel_is_ready(scene_of(arg)->tunnels[TUNNEL_PROXY]);
}

static void test_goodbye_waits_for_streams(void **state)
{
	for (int role = 0; role < 2; role++) {
		struct scene scene;
		struct pair *pair;

		scene_begin(&scene);
		scene_pairs(&scene, 2);
		pair = &scene.pairs[0];
		pair->client.to_send = pair->service.to_send = 4 * MIB;
		pair_open(pair);
		run_until(scene.loop, transferring, &scene, 60);
		tunnel_close(scene.tunnels[role], 60000, "drained");
		assert_false(tunnel_is_ready(scene.tunnels[role]));
		run_until(scene.loop, proxy_not_ready, &scene, 60);
		assert_int_equal(
			pair_open_to(&scene.pairs[1], "p:1"), -ENOTCONN);
		run_until(scene.loop, both_over, &scene, 60);
		run_until(scene.loop, first_pair_done, &scene, 60);
		pair_check_whole(pair);
		scene_end(&scene);
	}
}

static bool one_request(void *arg)
{
	return scene_of(arg)->requests == 1;
}

static void test_goodbye_has_a_limit(void **state)
{
	for (int role = 0; role < 2; role++) {
		struct scene scene;

		scene_begin(&scene);
		scene_pairs(&scene, 1);
		assert_int_equal(pair_open_to(&scene.pairs[0], "silent:1"), 0);
		run_until(scene.loop, one_request, &scene, 60);
		tunnel_close(scene.tunnels[role], 50, "too late");
		run_until(scene.loop, both_over, &scene, 3);
		assert_int_equal(scene.pairs[0].proxy_result.error, -ENOTCONN);
		assert_int_equal(scene.silent_over, 1);
		scene_end(&scene);
	}
}

static void test_idle_goodbye_is_quick(void **state)
{
	for (int role = 0; role < 2; role++) {
		struct scene scene;

		scene_begin(&scene);
		tunnel_close(scene.tunnels[role], 10000, "idle");
		run_until(scene.loop, both_over, &scene, 2);
		scene_end(&scene);
	}
}

static void test_lost_connection_ends_every_stream(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	pair->client.to_send = pair->service.to_send = 64 * MIB;
	pair_open(pair);
	run_until(scene.loop, transferring, &scene, 60);
	shutdown(chan_fd(scene.tunnels[0]->chan), SHUT_RDWR);
	run_until(scene.loop, both_over, &scene, 60);
	assert_int_equal(pair->proxy_result.error, -ENOTCONN);
	assert_int_equal(pair->agent_result.error, -ENOTCONN);
	scene_end(&scene);
}

static void test_pings_keep_an_idle_tunnel(void **state)
{
	struct tunnel_settings settings = scene_settings;
	struct scene scene;

	settings.ping_interval_ms = 100;
	settings.ping_count_max = 5;
	scene_begin_with(&scene, &settings);
	run_for(scene.loop, 800);
	assert_false(scene.over[0] || scene.over[1]);
	assert_true(tunnel_rtt_us(scene.tunnels[0]) > 0);
	scene_end(&scene);
}

static void on_pong(void *arg, uint32_t rtt_us)
{
	*(uint32_t *)arg = rtt_us;
}

static bool has_rtt(void *arg)
{
	return *(uint32_t *)arg > 0;
}

static void test_ping_on_request(void **state)
{
	struct scene scene;
	uint32_t rtt = 0;

	scene_begin(&scene);
	assert_int_equal(tunnel_ping(scene.tunnels[0], on_pong, &rtt), 0);
	assert_int_equal(tunnel_ping(scene.tunnels[0], on_pong, &rtt), -EBUSY);
	run_until(scene.loop, has_rtt, &rtt, 60);
	assert_int_equal(tunnel_ping(scene.tunnels[0], on_pong, &rtt), 0);
	scene_end(&scene);
}

static void test_keys_are_renewed_under_load(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene.hubs[0]->rekey_bytes = scene.hubs[1]->rekey_bytes = MIB / 4;
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	pair->client.to_send = pair->service.to_send = 6 * MIB;
	pair_open(pair);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(pair);
	assert_true(scene.tunnels[0]->written < 2 * MIB);
	scene_end(&scene);
}

static bool proxy_end_over(void *arg)
{
	return scene_of(arg)->over[TUNNEL_PROXY];
}

static void test_silence_ends_a_tunnel(void **state)
{
	struct tunnel_settings settings = scene_settings;
	struct loop *loop = loop_new();
	struct scene scene = {.loop = loop};
	struct chan *chans[2];
	int fds[2];

	settings.ping_interval_ms = 50;
	settings.ping_count_max = 3;
	assert_int_equal(sock_pair(fds), 0);
	tls_pair_chans(loop, fds, chans);
	scene.hubs[0] = tunnel_hub_new(loop, &settings);
	scene.tunnels[0] = tunnel_new(
		scene.hubs[0], TUNNEL_PROXY, chans[0], &scene_ops, &scene);
	run_for(loop, 50);
	assert_false(scene.over[0]);
	run_until(loop, proxy_end_over, &scene, 60);
	assert_non_null(strstr(scene.why[0], "nothing heard"));
	tunnel_hub_free(scene.hubs[0]);
	chan_free(chans[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

static void test_closing_at_once_does_not_wait_for_a_goodbye(void **state)
{
	struct loop *loop = loop_new();
	struct scene scene = {.loop = loop};
	struct chan *chans[2];
	int64_t started;
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	tls_pair_chans(loop, fds, chans);
	scene.hubs[0] = tunnel_hub_new(loop, &scene_settings);
	scene.tunnels[0] = tunnel_new(
		scene.hubs[0], TUNNEL_PROXY, chans[0], &scene_ops, &scene);
	tunnel_close(scene.tunnels[0], 60000, "goodbye");
	run_for(loop, 30); /* our end is sent, the peer's never comes */
	assert_false(scene.over[0]);
	started = loop_now(loop);
	tunnel_close(scene.tunnels[0], 0, "at once");
	run_until(loop, proxy_end_over, &scene, 60);
	assert_true(loop_now(loop) - started < TUNNEL_CLOSE_WAIT_MS / 2);
	tunnel_hub_free(scene.hubs[0]);
	chan_free(chans[1]);
	loop_turn(loop, false);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get_is_answered),
		cmocka_unit_test(test_largest_body_is_echoed),
		cmocka_unit_test(test_exchange_hears_of_a_lost_tunnel),
		cmocka_unit_test(test_pushed_lines_arrive_one_by_one),
		cmocka_unit_test(test_pushing_too_much_is_refused),
		cmocka_unit_test(test_open_answer_ends_with_the_goodbye),
		cmocka_unit_test(test_refusal_says_why),
		cmocka_unit_test(test_unanswered_connect_times_out),
		cmocka_unit_test(
			test_streams_beyond_the_agents_limit_are_not_queued),
		cmocka_unit_test(
			test_aborted_streams_leave_the_tunnel_untouched),
		cmocka_unit_test(test_goodbye_waits_for_streams),
		cmocka_unit_test(test_goodbye_has_a_limit),
		cmocka_unit_test(test_idle_goodbye_is_quick),
		cmocka_unit_test(test_lost_connection_ends_every_stream),
		cmocka_unit_test(test_pings_keep_an_idle_tunnel),
		cmocka_unit_test(test_ping_on_request),
		cmocka_unit_test(test_keys_are_renewed_under_load),
		cmocka_unit_test(test_silence_ends_a_tunnel),
		cmocka_unit_test(
			test_closing_at_once_does_not_wait_for_a_goodbye),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
