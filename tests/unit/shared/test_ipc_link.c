/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of a link in one loop, over a socket in a directory of its own. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/ctl.h"
#include "shared/ipc_link.h"
#include "shared/sock.h"

struct side {
	int ups, downs, messages;
	uint64_t last_id;
	int fd;
	char reason[128];
	struct ipc_link *link;
};

static struct {
	struct loop *loop;
	char dir[32], path[64];
	struct ipc_server *server;
	struct side s, c;
} t;

static void on_up(struct ipc_link *link, void *arg)
{
	struct side *side = arg;

	side->ups++;
	side->link = link;
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct side *side = arg;

	side->downs++;
	side->link = NULL;
	snprintf(side->reason, sizeof(side->reason), "%s", reason);
}

static void handle_cancel(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct side *side = arg;

	side->messages++;
	side->last_id = ((Peerway__Ipc__DialCancel *)msg->payload)->id;
}

static void handle_dial(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct side *side = arg;

	side->messages++;
	side->fd = ipc_take_fd(msg);
}

static const struct ipc_handlers handlers[] = {
	{IPC_DIAL_CANCEL, handle_cancel},
	{IPC_DIAL, handle_dial},
	{0, NULL},
};

static const struct ipc_link_ops ops = {handlers, on_up, on_down};
static const struct ipc_self peerd = {.peer = PEERWAY__IPC__PEER__PEER_PEERD};
static const struct ipc_self worker = {
	.peer = PEERWAY__IPC__PEER__PEER_WORKER, .worker = 3, .workers = 4};

static void start_server(void)
{
	t.server = ipc_server_new(t.loop, t.path, 0660, &peerd, &ops, &t.s);
	assert_non_null(t.server);
}

static int setup(void **state)
{
	memset(&t, 0, sizeof(t));
	strcpy(t.dir, "/tmp/peerway-test-XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.path, sizeof(t.path), "%s/p.sock", t.dir);
	t.loop = loop_new();
	t.s.fd = t.c.fd = -1;
	start_server();
	return 0;
}

static int teardown(void **state)
{
	ipc_server_free(t.server);
	loop_turn(t.loop, false);
	loop_free(t.loop);
	rmdir(t.dir);
	return 0;
}

static void on_late(void *arg)
{
	*(bool *)arg = true;
}

/* Turns until *value reaches want; 5 s at most. */
static void until(const int *value, int want)
{
	bool late = false;
	struct timer *timer = timer_new(t.loop, on_late, &late);

	timer_set(timer, 5000);
	while (*value < want && !late)
		loop_turn(t.loop, true);
	timer_free(timer);
	assert_int_equal(*value, want);
}

static struct ipc_link *connect_client(void)
{
	struct ipc_link *link =
		ipc_link_connect(t.loop, t.path, &worker, &ops, &t.c);

	until(&t.c.ups, 1);
	until(&t.s.ups, 1);
	return link;
}

static void hello_says_who_is_there(void **state)
{
	struct ipc_link *link = connect_client();

	assert_true(ipc_link_is_up(link));
	assert_int_equal(
		ipc_link_hello(link)->peer, PEERWAY__IPC__PEER__PEER_PEERD);
	assert_int_equal(ipc_link_hello(t.s.link)->worker, 3);
	assert_int_equal(ipc_link_hello(t.s.link)->workers, 4);
	assert_int_equal(ipc_link_hello(t.s.link)->pid, getpid());
	ipc_link_free(link);
	until(&t.s.downs, 1);
}

static void messages_wait_when_the_reader_is_slow(void **state)
{
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;
	struct ipc_link *link = connect_client();

	for (int i = 1; i <= 3000; i++) {
		cancel.id = i;
		assert_int_equal(
			ipc_link_send(link, IPC_DIAL_CANCEL, &cancel.base, -1),
			0);
	}
	until(&t.s.messages, 3000);
	assert_int_equal(t.s.last_id, 3000);
	ipc_link_free(link);
	until(&t.s.downs, 1);
}

static void a_reader_that_never_reads_loses_the_link(void **state)
{
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;
	struct ipc_link *link = connect_client();
	int ret = 0;

	for (int i = 0; i < 20000 && ret == 0; i++)
		ret = ipc_link_send(link, IPC_DIAL_CANCEL, &cancel.base, -1);
	assert_int_equal(ret, -ENOBUFS);
	until(&t.c.downs, 1);
	assert_string_equal(t.c.reason, "the other side does not read");
	ipc_link_free(link);
	until(&t.s.downs, 1);
}

static void a_descriptor_crosses(void **state)
{
	Peerway__Ipc__Dial dial = PEERWAY__IPC__DIAL__INIT;
	struct ipc_link *link = connect_client();

	ipc_link_send(link, IPC_DIAL, &dial.base, open("/dev/null", O_RDONLY));
	until(&t.s.messages, 1);
	assert_int_equal(close(t.s.fd), 0);
	ipc_link_free(link);
	until(&t.s.downs, 1);
}

static void the_client_comes_back_after_the_server(void **state)
{
	struct ipc_link *link = connect_client();

	ipc_server_free(t.server);
	until(&t.c.downs, 1);
	assert_false(ipc_link_is_up(link));
	start_server();
	until(&t.c.ups, 2);
	ipc_link_free(link);
	until(&t.s.downs, 1);
}

static void what_does_not_belong_drops_the_link(void **state)
{
	Peerway__Ipc__Cache cache = PEERWAY__IPC__CACHE__INIT;
	struct ipc_link *link = connect_client();

	ipc_link_send(link, IPC_CACHE, &cache.base, -1);
	until(&t.s.downs, 1);
	assert_string_equal(t.s.reason, "message that does not belong here");
	until(&t.c.downs, 1);
	ipc_link_free(link);
}

/* Speaks to the server without HELLO, or with a wrong one. */
static void bad_opening(const ProtobufCMessage *payload, enum ipc_type type)
{
	static uint8_t buf[IPC_MESSAGE_MAX];
	int fd = sock_unix_connect(t.path);
	int len = ipc_pack(type, payload, buf);
	struct ipc_msg msg;
	enum ipc_result result;
	bool late = false;
	struct timer *timer = timer_new(t.loop, on_late, &late);

	assert_true(fd >= 0);
	assert_int_equal(ipc_transmit(fd, buf, len, -1), IPC_OK);
	timer_set(timer, 5000);
	do {
		loop_turn(t.loop, true);
		result = ipc_receive(fd, &msg);
		if (result == IPC_OK)
			ipc_msg_done(&msg);
	} while (!late && (result == IPC_OK || result == IPC_AGAIN));
	assert_int_equal(result, IPC_EOF);
	assert_int_equal(t.s.ups, 0);
	timer_free(timer);
	close(fd);
}

static void another_version_is_refused(void **state)
{
	Peerway__Ipc__Hello hello = PEERWAY__IPC__HELLO__INIT;

	hello.version = IPC_VERSION + 1;
	bad_opening(&hello.base, IPC_HELLO);
}

static void who_does_not_say_hello_is_refused(void **state)
{
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;

	bad_opening(&cancel.base, IPC_DIAL_CANCEL);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(hello_says_who_is_there),
		TEST(messages_wait_when_the_reader_is_slow),
		TEST(a_reader_that_never_reads_loses_the_link),
		TEST(a_descriptor_crosses),
		TEST(the_client_comes_back_after_the_server),
		TEST(what_does_not_belong_drops_the_link),
		TEST(another_version_is_refused),
		TEST(who_does_not_say_hello_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
