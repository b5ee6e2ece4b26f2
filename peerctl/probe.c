/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread for each probe, which has copies of all it needs and may outlive the
 * question: getaddrinfo() cannot be given a time.
 *
 * What a newcomer gets wrong: what a thread found is taken under the lock, and
 * only while somebody still waits for it. Threads that have found something are
 * joined, so that all they hold is free again; the others are left behind.
 */
#include "peerctl/probe.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/distrust.h"
#include "shared/sock.h"
#include "shared/tls.h"

#define SHOWN_MAX 8 /* addresses of a name */

/* What all of one question share. */
struct board {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned refs; /* threads, and whoever asks */
	unsigned left;
	bool over;
};

struct work {
	struct board *board;
	struct probe *probe; /* to be filled while !board->over */
	bool *done;	     /* to be set with it */
	struct probe found;  /* with copies of what was asked */
	char *addr;
	char *name;
	char *alpn;
	int64_t deadline;
	int64_t started;
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ll + ts.tv_nsec / 1000;
}

static void board_unref(struct board *board)
{
	bool last;

	pthread_mutex_lock(&board->lock);
	last = --board->refs == 0;
	pthread_mutex_unlock(&board->lock);
	if (!last)
		return;
	pthread_cond_destroy(&board->changed);
	pthread_mutex_destroy(&board->lock);
	free(board);
}

/* ---- one probe, in its thread ---- */

/* 0, or -errno. */
static int await(const struct work *work, int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left = (work->deadline - now_us()) / 1000;
	int n;

	if (left <= 0)
		return -ETIMEDOUT;
	n = poll(&p, 1, (int)left);
	return n > 0 ? 0 : n ? -errno : -ETIMEDOUT;
}

static void add_address(struct work *work, const struct addrinfo *info)
{
	struct sock_addr addr = {.len = info->ai_addrlen};
	char text[SOCK_ADDR_MAX];
	char *before = work->found.resolved;
	char *end;

	if (++work->found.count > SHOWN_MAX)
		return;
	memcpy(&addr.ss, info->ai_addr, info->ai_addrlen);
	sock_format(&addr, text, sizeof(text));
	end = strrchr(text, ':'); /* the port is the same for all */
	if (end)
		*end = '\0';
	work->found.resolved = xasprintf(
		"%s%s%s", before ? before : "", before ? ", " : "", text);
	free(before);
}

/* The list, or NULL and an error. */
static struct addrinfo *look_up(struct work *work)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char host[SOCK_ADDR_MAX];
	char service[8];
	uint16_t port;
	int ret;

	if (sock_split(work->addr, work->found.port, host, sizeof(host),
		    &port) < 0) {
		work->found.error = xstrdup("not host:port");
		return NULL;
	}
	snprintf(service, sizeof(service), "%u", port);
	ret = getaddrinfo(host, service, &hints, &list);
	if (ret) {
		work->found.error =
			xasprintf("%s: %s", host, gai_strerror(ret));
		return NULL;
	}
	for (const struct addrinfo *a = list; a; a = a->ai_next)
		add_address(work, a);
	return list;
}

/* To one of them; a descriptor, or -1 and an error. */
static int connect_any(struct work *work, const struct addrinfo *list)
{
	int ret = -EHOSTUNREACH;

	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		struct sock_addr addr = {.len = a->ai_addrlen};
		int fd;

		memcpy(&addr.ss, a->ai_addr, a->ai_addrlen);
		fd = sock_connect(&addr);
		ret = fd < 0 ? fd : await(work, fd, POLLOUT);
		if (!ret)
			ret = sock_error(fd);
		if (!ret)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	work->found.error = xasprintf("cannot connect: %s", strerror(-ret));
	return -1;
}

/* What to say of a handshake that failed. */
static char *tls_reason(SSL *ssl)
{
	long verdict = SSL_get_verify_result(ssl);
	char text[256];

	tls_error_text(text, sizeof(text));
	if (verdict != X509_V_OK)
		return xasprintf("its certificate: %s%s",
			X509_verify_cert_error_string(verdict),
			distrust_host_advice(distrust_of_verdict(verdict)));
	return xasprintf("TLS: %s%s", *text ? text : "it closed the connection",
		distrust_host_advice(distrust_of_text(text)));
}

