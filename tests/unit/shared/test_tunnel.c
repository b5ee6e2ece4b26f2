/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes through a tunnel: everything arrives whole and in order, ends are
 * carried over one by one, and a reader that stops costs a bounded amount of
 * memory and nobody else's time.
 */
#include "tests/unit/shared/tunnel_scene.h"

static void test_many_transfers_both_ways_at_once(void **state)
{
	struct scene scene;

	scene_begin(&scene);
	scene_pairs(&scene, 64);
	for (unsigned i = 0; i < 64; i++) {
		scene.pairs[i].client.to_send = 8 * MIB + i;
		scene.pairs[i].service.to_send = 8 * MIB - i;
		pair_open(&scene.pairs[i]);
	}
	run_until(scene.loop, pairs_done, &scene, 120);
	for (unsigned i = 0; i < 64; i++)
		pair_check_whole(&scene.pairs[i]);
	assert_int_equal(scene_stats(&scene, 0).bytes_held, 0);
	assert_int_equal(scene_stats(&scene, 1).bytes_held, 0);
	assert_int_equal(scene_stats(&scene, 0).bytes_out, 64 * 8 * MIB + 2016);
	assert_int_equal(scene_stats(&scene, 0).bytes_in, 64 * 8 * MIB - 2016);
	scene_end(&scene);
}

static void test_empty_stream_ends_both_ways(void **state)
{
	struct scene scene;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair_open(&scene.pairs[0]);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(&scene.pairs[0]);
	scene_end(&scene);
}

static bool client_has_end(void *arg)
{
	return scene_of(arg)->pairs[0].client.eof;
}

static bool service_has_end(void *arg)
{
	return scene_of(arg)->pairs[0].service.eof;
}

static void test_service_ends_first_client_goes_on(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	pair->service.to_send = 1000;
	pair->client.hold_end = true;
	pair_open(pair);
	run_until(scene.loop, client_has_end, &scene, 60);
	assert_false(pair->proxy_over || pair->agent_over);
	pair->client.to_send = 5 * MIB;
	pair->client.hold_end = false;
	endpoint_resume(&pair->client);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(pair);
	scene_end(&scene);
}

static void test_client_ends_first_service_goes_on(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	pair->client.to_send = 1000;
	pair->service.hold_end = true;
	pair_open(pair);
	run_until(scene.loop, service_has_end, &scene, 60);
	assert_false(pair->proxy_over || pair->agent_over);
	pair->service.to_send = 5 * MIB;
	pair->service.hold_end = false;
	endpoint_resume(&pair->service);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(pair);
	scene_end(&scene);
}

static bool all_but_stalled_done(void *arg)
{
	struct scene *scene = scene_of(arg);

	for (unsigned i = 1; i < scene->pair_count; i++)
		if (!pair_is_done(&scene->pairs[i]))
			return false;
	return true;
}

/* Stream 0 has a reader that does not read; the sender is the service (held by
 * the proxy) or the client (held by the agent). */
static void check_stalled_reader(enum tunnel_role holder)
{
	struct tunnel_hub_stats stats;
	struct scene scene;

	scene_begin(&scene);
	scene_pairs(&scene, 4);
	for (unsigned i = 0; i < 4; i++) {
		scene.pairs[i].client.to_send = 16 * MIB;
		scene.pairs[i].service.to_send = 16 * MIB;
	}
	if (holder == TUNNEL_PROXY)
		scene.pairs[0].client.paused = true;
	else
		scene.pairs[0].service.paused = true;
	for (unsigned i = 0; i < 4; i++)
		pair_open(&scene.pairs[i]);
	run_until(scene.loop, all_but_stalled_done, &scene, 60);
	run_for(scene.loop, 100);
	stats = scene_stats(&scene, (int)holder);
	assert_true(stats.bytes_held > 0);
	assert_true(stats.bytes_held <= scene_settings.stream_buffer_max);
	assert_int_equal(scene_stats(&scene, 1 - (int)holder).bytes_held, 0);
	for (unsigned i = 1; i < 4; i++)
		pair_check_whole(&scene.pairs[i]);
	endpoint_resume(&scene.pairs[0].client);
	endpoint_resume(&scene.pairs[0].service);
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(&scene.pairs[0]);
	assert_int_equal(scene_stats(&scene, (int)holder).bytes_held, 0);
	scene_end(&scene);
}

