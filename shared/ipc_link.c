/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link to another process of this host: see ipc_link.h. It owns its socket,
 * the messages that wait for room, and, on the connecting side, the timer that
 * brings it back. A link goes down in one place, go_down(), at the end of a
 * turn, so handlers may send and drop without looking over their shoulder.
 */
#include "shared/ipc_link.h"

#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

#define QUEUE_MAX 4096
#define HELLO_DEADLINE_MS 5000
#define RETRY_MIN_MS 20
#define RETRY_MAX_MS 1000
#define READS_PER_TURN 64
#define SERVER_LINKS_MAX 256
#define ACCEPT_PAUSE_MS 100

enum link_state {
	LINK_DOWN,  /* no socket */
	LINK_HELLO, /* socket, the other side's HELLO not yet here */
	LINK_UP,
};

struct queued {
	STAILQ_ENTRY(queued) entry;
	size_t len;
	int fd; /* -1: none */
	uint8_t bytes[];
};

struct ipc_link {
	TAILQ_ENTRY(ipc_link) entry; /* in server->links */
	struct loop *loop;
	struct ipc_server *server; /* NULL: connecting or adopted */
	char *path;		   /* NULL: does not reconnect */
	struct ipc_self self;
	const struct ipc_link_ops *ops;
	void *arg;

	enum link_state state;
	int fd;
	Peerway__Ipc__Hello *hello; /* the other side's */
	STAILQ_HEAD(, queued) queue;
	size_t queue_len;
	uint32_t retry_ms;

	struct event *read_ev;
	struct event *write_ev;
	struct timer *timer; /* HELLO's deadline, or the next try */
	struct loop_task drop_task;
	char *drop_reason; /* set: goes down at the end of the turn */
	bool freed;
};

TAILQ_HEAD(link_list, ipc_link);

struct ipc_server {
	struct loop *loop;
	char *path;
	struct ipc_self self;
	const struct ipc_link_ops *ops;
	void *arg;
	int fd;
	struct event *accept_ev;
	struct timer *resume; /* after a pause for want of descriptors */
	struct link_list links;
	unsigned link_count;
	uint64_t refused;
};

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_timer(void *arg);
static void run_drop(struct loop_task *task);

static struct ipc_link *link_new(struct loop *loop, const struct ipc_self *self,
	const struct ipc_link_ops *ops, void *arg)
{
	struct ipc_link *link = xcalloc(1, sizeof(*link));

	link->loop = loop;
	link->self = *self;
	link->ops = ops;
	link->arg = arg;
	link->fd = -1;
	link->retry_ms = RETRY_MIN_MS;
	link->timer = timer_new(loop, on_timer, link);
	link->drop_task.run = run_drop;
	STAILQ_INIT(&link->queue);
	return link;
}

/* Closes the socket and forgets what belongs to it. */
static void link_close(struct ipc_link *link)
{
	struct queued *item;

	if (link->read_ev)
		event_free(link->read_ev);
	if (link->write_ev)
		event_free(link->write_ev);
	link->read_ev = link->write_ev = NULL;
	if (link->fd >= 0)
		close(link->fd);
	link->fd = -1;
	while ((item = STAILQ_FIRST(&link->queue))) {
		STAILQ_REMOVE_HEAD(&link->queue, entry);
		if (item->fd >= 0)
			close(item->fd);
		free(item);
	}
	link->queue_len = 0;
	if (link->hello)
		peerway__ipc__hello__free_unpacked(link->hello, NULL);
	link->hello = NULL;
	link->state = LINK_DOWN;
}

static void link_destroy(void *ptr)
{
	struct ipc_link *link = ptr;

	timer_free(link->timer);
	free(link->drop_reason);
	free(link->path);
	free(link);
}

void ipc_link_free(struct ipc_link *link)
{
	if (!link || link->freed)
		return;
	link->freed = true;
	loop_cancel(link->loop, &link->drop_task);
	link_close(link);
	timer_clear(link->timer);
	if (link->server) {
		TAILQ_REMOVE(&link->server->links, link, entry);
		link->server->link_count--;
	}
	loop_free_later(link->loop, link_destroy, link);
}