static void shake_hands(struct work *work, int fd)
{
	SSL *ssl = SSL_new(work->found.ctx);
	int ret = 0;

	if (!ssl || SSL_set_fd(ssl, fd) != 1 ||
		(work->name &&
			tls_expect_name(ssl, work->name, work->name) < 0) ||
		(work->alpn && tls_set_alpn(ssl, work->alpn) < 0)) {
		work->found.error = xstrdup("cannot set up TLS");
		SSL_free(ssl);
		return;
	}
	while (!work->found.error && (ret = SSL_connect(ssl)) != 1) {
		int error = SSL_get_error(ssl, ret);
		int waited = 0;

		if (error != SSL_ERROR_WANT_READ &&
			error != SSL_ERROR_WANT_WRITE)
			work->found.error = tls_reason(ssl);
		else
			waited = await(work, fd,
				error == SSL_ERROR_WANT_READ ? POLLIN
							     : POLLOUT);
		if (waited)
			work->found.error =
				xasprintf("TLS: %s", strerror(-waited));
	}
	if (ret == 1)
		work->found.leaf = SSL_get1_peer_certificate(ssl);
	SSL_free(ssl);
}

static void probe_one(struct work *work)
{
	struct addrinfo *list = look_up(work);
	int fd;

	if (!list)
		return;
	fd = work->found.lookup_only ? -1 : connect_any(work, list);
	freeaddrinfo(list);
	if (fd < 0)
		return;
	if (work->found.ctx)
		shake_hands(work, fd);
	close(fd);
}

static void work_free(struct work *work)
{
	probe_deinit(&work->found);
	SSL_CTX_free(work->found.ctx);
	free(work->addr);
	free(work->name);
	free(work->alpn);
	free(work);
}

static void *run(void *arg)
{
	struct work *work = arg;
	struct board *board = work->board;

	probe_one(work);
	work->found.ms = (double)(now_us() - work->started) / 1000;
	pthread_mutex_lock(&board->lock);
	if (!board->over) {
		struct probe *probe = work->probe;

		free(probe->error);
		probe->error = work->found.error;
		probe->resolved = work->found.resolved;
		probe->count = work->found.count;
		probe->ms = work->found.ms;
		probe->leaf = work->found.leaf;
		work->found.error = work->found.resolved = NULL;
		work->found.leaf = NULL;
		*work->done = true;
		board->left--;
		pthread_cond_signal(&board->changed);
	}
	pthread_mutex_unlock(&board->lock);
	board_unref(board);
	work_free(work);
	return NULL;
}

/* ---- all of them ---- */

struct thread {
	pthread_t id;
	bool started;
	bool done; /* under the board's lock */
};

static void start(struct board *board, struct probe *probe,
	struct thread *thread, int64_t deadline)
{
	struct work *work = xcalloc(1, sizeof(*work));

	work->board = board;
	work->probe = probe;
	work->done = &thread->done;
	work->found.port = probe->port;
	work->found.lookup_only = probe->lookup_only;
	work->found.ctx = probe->ctx;
	if (probe->ctx)
		SSL_CTX_up_ref(probe->ctx);
	work->addr = xstrdup(probe->addr);
	work->name = xstrdup(probe->name);
	work->alpn = xstrdup(probe->alpn);
	work->started = now_us();
	work->deadline = deadline;
	probe->error = xstrdup("no answer in time");
	pthread_mutex_lock(&board->lock);
	board->refs++;
	board->left++;
	pthread_mutex_unlock(&board->lock);
	thread->started = pthread_create(&thread->id, NULL, run, work) == 0;
	if (thread->started)
		return;
	pthread_mutex_lock(&board->lock);
	board->left--;
	pthread_mutex_unlock(&board->lock);
	board_unref(board);
	work_free(work);
}

void probe_run(struct probe *probes, unsigned count, int timeout_ms)
{
	struct board *board = xcalloc(1, sizeof(*board));
	struct thread *threads = xcalloc(count + 1, sizeof(*threads));
	/* the threads give up by themselves a little earlier */
	int64_t end = now_us() + timeout_ms * 1000ll;
	struct timespec until = {.tv_sec = (end + 200000) / 1000000,
		.tv_nsec = (end + 200000) % 1000000 * 1000};
	pthread_condattr_t attr;
	int ret = 0;

	board->refs = 1;
	pthread_mutex_init(&board->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&board->changed, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned i = 0; i < count; i++)
		start(board, &probes[i], &threads[i], end);
	pthread_mutex_lock(&board->lock);
	while (board->left && !ret)
		ret = pthread_cond_timedwait(
			&board->changed, &board->lock, &until);
	board->over = true;
	pthread_mutex_unlock(&board->lock);
	/* nobody sets done any more */
	for (unsigned i = 0; i < count; i++) {
		if (threads[i].done)
			pthread_join(threads[i].id, NULL);
		else if (threads[i].started)
			pthread_detach(threads[i].id);
	}
	free(threads);
	board_unref(board);
}

void probe_deinit(struct probe *probe)
{
	free(probe->error);
	free(probe->resolved);
	X509_free(probe->leaf);
}