static void test_stalled_client_is_bounded_and_loses_nothing(void **state)
{
	check_stalled_reader(TUNNEL_PROXY);
}

static void test_stalled_service_is_bounded_and_loses_nothing(void **state)
{
	check_stalled_reader(TUNNEL_AGENT);
}

static bool holds_two_mib(void *arg)
{
	return scene_stats(scene_of(arg), 0).bytes_held > 2 * MIB;
}

/* More stalled streams than fit the connection window: had they kept its
 * credit, everything would stop. */
static void test_many_stalled_readers_stop_nobody(void **state)
{
	struct scene scene;
	struct pair *echo;

	scene_begin(&scene);
	scene_pairs(&scene, 41);
	for (unsigned i = 0; i < 40; i++) {
		scene.pairs[i].service.to_send = 4 * MIB;
		scene.pairs[i].client.paused = true;
		pair_open(&scene.pairs[i]);
	}
	run_until(scene.loop, holds_two_mib, &scene, 60);
	echo = &scene.pairs[40];
	echo->client.to_send = echo->service.to_send = MIB;
	pair_open(echo);
	while (!pair_is_done(echo))
		run_for(scene.loop, 10);
	pair_check_whole(echo);
	for (unsigned i = 0; i < 40; i++)
		endpoint_resume(&scene.pairs[i].client);
	run_until(scene.loop, pairs_done, &scene, 60);
	for (unsigned i = 0; i < 40; i++)
		pair_check_whole(&scene.pairs[i]);
	scene_end(&scene);
}

static bool somebody_reset(void *arg)
{
	struct scene *scene = scene_of(arg);

	for (unsigned i = 0; i < scene->pair_count; i++)
		if (scene->pairs[i].proxy_over)
			return true;
	return false;
}

static void test_memory_bound_of_the_hub_resets_who_exceeds_it(void **state)
{
	struct tunnel_settings settings = scene_settings;
	unsigned reset = 0;
	struct scene scene;

	settings.buffer_max = 256 << 10;
	scene_begin_with(&scene, &settings);
	scene_pairs(&scene, 20);
	for (unsigned i = 0; i < 20; i++) {
		scene.pairs[i].service.to_send = 4 * MIB;
		scene.pairs[i].client.paused = true;
		pair_open(&scene.pairs[i]);
	}
	run_until(scene.loop, somebody_reset, &scene, 60);
	run_for(scene.loop, 100);
	assert_true(scene_stats(&scene, 0).bytes_held <= settings.buffer_max);
	for (unsigned i = 0; i < 20; i++)
		reset += scene.pairs[i].proxy_result.error == -ENOBUFS;
	assert_true(reset > 0 && reset < 20);
	assert_false(scene.over[0] || scene.over[1]);
	scene_end(&scene);
}

static bool agent_side_over(void *arg)
{
	return scene_of(arg)->pairs[0].agent_over;
}

/* The last bytes and END_STREAM have come, the client is slow, and the tunnel
 * goes: what was received is still delivered. */
static void test_received_bytes_outlive_the_tunnel(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	/* More than the socket pair takes, less than the window. */
	pair->service.to_send = 400000;
	pair->client.paused = true;
	pair_open(pair);
	run_until(scene.loop, agent_side_over, &scene, 60);
	run_for(scene.loop, 50);
	assert_true(scene_stats(&scene, 0).bytes_held > 0);
	tunnel_close(scene.tunnels[TUNNEL_AGENT], 0, "gone");
	run_until(scene.loop, both_over, &scene, 60);
	assert_true(pair->proxy_over);
	assert_int_equal(pair->proxy_result.error, 0);
	endpoint_resume(&pair->client);
	run_until(scene.loop, client_has_end, &scene, 60);
	assert_int_equal(pair->client.received, 400000);
	assert_false(pair->client.corrupt);
	assert_int_equal(scene_stats(&scene, 0).bytes_held, 0);
	scene_end(&scene);
}