void ipc_link_drop(struct ipc_link *link, const char *reason)
{
	if (link->state == LINK_DOWN || link->drop_reason)
		return;
	link->drop_reason = xstrdup(reason);
	loop_defer(link->loop, &link->drop_task);
}

static void retry_later(struct ipc_link *link)
{
	uint32_t jitter = (uint32_t)random() % (link->retry_ms / 2 + 1);

	timer_set(link->timer, link->retry_ms / 2 + jitter);
	link->retry_ms *= 2;
	if (link->retry_ms > RETRY_MAX_MS)
		link->retry_ms = RETRY_MAX_MS;
}

static void run_drop(struct loop_task *task)
{
	struct ipc_link *link =
		(struct ipc_link *)((char *)task -
				    offsetof(struct ipc_link, drop_task));
	bool was_up = link->state == LINK_UP;
	char *reason = link->drop_reason;

	link->drop_reason = NULL;
	timer_clear(link->timer);
	link_close(link);
	if (!was_up)
		log_debug("link not established: %s path=%s", reason,
			link->path ? link->path : "-");
	/* A connecting link retries first, so that on_down may free it. */
	if (link->path) {
		retry_later(link);
		if (was_up && link->ops->on_down)
			link->ops->on_down(link, link->arg, reason);
	} else {
		if (was_up && link->ops->on_down)
			link->ops->on_down(link, link->arg, reason);
		ipc_link_free(link);
	}
	free(reason);
}

static int add_event(struct ipc_link *link, short what, event_callback_fn fn,
	struct event **event_out)
{
	*event_out = event_new(
		loop_base(link->loop), link->fd, what | EV_PERSIST, fn, link);
	return *event_out ? 0 : -ENOMEM;
}

/* Takes fd; sends our HELLO and waits for theirs. */
static void link_open(struct ipc_link *link, int fd)
{
	Peerway__Ipc__Hello hello = PEERWAY__IPC__HELLO__INIT;

	link->fd = fd;
	link->state = LINK_HELLO;
	if (add_event(link, EV_READ, on_readable, &link->read_ev) < 0 ||
		add_event(link, EV_WRITE, on_writable, &link->write_ev) < 0 ||
		event_add(link->read_ev, NULL) < 0) {
		ipc_link_drop(link, "cannot watch the socket");
		return;
	}
	hello.version = IPC_VERSION;
	hello.peer = link->self.peer;
	hello.worker = link->self.worker;
	hello.workers = link->self.workers;
	hello.pid = getpid();
	hello.build = (char *)PEERWAY_VERSION;
	ipc_link_send(link, IPC_HELLO, &hello.base, -1);
	timer_set(link->timer, HELLO_DEADLINE_MS);
}

static void try_connect(struct ipc_link *link)
{
	int fd = sock_unix_connect(link->path);

	if (fd < 0) {
		log_debug("cannot connect: %s path=%s", strerror(-fd),
			link->path);
		retry_later(link);
		return;
	}
	link_open(link, fd);
}

static void on_timer(void *arg)
{
	struct ipc_link *link = arg;

	if (link->state == LINK_DOWN)
		try_connect(link);
	else
		ipc_link_drop(link, "no HELLO in time");
}

struct ipc_link *ipc_link_connect(struct loop *loop, const char *path,
	const struct ipc_self *self, const struct ipc_link_ops *ops, void *arg)
{
	struct ipc_link *link = link_new(loop, self, ops, arg);

	link->path = xstrdup(path);
	timer_set(link->timer, 0);
	return link;
}

struct ipc_link *ipc_link_adopt(struct loop *loop, int fd,
	const struct ipc_self *self, const struct ipc_link_ops *ops, void *arg)
{
	struct ipc_link *link = link_new(loop, self, ops, arg);

	link_open(link, fd);
	return link;
}

