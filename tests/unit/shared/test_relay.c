/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two endpoints, a relay between them, in every mix of plain and TLS: all
 * bytes arrive in order, ends are carried over one by one, a reader that stops
 * stops the sender, a reset reaches the other side.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "shared/relay.h"
#include "shared/sock.h"
#include "tests/unit/shared/endpoint.h"
#include "tests/unit/shared/tls_pair.h"

#define MIB (1u << 20)

struct scene {
	struct loop *loop;
	struct relay *relay;
	struct endpoint a;
	struct endpoint b;
	struct relay_result result;
	bool over;
};

static void on_end(void *arg, const struct relay_result *result)
{
	struct scene *scene = arg;

	assert_false(scene->over);
	scene->over = true;
	scene->result = *result;
}

static void make_side(struct loop *loop, bool tls, struct chan *chans[2])
{
	int fds[2];

	assert_int_equal(sock_pair(fds), 0);
	if (tls) {
		tls_pair_chans(loop, fds, chans);
		return;
	}
	chans[0] = chan_new_fd(loop, fds[0]);
	chans[1] = chan_new_fd(loop, fds[1]);
}

static void begin(struct scene *scene, bool tls_a, bool tls_b, uint64_t a_sends,
	uint64_t b_sends, size_t first)
{
	struct chan *a[2];
	struct chan *b[2];

	scene->loop = loop_new();
	make_side(scene->loop, tls_a, a);
	make_side(scene->loop, tls_b, b);
	endpoint_start(&scene->a, scene->loop, a[1], 1, 2, a_sends);
	scene->a.sent = first;
	endpoint_start(&scene->b, scene->loop, b[1], 2, 1, b_sends);
	scene->relay = relay_new(scene->loop, a[0], b[0], pattern_at(1, 0),
		first, on_end, scene);
}

static void end(struct scene *scene)
{
	endpoint_stop(&scene->a);
	endpoint_stop(&scene->b);
	loop_turn(scene->loop, false);
	loop_free(scene->loop);
}

static bool is_over(void *arg)
{
	struct scene *scene = arg;

	return scene->over && endpoint_done(&scene->a) &&
	       endpoint_done(&scene->b);
}

static void check_whole(struct scene *scene)
{
	assert_int_equal(scene->result.error, 0);
	assert_int_equal(scene->result.a_to_b, scene->a.to_send);
	assert_int_equal(scene->result.b_to_a, scene->b.to_send);
	assert_int_equal(scene->b.received, scene->a.to_send);
	assert_int_equal(scene->a.received, scene->b.to_send);
	assert_false(scene->a.corrupt || scene->b.corrupt);
	assert_false(scene->a.error || scene->b.error);
	assert_false(scene->a.send_error || scene->b.send_error);
}

static void test_both_directions_arrive_whole(void **state)
{
	for (int mix = 0; mix < 4; mix++) {
		struct scene scene = {0};

		begin(&scene, mix & 1, mix & 2, 20 * MIB + 3, 13 * MIB + 1, 0);
		run_until(scene.loop, is_over, &scene, 20);
		check_whole(&scene);
		end(&scene);
	}
}

static void test_first_bytes_go_ahead(void **state)
{
	struct scene scene = {0};

	begin(&scene, false, true, MIB, 0, 60000);
	run_until(scene.loop, is_over, &scene, 20);
	check_whole(&scene);
	end(&scene);
}

static bool a_sees_end(void *arg)
{
	return ((struct scene *)arg)->a.eof;
}

static void test_one_direction_goes_on_after_the_other_ended(void **state)
{
	for (int mix = 0; mix < 4; mix++) {
		struct scene scene = {.a = {.hold_end = true}};

		begin(&scene, mix & 1, mix & 2, 0, 1000, 0);
		run_until(scene.loop, a_sees_end, &scene, 20);
		assert_false(scene.over);
		scene.a.to_send = 3 * MIB;
		scene.a.hold_end = false;
		endpoint_resume(&scene.a);
		run_until(scene.loop, is_over, &scene, 20);
		check_whole(&scene);
		end(&scene);
	}
}

static void test_stopped_reader_stops_the_sender(void **state)
{
	for (int mix = 0; mix < 4; mix++) {
		struct scene scene = {.b = {.paused = true}};

		begin(&scene, mix & 1, mix & 2, 32 * MIB, 0, 0);
		run_for(scene.loop, 200);
		/* The relay's buffer and four kernel buffers. */
		assert_true(scene.a.sent < 4 * MIB);
		endpoint_resume(&scene.b);
		run_until(scene.loop, is_over, &scene, 20);
		check_whole(&scene);
		end(&scene);
	}
}

static bool b_got_some(void *arg)
{
	return ((struct scene *)arg)->b.received > MIB;
}

static bool over_and_b_knows(void *arg)
{
	struct scene *scene = arg;

	return scene->over && (scene->b.error || scene->b.eof);
}

static void test_reset_midway_ends_both(void **state)
{
	for (int mix = 0; mix < 4; mix++) {
		struct scene scene = {.b = {.hold_end = true}};

		begin(&scene, mix & 1, mix & 2, 64 * MIB, 64 * MIB, 0);
		run_until(scene.loop, b_got_some, &scene, 20);
		/* Unread bytes make this a reset on a UNIX socket. */
		endpoint_stop(&scene.a);
		run_until(scene.loop, over_and_b_knows, &scene, 20);
		assert_int_not_equal(scene.result.error, 0);
		assert_true(scene.b.received < 64 * MIB);
		end(&scene);
	}
}

static void test_freed_relay_says_nothing(void **state)
{
	struct scene scene = {0};

	begin(&scene, false, true, MIB, MIB, 0);
	loop_turn(scene.loop, false);
	relay_free(scene.relay);
	run_for(scene.loop, 50);
	assert_false(scene.over);
	end(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_directions_arrive_whole),
		cmocka_unit_test(test_first_bytes_go_ahead),
		cmocka_unit_test(
			test_one_direction_goes_on_after_the_other_ended),
		cmocka_unit_test(test_stopped_reader_stops_the_sender),
		cmocka_unit_test(test_reset_midway_ends_both),
		cmocka_unit_test(test_freed_relay_says_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
