/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A relay that lets every byte of a TCP connection arrive a fixed time later,
 * each way, without a limit of bandwidth: the distance between two peers on one
 * machine. Ends with its parent.
 *
 *   bench_delay LISTEN TARGET ONE_WAY_MS
 *
 * A newcomer's trap: its buffers hold a bandwidth-delay product, and poll()
 * counts in milliseconds, so a byte may be up to 1 ms late.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shared/sock.h"

#define LINES_MAX 16
#define PIECE 65536
/* One way holds at most PIECES of them: 128 MiB. */
#define PIECES 2048

struct piece {
	uint64_t due_us;
	size_t len;
	size_t sent;
	uint8_t *data;
};

/* A ring: what was read from one end and is not yet due at the other. */
struct way {
	struct piece pieces[PIECES];
	unsigned first;
	unsigned used;
	bool ended;
};

struct line {
	int ends[2];
	struct way *ways[2]; /* by the end that was read */
};

static struct line lines[LINES_MAX];
static unsigned count;
static uint64_t delay_us;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void fail(const char *what)
{
	fprintf(stderr, "bench_delay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void take(struct way *way, int fd)
{
	struct piece *piece = &way->pieces[(way->first + way->used) % PIECES];
	ssize_t n;

	if (!piece->data && !(piece->data = malloc(PIECE)))
		fail("memory");
	n = read(fd, piece->data, PIECE);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		way->ended = true;
		return;
	}
	piece->len = (size_t)n;
	piece->sent = 0;
	piece->due_us = now_us() + delay_us;
	way->used++;
}

/* Writes what is due. False when the other end is gone. */
static bool give(struct way *way, int fd)
{
	while (way->used > 0) {
		struct piece *piece = &way->pieces[way->first];
		ssize_t n;

		if (piece->due_us > now_us())
			return true;
		n = send(fd, piece->data + piece->sent,
			piece->len - piece->sent, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN;
		piece->sent += (size_t)n;
		if (piece->sent < piece->len)
			return true;
		way->first = (way->first + 1) % PIECES;
		way->used--;
	}
	if (way->ended)
		shutdown(fd, SHUT_WR);
	return true;
}

static void add_line(int listener, const struct sock_addr *target)
{
	struct line *line = &lines[count];
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct pollfd pfd;

	if (fd < 0)
		return;
	line->ends[0] = fd;
	line->ends[1] = sock_connect(target);
	pfd = (struct pollfd){.fd = line->ends[1], .events = POLLOUT};
	if (line->ends[1] < 0 || count == LINES_MAX - 1 ||
		poll(&pfd, 1, 5000) != 1)
		fail("cannot make a line");
	for (int i = 0; i < 2; i++) {
		sock_nodelay(line->ends[i]);
		line->ways[i] = calloc(1, sizeof(*line->ways[i]));
		if (!line->ways[i])
			fail("memory");
	}
	count++;
}

/* What to wait for at an end; shortens *timeout_ms to what is due next. */
static short interest(const struct line *line, int end, int *timeout_ms)
{
	const struct way *from = line->ways[end];
	const struct way *to = line->ways[1 - end];
	const struct piece *next = &to->pieces[to->first];
	uint64_t now = now_us();
	short events = 0;

	if (!from->ended && from->used < PIECES)
		events |= POLLIN;
	if (to->used > 0 && next->due_us <= now)
		events |= POLLOUT;
	else if (to->used > 0 &&
		 (int)((next->due_us - now + 999) / 1000) < *timeout_ms)
		*timeout_ms = (int)((next->due_us - now + 999) / 1000);
	return events;
}

static void turn(int listener, const struct sock_addr *target)
{
	struct pollfd pfds[2 * LINES_MAX + 1];
	unsigned lines_then = count;
	int timeout_ms = 1000;

	for (unsigned i = 0; i < 2 * count; i++) {
		struct line *line = &lines[i / 2];
		short events = interest(line, i % 2, &timeout_ms);

		pfds[i] = (struct pollfd){.fd = events ? line->ends[i % 2] : -1,
			.events = events};
	}
	pfds[2 * count] = (struct pollfd){.fd = listener, .events = POLLIN};
	poll(pfds, 2 * count + 1, timeout_ms);
	for (unsigned i = 0; i < 2 * lines_then; i++) {
		struct line *line = &lines[i / 2];
		int end = i % 2;

		if (pfds[i].revents && (pfds[i].events & POLLIN))
			take(line->ways[end], line->ends[end]);
		if (line->ways[1 - end]->used > 0 &&
			!give(line->ways[1 - end], line->ends[end]))
			fail("an end is gone");
	}
	if (pfds[2 * lines_then].revents)
		add_line(listener, target);
}

int main(int argc, char **argv)
{
	struct sock_addr addr;
	struct sock_addr target;
	int listener;

	if (argc != 4 || sock_parse(argv[1], 1, &addr) < 0 ||
		sock_parse(argv[2], 1, &target) < 0) {
		fprintf(stderr,
			"usage: bench_delay LISTEN TARGET ONE_WAY_MS\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	delay_us = strtoull(argv[3], NULL, 10) * 1000;
	listener = sock_listen(&addr, false, 16);
	if (listener < 0)
		fail("cannot listen");
	for (;;)
		turn(listener, &target);
}