static void handle_hello(struct ipc_link *link, struct ipc_msg *msg)
{
	Peerway__Ipc__Hello *hello = (Peerway__Ipc__Hello *)msg->payload;

	if (hello->version != IPC_VERSION) {
		log_warn("link refused: speaks version %u, this is %u: "
			 "install the same release everywhere pid=%u",
			hello->version, IPC_VERSION, hello->pid);
		ipc_link_drop(link, "other IPC version");
		return;
	}
	link->hello = hello;
	msg->payload = NULL;
	link->state = LINK_UP;
	link->retry_ms = RETRY_MIN_MS;
	timer_clear(link->timer);
	if (link->ops->on_up)
		link->ops->on_up(link, link->arg);
}

static void dispatch(struct ipc_link *link, struct ipc_msg *msg)
{
	const struct ipc_handlers *row = link->ops->handlers;

	if (link->state == LINK_HELLO) {
		if (msg->row->type == IPC_HELLO)
			handle_hello(link, msg);
		else
			ipc_link_drop(link, "first message is not HELLO");
		return;
	}
	while (row->handle && row->type != msg->row->type)
		row++;
	if (row->handle)
		row->handle(link, link->arg, msg);
	else
		ipc_link_drop(link, "message that does not belong here");
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct ipc_link *link = arg;

	/* state and drop_reason change when a handler frees or drops us; the
	 * memory itself lives until the end of the turn */
	for (int n = 0; n < READS_PER_TURN && link->state != LINK_DOWN &&
			!link->drop_reason;
		n++) {
		struct ipc_msg msg;
		enum ipc_result result = ipc_receive(link->fd, &msg);

		if (result == IPC_AGAIN)
			return;
		if (result == IPC_NO_FDS) {
			log_debug("message lost: out of descriptors");
			continue;
		}
		if (result != IPC_OK) {
			ipc_link_drop(link, ipc_result_text(result));
			return;
		}
		dispatch(link, &msg);
		ipc_msg_done(&msg);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct ipc_link *link = arg;
	struct queued *item;

	while ((item = STAILQ_FIRST(&link->queue))) {
		enum ipc_result result = ipc_transmit(
			link->fd, item->bytes, item->len, item->fd);

		if (result == IPC_AGAIN)
			return;
		if (result != IPC_OK) {
			ipc_link_drop(link, ipc_result_text(result));
			break;
		}
		STAILQ_REMOVE_HEAD(&link->queue, entry);
		link->queue_len--;
		if (item->fd >= 0)
			close(item->fd);
		free(item);
	}
	event_del(link->write_ev);
}

/* Takes fd. */
static int enqueue(
	struct ipc_link *link, const uint8_t *bytes, size_t len, int fd)
{
	struct queued *item;

	if (link->queue_len >= QUEUE_MAX) {
		if (fd >= 0)
			close(fd);
		ipc_link_drop(link, "the other side does not read");
		return -ENOBUFS;
	}
	item = xcalloc(1, sizeof(*item) + len);
	item->len = len;
	item->fd = fd;
	memcpy(item->bytes, bytes, len);
	STAILQ_INSERT_TAIL(&link->queue, item, entry);
	if (link->queue_len++ == 0)
		event_add(link->write_ev, NULL);
	return 0;
}

int ipc_link_send(struct ipc_link *link, enum ipc_type type,
	const ProtobufCMessage *payload, int fd)
{
	static uint8_t buf[IPC_MESSAGE_MAX];
	enum ipc_result result = IPC_AGAIN;
	int len = -ENOTCONN;

	if (link->state == LINK_UP ||
		(link->state == LINK_HELLO && type == IPC_HELLO))
		len = ipc_pack(type, payload, buf);
	if (len > 0 && link->queue_len == 0)
		result = ipc_transmit(link->fd, buf, len, fd);
	if (len > 0 && result == IPC_AGAIN)
		return enqueue(link, buf, len, fd);
	if (fd >= 0)
		close(fd);
	if (len < 0)
		return len;
	if (result != IPC_OK) {
		ipc_link_drop(link, ipc_result_text(result));
		return -ENOTCONN;
	}
	return 0;
}

bool ipc_link_is_up(const struct ipc_link *link)
{
	return link && link->state == LINK_UP && !link->drop_reason;
}

const Peerway__Ipc__Hello *ipc_link_hello(const struct ipc_link *link)
{
	return link->hello;
}

void ipc_link_set_arg(struct ipc_link *link, void *arg)
{
	link->arg = arg;
}

void *ipc_link_arg(const struct ipc_link *link)
{
	return link->arg;
}

/* ---- server ---- */

/* Whether the process behind fd is root, is us, or is in group. */
static bool may_connect(int fd, gid_t group)
{
	gid_t groups[256];
	socklen_t len = sizeof(struct ucred), groups_len = sizeof(groups);
	struct ucred cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return false;
	if (cred.uid == 0 || cred.uid == geteuid() || cred.gid == group)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_len) < 0)
		return false;
	for (size_t i = 0; i < groups_len / sizeof(*groups); i++) {
		if (groups[i] == group)
			return true;
	}
	return false;
}

