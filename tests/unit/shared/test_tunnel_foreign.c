/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a tunnel against a peer that is not ours: a bare nghttp2 session,
 * or bytes that are no HTTP/2 at all. Whatever it says costs a stream or the
 * tunnel, with a reason, and never the process.
 */
#include "tests/unit/shared/tunnel_scene.h"

#include <nghttp2/nghttp2.h>

struct foreign {
	struct chan *chan;
	nghttp2_session *session;
	const uint8_t *held; /* what the channel did not take */
	size_t held_len;
	int32_t closed_id;
	uint32_t closed_code;
	unsigned closed_count;
	int status;
	size_t body_len;
};

static int on_foreign_close(
	nghttp2_session *session, int32_t id, uint32_t code, void *user_data)
{
	struct foreign *foreign = user_data;

	foreign->closed_id = id;
	foreign->closed_code = code;
	foreign->closed_count++;
	return 0;
}

static int on_foreign_header(nghttp2_session *session,
	const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
	const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
	struct foreign *foreign = user_data;

	if (name_len == 7 && memcmp(name, ":status", 7) == 0)
		foreign->status = atoi((const char *)value);
	return 0;
}

static int on_foreign_data(nghttp2_session *session, uint8_t flags, int32_t id,
	const uint8_t *data, size_t len, void *user_data)
{
	((struct foreign *)user_data)->body_len += len;
	return 0;
}

static void foreign_send(struct foreign *foreign)
{
	for (;;) {
		ssize_t n;

		if (foreign->held_len == 0) {
			n = nghttp2_session_mem_send(
				foreign->session, &foreign->held);
			if (n <= 0)
				return;
			foreign->held_len = (size_t)n;
		}
		n = chan_write(foreign->chan, foreign->held, foreign->held_len);
		if (n < 0)
			return;
		foreign->held += n;
		foreign->held_len -= (size_t)n;
	}
}

static void on_foreign_ready(void *arg)
{
	struct foreign *foreign = arg;
	uint8_t buf[16384];
	ssize_t n;

	if (!foreign->session)
		return;
	while ((n = chan_read(foreign->chan, buf, sizeof(buf))) > 0)
		nghttp2_session_mem_recv(foreign->session, buf, (size_t)n);
	foreign_send(foreign);
}

struct closed_wait {
	const struct foreign *foreign;
	unsigned count;
};

static bool has_closed(void *arg)
{
	const struct closed_wait *wait = arg;

	return wait->foreign->closed_count >= wait->count;
}

static void wait_closed(
	struct loop *loop, const struct foreign *foreign, unsigned count)
{
	struct closed_wait wait = {foreign, count};

	run_until(loop, has_closed, &wait, 10);
}

static void foreign_begin(struct foreign *foreign, struct chan *chan)
{
	nghttp2_session_callbacks *callbacks;

	*foreign = (struct foreign){.chan = chan};
	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_stream_close_callback(
		callbacks, on_foreign_close);
	nghttp2_session_callbacks_set_on_header_callback(
		callbacks, on_foreign_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
		callbacks, on_foreign_data);
	nghttp2_session_client_new(&foreign->session, callbacks, foreign);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(foreign->session, NGHTTP2_FLAG_NONE, NULL, 0);
	chan_watch(chan, on_foreign_ready, foreign);
}

/* scene's end of role, and the channel of its peer. */
static struct chan *begin_half(struct scene *scene, enum tunnel_role role)
{
	struct chan *chans[2];
	int fds[2];

	*scene = (struct scene){.loop = loop_new()};
	assert_int_equal(sock_pair(fds), 0);
	tls_pair_chans(scene->loop, fds, chans);
	scene->hubs[role] = tunnel_hub_new(scene->loop, &scene_settings);
	scene->tunnels[role] = tunnel_new(
		scene->hubs[role], role, chans[0], &scene_ops, scene);
	return chans[1];
}

static bool one_over(void *arg)
{
	return scene_of(arg)->over[0] || scene_of(arg)->over[1];
}

