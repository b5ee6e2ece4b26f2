/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>
#include <sys/socket.h>

#include "proxy/announce.h"
#include "proxy/drain.h"
#include "proxy/registry.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/ipc_link.h"

/* What peerd or routed would have heard. */
struct heard {
	struct loop *loop;
	size_t parts;
	size_t tunnels;
	size_t services;
	bool done;
};

static void handle_sync(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__TunnelSync *sync =
		(const Peerway__Ipc__TunnelSync *)msg->payload;
	struct heard *heard = arg;

	assert_int_equal(sync->first, heard->parts == 0);
	heard->parts++;
	for (size_t i = 0; i < sync->n_tunnels; i++) {
		const Peerway__Ipc__Tunnel *tunnel = sync->tunnels[i];

		heard->tunnels++;
		heard->services += tunnel->record->n_services;
		assert_int_equal(tunnel->tunnel_id, heard->tunnels);
		assert_string_equal(tunnel->remote_addr, "10.0.0.1:1");
		assert_string_equal(tunnel->record->proxy_id, "p");
	}
	heard->done = sync->last;
}

static const struct ipc_handlers handlers[] = {
	{IPC_TUNNEL_SYNC, handle_sync},
	{0, NULL},
};
static const struct ipc_link_ops hearing_ops = {.handlers = handlers};

static void on_up(struct ipc_link *link, void *arg)
{
	announce_all(arg, link);
}

static const struct ipc_handlers no_handlers[] = {{0, NULL}};
static const struct ipc_link_ops saying_ops = {
	.handlers = no_handlers,
	.on_up = on_up,
};

/* The largest that an agent may say of itself, or the smallest. */
static void add_agent(struct registry *registry, unsigned number, bool large)
{
	struct registration *r = xcalloc(1, sizeof(*r));

	snprintf(r->agent_id, sizeof(r->agent_id),
		"00000000-0000-4000-8000-%012u", number);
	snprintf(r->name, sizeof(r->name), "agent-%u", number);
	r->service_count = large ? REGISTRATION_SERVICES_MAX : 0;
	r->services = xcalloc(r->service_count + 1, sizeof(*r->services));
	for (size_t i = 0; i < r->service_count; i++) {
		memset(r->services[i].name, 's', IDENTITY_NAME_MAX - 1);
		memset(r->services[i].type, 't',
			sizeof(r->services[i].type) - 1);
		r->services[i].port = 65535;
	}
	r->label_count = large ? REGISTRATION_LABELS_MAX : 0;
	r->labels = xcalloc(r->label_count + 1, sizeof(*r->labels));
	for (size_t i = 0; i < r->label_count; i++) {
		memset(r->labels[i].name, 'l', IDENTITY_NAME_MAX - 1);
		memset(r->labels[i].value, 'v', sizeof(r->labels[i].value) - 1);
	}
	registry_add(registry, r, NULL, 1, "10.0.0.1:1");
}

static struct heard announced(unsigned count, unsigned large_every)
{
	struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_WORKER};
	struct worker worker = {.loop = loop_new(), .proxy_id = "p"};
	struct heard heard = {.loop = worker.loop};
	struct ipc_link *saying, *hearing;
	int fds[2];

	worker.registry = registry_new();
	worker.drain = drain_new(&worker);
	for (unsigned i = 0; i < count; i++)
		add_agent(worker.registry, i,
			large_every && i % large_every == 0);
	assert_int_equal(
		socketpair(AF_UNIX,
			SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
		0);
	hearing = ipc_link_adopt(
		worker.loop, fds[0], &self, &hearing_ops, &heard);
	saying = ipc_link_adopt(
		worker.loop, fds[1], &self, &saying_ops, &worker);
	for (int i = 0; i < 100000 && !heard.done; i++)
		loop_turn(worker.loop, false);
	assert_true(heard.done);
	ipc_link_free(saying);
	ipc_link_free(hearing);
	loop_turn(worker.loop, false);
	drain_free(worker.drain);
	registry_free(worker.registry);
	loop_free(worker.loop);
	return heard;
}

static void test_no_tunnel_is_said_too(void **state)
{
	struct heard heard = announced(0, 0);

	(void)state;
	assert_int_equal(heard.parts, 1);
	assert_int_equal(heard.tunnels, 0);
}

static void test_many_tunnels_go_in_parts(void **state)
{
	struct heard heard = announced(5000, 0);

	(void)state;
	assert_int_equal(heard.tunnels, 5000);
	assert_true(heard.parts >= 5000 / 512);
}

static void test_the_largest_registrations_fit(void **state)
{
	struct heard heard = announced(200, 3);

	(void)state;
	assert_int_equal(heard.tunnels, 200);
	assert_int_equal(heard.services, 67 * REGISTRATION_SERVICES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_tunnel_is_said_too),
		cmocka_unit_test(test_many_tunnels_go_in_parts),
		cmocka_unit_test(test_the_largest_registrations_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