/* The group that owns the directory of path; no group when it is root's, so
 * that a forgotten chgrp opens nothing. */
static gid_t directory_group(const char *path)
{
	char *copy = xstrdup(path);
	struct stat st;
	gid_t group = (gid_t)-1;

	if (stat(dirname(copy), &st) == 0 && st.st_gid != 0)
		group = st.st_gid;
	free(copy);
	return group;
}

static void on_resume(void *arg)
{
	struct ipc_server *server = arg;

	event_add(server->accept_ev, NULL);
}

static void on_acceptable(evutil_socket_t listener, short what, void *arg)
{
	struct ipc_server *server = arg;
	struct ipc_link *link;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* Level-triggered: out of descriptors it would spin. */
		if (errno == EMFILE || errno == ENFILE) {
			event_del(server->accept_ev);
			timer_set(server->resume, ACCEPT_PAUSE_MS);
		}
		return;
	}
	if (server->link_count >= SERVER_LINKS_MAX ||
		!may_connect(fd, directory_group(server->path))) {
		server->refused++;
		close(fd);
		return;
	}
	link = link_new(server->loop, &server->self, server->ops, server->arg);
	link->server = server;
	server->link_count++;
	TAILQ_INSERT_TAIL(&server->links, link, entry);
	link_open(link, fd);
}

struct ipc_server *ipc_server_new(struct loop *loop, const char *path,
	unsigned mode, const struct ipc_self *self,
	const struct ipc_link_ops *ops, void *arg)
{
	struct ipc_server *server;
	int fd = sock_unix_listen(path, mode);

	if (fd < 0) {
		errno = -fd;
		return NULL;
	}
	server = xcalloc(1, sizeof(*server));
	server->loop = loop;
	server->path = xstrdup(path);
	server->self = *self;
	server->ops = ops;
	server->arg = arg;
	server->fd = fd;
	TAILQ_INIT(&server->links);
	server->accept_ev = event_new(loop_base(loop), fd, EV_READ | EV_PERSIST,
		on_acceptable, server);
	server->resume = timer_new(loop, on_resume, server);
	if (!server->accept_ev || event_add(server->accept_ev, NULL) < 0)
		fatal("cannot watch a listening socket");
	return server;
}

void ipc_server_free(struct ipc_server *server)
{
	if (!server)
		return;
	while (!TAILQ_EMPTY(&server->links))
		ipc_link_free(TAILQ_FIRST(&server->links));
	event_free(server->accept_ev);
	timer_free(server->resume);
	close(server->fd);
	unlink(server->path);
	free(server->path);
	free(server);
}

uint64_t ipc_server_refused(const struct ipc_server *server)
{
	return server->refused;
}