static void end_half(
	struct scene *scene, enum tunnel_role role, struct chan *peer)
{
	if (!scene->over[role])
		tunnel_close(scene->tunnels[role], 0, "test over");
	run_until(scene->loop, one_over, scene, 3);
	for (unsigned i = 0; i < scene->pair_count; i++)
		endpoint_stop(&scene->pairs[i].service);
	free(scene->pairs);
	assert_int_equal(scene_stats(scene, (int)role).streams, 0);
	tunnel_hub_free(scene->hubs[role]);
	chan_free(peer);
	loop_turn(scene->loop, false);
	loop_free(scene->loop);
}

static void foreign_end(struct scene *scene, struct foreign *foreign)
{
	nghttp2_session_del(foreign->session);
	foreign->session = NULL;
	end_half(scene, TUNNEL_AGENT, foreign->chan);
}

#define NV(n, v)                                                    \
	{                                                           \
		.name = (uint8_t *)(n), .value = (uint8_t *)(v),    \
		.namelen = sizeof(n) - 1, .valuelen = sizeof(v) - 1 \
	}

static void test_end_of_stream_in_the_head(void **state)
{
	const nghttp2_nv connect[] = {
		NV(":method", "CONNECT"),
		NV(":authority", "p:0"),
	};
	struct foreign foreign;
	struct scene scene;
	struct chan *peer = begin_half(&scene, TUNNEL_AGENT);

	scene_pairs(&scene, 1);
	scene.pairs[0].service.to_send = 5000;
	foreign_begin(&foreign, peer);
	nghttp2_submit_request(foreign.session, NULL, connect, 2, NULL, NULL);
	foreign_send(&foreign);
	wait_closed(scene.loop, &foreign, 1);
	run_for(scene.loop, 10);
	assert_true(scene.pairs[0].service.eof);
	assert_int_equal(foreign.status, 200);
	assert_int_equal(foreign.body_len, 5000);
	assert_int_equal(foreign.closed_count, 1);
	assert_int_equal(foreign.closed_code, NGHTTP2_NO_ERROR);
	assert_true(scene.pairs[0].agent_over);
	assert_int_equal(scene.pairs[0].agent_result.error, 0);
	foreign_end(&scene, &foreign);
}

/* Submits a GET with count headers of len bytes each. */
static void ask_with_headers(struct foreign *foreign, size_t count, size_t len)
{
	nghttp2_nv fields[64] = {
		NV(":method", "GET"),
		NV(":scheme", "https"),
		NV(":authority", "agent"),
		NV(":path", "/x"),
	};
	char *value = malloc(len + 1);

	assert_non_null(value);
	memset(value, 'a', len);
	for (size_t i = 0; i < count; i++)
		fields[4 + i] = (nghttp2_nv){
			.name = (uint8_t *)"x-a",
			.value = (uint8_t *)value,
			.namelen = 3,
			.valuelen = len,
		};
	nghttp2_submit_request(
		foreign->session, NULL, fields, 4 + count, NULL, NULL);
	foreign_send(foreign);
	free(value);
}

static void test_heads_are_bounded(void **state)
{
	struct foreign foreign;
	struct scene scene;
	struct chan *peer = begin_half(&scene, TUNNEL_AGENT);

	foreign_begin(&foreign, peer);
	ask_with_headers(&foreign, 16, 100);
	wait_closed(scene.loop, &foreign, 1);
	assert_int_equal(foreign.status, 203);
	assert_int_equal(foreign.closed_code, NGHTTP2_NO_ERROR);
	ask_with_headers(&foreign, 17, 1);
	wait_closed(scene.loop, &foreign, 2);
	assert_int_not_equal(foreign.closed_code, NGHTTP2_NO_ERROR);
	ask_with_headers(&foreign, 4, 3000);
	wait_closed(scene.loop, &foreign, 3);
	assert_int_not_equal(foreign.closed_code, NGHTTP2_NO_ERROR);
	assert_int_equal(scene.requests, 1);
	assert_false(scene.over[TUNNEL_AGENT]);
	foreign_end(&scene, &foreign);
}

static ssize_t provide_zeros(nghttp2_session *session, int32_t id, uint8_t *buf,
	size_t len, uint32_t *flags, nghttp2_data_source *source,
	void *user_data)
{
	memset(buf, 0, len);
	return (ssize_t)len;
}

