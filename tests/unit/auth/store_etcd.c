/* SPDX-License-Identifier: Apache-2.0 */
/* See store.h: an etcd of its own for each test, and real time. */
#include "tests/unit/auth/store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "auth/backend_etcd.h"
#include "shared/alloc.h"

static int free_port(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(0, bind(fd, (void *)&addr, len));
	assert_int_equal(0, getsockname(fd, (void *)&addr, &len));
	close(fd);
	return ntohs(addr.sin_port);
}

static void exec_etcd(const struct store *s)
{
	char *data = xasprintf("%s/etcd", s->dir);
	char *client = xasprintf("http://127.0.0.1:%d", s->port);
	char *peer = xasprintf("http://127.0.0.1:%d", s->peer_port);
	char *cluster = xasprintf("default=%s", peer);
	char *quota = xasprintf("%llu", (unsigned long long)s->max_bytes);
	char *log = xasprintf("%s/etcd.log", s->dir);
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	dup2(fd, 1);
	dup2(fd, 2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execlp("etcd", "etcd", "--data-dir", data, "--listen-client-urls",
		client, "--advertise-client-urls", client, "--listen-peer-urls",
		peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", cluster, "--heartbeat-interval", "20",
		"--election-timeout", "200", "--log-level", "error", "--logger",
		"zap", "--quota-backend-bytes", quota, (char *)NULL);
	_exit(127);
}

void store_etcd_start(struct store *s)
{
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		exec_etcd(s);
}

void store_etcd_kill(struct store *s)
{
	int status;

	kill(s->pid, SIGKILL);
	waitpid(s->pid, &status, 0);
	if (WIFEXITED(status))
		fail_msg("etcd has ended by itself: is etcd-server installed? "
			 "status=%d",
			WEXITSTATUS(status));
}

static void begin(struct store *s)
{
	s->port = free_port();
	s->peer_port = free_port();
	store_etcd_start(s);
}

struct backend *store_etcd_open_second(struct store *s)
{
	char *endpoint = xasprintf("127.0.0.1:%d", s->port);
	struct backend_etcd_options options = {.etcd = {.endpoints = &endpoint,
						       .endpoint_count = 1,
						       .ca_file = "",
						       .cert_file = "",
						       .key_file = "",
						       .user = "",
						       .password_file = ""},
		.prefix = "/peerway-test",
		.compact_ms = 0};
	char *error = NULL;
	struct backend *backend =
		backend_etcd_new(s->loop, s->cq, &options, &error);

	if (!backend)
		fail_msg("%s", error);
	free(endpoint);
	return backend;
}

static void open_store(struct store *s)
{
	if (s->max_bytes != s->quota) {
		s->quota = s->max_bytes;
		store_etcd_kill(s);
		store_etcd_start(s);
	}
	s->backend = store_etcd_open_second(s);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void on_time(void *arg)
{
}

static void wait_ms(struct store *s, int64_t ms)
{
	struct timer *timer = timer_new(s->loop, on_time, NULL);
	int64_t deadline = now_ms() + ms;

	while (now_ms() < deadline) {
		timer_set(timer, deadline - now_ms());
		loop_turn(s->loop, true);
	}
	timer_free(timer);
}

static void stall(struct store *s, int64_t ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void end(struct store *s)
{
	store_etcd_kill(s);
}

const struct store_kind store_etcd = {
	begin, open_store, wait_ms, stall, stall, end, 2500};