static bool pair_over(void *arg)
{
	struct pair *pair = &scene_of(arg)->pairs[0];

	return pair->proxy_over && pair->agent_over;
}

static bool client_got_some(void *arg)
{
	return scene_of(arg)->pairs[0].client.received > MIB;
}

static void test_vanished_client_resets_the_stream_only(void **state)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 2);
	pair = &scene.pairs[0];
	pair->client.to_send = pair->service.to_send = 64 * MIB;
	scene.pairs[1].client.to_send = scene.pairs[1].service.to_send =
		8 * MIB;
	pair_open(pair);
	pair_open(&scene.pairs[1]);
	run_until(scene.loop, client_got_some, &scene, 60);
	endpoint_stop(&pair->client);
	run_until(scene.loop, pair_over, &scene, 60);
	assert_int_not_equal(pair->proxy_result.error, 0);
	assert_int_not_equal(pair->agent_result.error, 0);
	pair->client.error = pair->service.error = -ECONNRESET;
	run_until(scene.loop, pairs_done, &scene, 60);
	pair_check_whole(&scene.pairs[1]);
	scene_end(&scene);
}

static bool service_has_sent(void *arg)
{
	return scene_of(arg)->pairs[0].service.shut;
}

/* What the client sent in vain may make its end a reset. */
static bool client_is_done(void *arg)
{
	const struct endpoint *client = &scene_of(arg)->pairs[0].client;

	return client->eof || client->error;
}

/* A service that answers and closes with unread input must still be heard,
 * also by a client that goes on sending and reads late: over TCP, closing with
 * unread input would destroy what is under way to it. */
static void check_answer_of_a_service_that_left(bool tcp)
{
	struct scene scene;
	struct pair *pair;

	scene_begin(&scene);
	scene_pairs(&scene, 1);
	pair = &scene.pairs[0];
	pair->tcp = tcp;
	pair->client.hold_end = true;
	pair->client.paused = true;
	pair->service.to_send = 400000;
	pair_open(pair);
	run_until(scene.loop, service_has_sent, &scene, 60);
	run_for(scene.loop, 50);
	endpoint_stop(&pair->service);
	pair->client.to_send = 16 * MIB;
	endpoint_send(&pair->client);
	run_for(scene.loop, 200);
	endpoint_resume(&pair->client);
	run_until(scene.loop, client_is_done, &scene, 60);
	assert_int_equal(pair->client.received, 400000);
	assert_false(pair->client.corrupt);
	scene_end(&scene);
}

static void test_answer_of_a_service_that_left_arrives(void **state)
{
	check_answer_of_a_service_that_left(false);
	check_answer_of_a_service_that_left(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_transfers_both_ways_at_once),
		cmocka_unit_test(test_empty_stream_ends_both_ways),
		cmocka_unit_test(test_service_ends_first_client_goes_on),
		cmocka_unit_test(test_client_ends_first_service_goes_on),
		cmocka_unit_test(
			test_stalled_client_is_bounded_and_loses_nothing),
		cmocka_unit_test(
			test_stalled_service_is_bounded_and_loses_nothing),
		cmocka_unit_test(test_many_stalled_readers_stop_nobody),
		cmocka_unit_test(
			test_memory_bound_of_the_hub_resets_who_exceeds_it),
		cmocka_unit_test(test_received_bytes_outlive_the_tunnel),
		cmocka_unit_test(test_vanished_client_resets_the_stream_only),
		cmocka_unit_test(test_answer_of_a_service_that_left_arrives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