static void test_endless_body_costs_its_stream(void **state)
{
	const nghttp2_nv post[] = {
		NV(":method", "POST"),
		NV(":scheme", "https"),
		NV(":authority", "agent"),
		NV(":path", "/x"),
	};
	const nghttp2_data_provider provider = {.read_callback = provide_zeros};
	struct foreign foreign;
	struct scene scene;
	struct chan *peer = begin_half(&scene, TUNNEL_AGENT);

	foreign_begin(&foreign, peer);
	nghttp2_submit_request(foreign.session, NULL, post, 4, &provider, NULL);
	foreign_send(&foreign);
	wait_closed(scene.loop, &foreign, 1);
	assert_int_equal(foreign.closed_code, NGHTTP2_CANCEL);
	assert_int_equal(scene.requests, 0);
	ask_with_headers(&foreign, 0, 0);
	wait_closed(scene.loop, &foreign, 2);
	assert_int_equal(foreign.status, 203);
	foreign_end(&scene, &foreign);
}

static void test_connect_with_a_path_is_refused(void **state)
{
	const nghttp2_nv connect[] = {
		NV(":method", "CONNECT"),
		NV(":authority", "p:0"),
		NV(":path", "/"),
	};
	struct foreign foreign;
	struct scene scene;
	struct chan *peer = begin_half(&scene, TUNNEL_AGENT);

	foreign_begin(&foreign, peer);
	nghttp2_submit_request(foreign.session, NULL, connect, 3, NULL, NULL);
	foreign_send(&foreign);
	wait_closed(scene.loop, &foreign, 1);
	assert_int_equal(foreign.closed_code, NGHTTP2_PROTOCOL_ERROR);
	assert_int_equal(scene.requests, 0);
	assert_false(scene.over[TUNNEL_AGENT]);
	foreign_end(&scene, &foreign);
}

static void test_ordinary_client_on_the_proxys_port(void **state)
{
	struct foreign foreign;
	struct scene scene;
	struct chan *peer = begin_half(&scene, TUNNEL_PROXY);

	foreign_begin(&foreign, peer);
	foreign_send(&foreign);
	run_until(scene.loop, one_over, &scene, 3);
	assert_non_null(strstr(scene.why[TUNNEL_PROXY], "HTTP/2"));
	nghttp2_session_del(foreign.session);
	foreign.session = NULL;
	end_half(&scene, TUNNEL_PROXY, foreign.chan);
}

static void test_garbage_ends_the_tunnel(void **state)
{
	for (int role = 0; role < 2; role++) {
		struct scene scene;
		struct chan *peer = begin_half(&scene, (enum tunnel_role)role);

		assert_int_equal(chan_write(peer, pattern(), 10000), 10000);
		run_until(scene.loop, one_over, &scene, 3);
		assert_non_null(strstr(scene.why[role], "HTTP/2"));
		end_half(&scene, (enum tunnel_role)role, peer);
	}
}

static bool all_silent_over(void *arg)
{
	return scene_of(arg)->silent_over == 3000;
}

static void test_resets_by_the_thousand_are_borne(void **state)
{
	const nghttp2_nv connect[] = {
		NV(":method", "CONNECT"),
		NV(":authority", "silent:1"),
	};
	struct foreign foreign;
	struct scene scene;
	struct chan *peer = begin_half(&scene, TUNNEL_AGENT);

	foreign_begin(&foreign, peer);
	for (unsigned i = 0; i < 3000; i++) {
		int32_t id = nghttp2_submit_request(
			foreign.session, NULL, connect, 2, NULL, NULL);

		foreign_send(&foreign);
		nghttp2_submit_rst_stream(
			foreign.session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
		foreign_send(&foreign);
		if (i % 100 == 99)
			run_for(scene.loop, 1);
	}
	run_until(scene.loop, all_silent_over, &scene, 10);
	assert_int_equal(scene.requests, 3000);
	assert_false(scene.over[TUNNEL_AGENT]);
	foreign_end(&scene, &foreign);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_end_of_stream_in_the_head),
		cmocka_unit_test(test_heads_are_bounded),
		cmocka_unit_test(test_endless_body_costs_its_stream),
		cmocka_unit_test(test_connect_with_a_path_is_refused),
		cmocka_unit_test(test_ordinary_client_on_the_proxys_port),
		cmocka_unit_test(test_garbage_ends_the_tunnel),
		cmocka_unit_test(test_resets_by_the_thousand_are_borne),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
