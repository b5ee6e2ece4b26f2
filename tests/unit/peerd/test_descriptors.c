/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/descriptors: what a walk over our own descriptors tells. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerd/descriptors.h"
#include "shared/sock.h"

static char page[65536];

static const char *read_page(uint16_t port)
{
	FILE *out = fmemopen(page, sizeof(page), "w");

	assert_non_null(out);
	descriptors_text(port, out);
	fclose(out);
	return page;
}

struct scene {
	int listener;
	int out;
	int in;
	uint16_t port;
	char remote[SOCK_ADDR_MAX];
};

/* A connection from 127.0.0.1 to a listener on addr. */
static struct scene connect_to(const char *listen_on)
{
	struct sock_addr addr, bound = {.len = sizeof(bound.ss)};
	char target[40];
	struct scene scene;

	assert_int_equal(sock_parse(listen_on, 0, &addr), 0);
	scene.listener = sock_listen(&addr, false, 4);
	assert_true(scene.listener >= 0);
	getsockname(scene.listener, (struct sockaddr *)&bound.ss, &bound.len);
	/* the port is at the same place in both families */
	scene.port = ntohs(((struct sockaddr_in *)&bound.ss)->sin_port);
	snprintf(target, sizeof(target), "127.0.0.1:%u", scene.port);
	assert_int_equal(sock_parse(target, 0, &addr), 0);
	scene.out = sock_connect(&addr);
	assert_true(scene.out >= 0);
	scene.in = accept(scene.listener, NULL, NULL);
	assert_true(scene.in >= 0);
	bound.len = sizeof(bound.ss);
	getsockname(scene.out, (struct sockaddr *)&bound.ss, &bound.len);
	sock_format(&bound, scene.remote, sizeof(scene.remote));
	return scene;
}

static void scene_close(const struct scene *scene)
{
	close(scene->listener);
	close(scene->out);
	close(scene->in);
}

static unsigned connections(const char *text)
{
	unsigned count = 0;

	while ((text = strstr(text, "\nproxy_peer_server_connections{"))) {
		count++;
		text++;
	}
	return count;
}

static void check_connection(const char *listen_on)
{
	struct scene scene = connect_to(listen_on);
	char line[400];
	const char *text;

	text = read_page(scene.port);
	snprintf(line, sizeof(line),
		"\nproxy_peer_server_connections{local_id=\"127.0.0.1:%u\","
		"remote_id=\"%s\",state=\"SERVER_CONN\"} 1\n",
		scene.port, scene.remote);
	assert_non_null(strstr(text, line));
	/* neither the listener nor the end that we have made */
	assert_int_equal(connections(text), 1);
	scene_close(&scene);
}

static void a_connection_made_to_us_is_one_series(void **state)
{
	check_connection("127.0.0.1:0");
}

static void ipv4_on_a_listener_for_both_is_written_as_ipv4(void **state)
{
	check_connection("[::]:0");
}

static void one_that_the_peer_has_closed_is_none(void **state)
{
	struct scene scene = connect_to("127.0.0.1:0");
	const char *text;

	shutdown(scene.out, SHUT_WR);
	text = read_page(scene.port);
	assert_int_equal(connections(text), 0);
	scene_close(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connection_made_to_us_is_one_series),
		cmocka_unit_test(
			ipv4_on_a_listener_for_both_is_written_as_ipv4),
		cmocka_unit_test(one_that_the_peer_has_closed_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
