/* SPDX-License-Identifier: Apache-2.0 */
/* One message and its descriptor, over a real socket pair. */
#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/ipc.h"

static int descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

struct pair {
	int a, b;
	int before; /* descriptors open ahead of the pair */
};

static void setup(struct pair *pair)
{
	int fds[2];

	pair->before = descriptors();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	pair->a = fds[0];
	pair->b = fds[1];
}

static void teardown_and_check_leaks(struct pair *pair)
{
	close(pair->a);
	close(pair->b);
	assert_int_equal(descriptors(), pair->before);
}

/* Sends bytes with count descriptors, as a broken program might. */
static void send_raw(int socket, const void *bytes, size_t len, int count)
{
	union {
		char bytes[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec iov = {(void *)bytes, len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[8];

	for (int i = 0; i < count; i++)
		fds[i] = open("/dev/null", O_RDONLY);
	if (count > 0) {
		mh.msg_control = &control;
		mh.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	assert_int_equal(sendmsg(socket, &mh, 0), len);
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

static int pack_dial(uint8_t *buf)
{
	Peerway__Ipc__Dial dial = PEERWAY__IPC__DIAL__INIT;

	dial.id = 7;
	dial.agent_id = (char *)"agent";
	return ipc_pack(IPC_DIAL, &dial.base, buf);
}

static uint8_t buf[IPC_MESSAGE_MAX + 2];

static void a_descriptor_arrives_with_its_message(void **state)
{
	Peerway__Ipc__Dial *dial;
	struct ipc_msg msg;
	struct pair pair;
	int fd, len;

	setup(&pair);
	len = pack_dial(buf);
	fd = open("/dev/null", O_RDONLY);
	assert_int_equal(ipc_transmit(pair.a, buf, len, fd), IPC_OK);
	close(fd);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_OK);
	assert_int_equal(msg.row->type, IPC_DIAL);
	dial = (Peerway__Ipc__Dial *)msg.payload;
	assert_int_equal(dial->id, 7);
	assert_string_equal(dial->agent_id, "agent");
	assert_true(fcntl(msg.fd, F_GETFD) & FD_CLOEXEC);
	fd = ipc_take_fd(&msg);
	ipc_msg_done(&msg);
	assert_int_equal(close(fd), 0);
	teardown_and_check_leaks(&pair);
}

static void what_nobody_takes_is_closed(void **state)
{
	struct ipc_msg msg;
	struct pair pair;

	setup(&pair);
	send_raw(pair.a, buf, pack_dial(buf), 1);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_OK);
	ipc_msg_done(&msg);
	teardown_and_check_leaks(&pair);
}

static void missing_surplus_and_surprise_descriptors_are_refused(void **state)
{
	Peerway__Ipc__DialCancel cancel = PEERWAY__IPC__DIAL_CANCEL__INIT;
	static const int counts[] = {0, 2, 3, 8};
	struct ipc_msg msg;
	struct pair pair;
	int len;

	setup(&pair);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		send_raw(pair.a, buf, pack_dial(buf), counts[i]);
		assert_int_equal(ipc_receive(pair.b, &msg), IPC_BAD_FDS);
	}
	len = ipc_pack(IPC_DIAL_CANCEL, &cancel.base, buf);
	send_raw(pair.a, buf, len, 1);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_BAD_FDS);
	teardown_and_check_leaks(&pair);
}

static void our_own_shortage_is_told_apart(void **state)
{
	struct rlimit old, none;
	struct ipc_msg msg;
	struct pair pair;

	if (getenv("PEERWAY_VALGRIND"))
		skip(); /* valgrind keeps the limit to itself */
	setup(&pair);
	send_raw(pair.a, buf, pack_dial(buf), 1);
	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_NO_FDS);
	setrlimit(RLIMIT_NOFILE, &old);
	teardown_and_check_leaks(&pair);
}

static void malformed_messages_are_refused(void **state)
{
	struct ipc_msg msg;
	struct pair pair;
	int len;

	setup(&pair);
	len = pack_dial(buf);
	send_raw(pair.a, buf, 3, 1); /* short */
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_MALFORMED);
	buf[0] ^= 1; /* magic */
	send_raw(pair.a, buf, len, 1);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_MALFORMED);
	pack_dial(buf);
	buf[4] = 0xff; /* type */
	send_raw(pair.a, buf, len, 1);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_MALFORMED);
	pack_dial(buf);
	buf[7] = 1; /* reserved */
	send_raw(pair.a, buf, len, 1);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_MALFORMED);
	pack_dial(buf);
	memset(buf + IPC_HEADER_SIZE, 0xff,
		len - IPC_HEADER_SIZE); /* payload */
	send_raw(pair.a, buf, len, 1);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_MALFORMED);
	pack_dial(buf);
	send_raw(pair.a, buf, IPC_MESSAGE_MAX + 1, 1); /* long */
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_MALFORMED);
	teardown_and_check_leaks(&pair);
}

static void a_message_too_long_is_not_packed(void **state)
{
	Peerway__Ipc__CtlReply reply = PEERWAY__IPC__CTL_REPLY__INIT;

	reply.part.data = buf;
	reply.part.len = IPC_MESSAGE_MAX;
	assert_int_equal(ipc_pack(IPC_CTL_REPLY, &reply.base, buf), -EMSGSIZE);
}

static void the_end_is_the_end(void **state)
{
	struct ipc_msg msg;
	struct pair pair;

	setup(&pair);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_AGAIN);
	shutdown(pair.a, SHUT_WR);
	assert_int_equal(ipc_receive(pair.b, &msg), IPC_EOF);
	teardown_and_check_leaks(&pair);
}

static void every_type_has_one_row(void **state)
{
	static const unsigned types[] = {IPC_HELLO, IPC_TUNNEL_SYNC,
		IPC_TUNNEL_UP, IPC_TUNNEL_DOWN, IPC_TUNNEL_CLOSE, IPC_DIAL,
		IPC_DIAL_CANCEL, IPC_DIAL_OK, IPC_DIAL_FAILED, IPC_CACHE,
		IPC_IDENTITY, IPC_LOOKUP, IPC_LOOKUP_REPLY, IPC_JOIN,
		IPC_JOIN_REPLY, IPC_CTL_REQUEST, IPC_CTL_REPLY};

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		const struct ipc_row *row = ipc_row(types[i]);

		assert_non_null(row);
		assert_int_equal(row->type, types[i]);
		assert_int_equal(
			row->fd == IPC_FD_ALWAYS, types[i] == IPC_DIAL);
	}
	assert_null(ipc_row(0));
	assert_null(ipc_row(9999));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_descriptor_arrives_with_its_message),
		cmocka_unit_test(what_nobody_takes_is_closed),
		cmocka_unit_test(
			missing_surplus_and_surprise_descriptors_are_refused),
		cmocka_unit_test(our_own_shortage_is_told_apart),
		cmocka_unit_test(malformed_messages_are_refused),
		cmocka_unit_test(a_message_too_long_is_not_packed),
		cmocka_unit_test(the_end_is_the_end),
		cmocka_unit_test(every_type_has_one_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
