/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load on streams that exist already: bench_peer.py has made them and lets this
 * program inherit their ends. Reads pairs of descriptor numbers from stdin, a
 * pair a line: what is written to the first comes out at the second. Leaves the
 * streams open, so that several loads can follow one another on them. Prints
 * one JSON object.
 *
 *   bench_streams bulk BYTES          of each pair, one way
 *   bench_streams echo ROUNDS SIZE    of each pair, there and back
 *
 * A newcomer's trap: a descriptor may stand in two pairs (both ways at once),
 * and the python process has it too; it must not be made non-blocking here.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define PAIRS_MAX 1000
#define CHUNK 65536
#define STALL_MS 60000

struct pair {
	int ends[2];
	uint64_t left[2];  /* bulk: to write and to read; echo: bytes to come */
	uint64_t rounds;   /* echo: still to go */
	double started_at; /* echo: of this round */
};

static struct pair pairs[PAIRS_MAX];
static struct pollfd pfds[2 * PAIRS_MAX];
static unsigned count;
static uint8_t buf[CHUNK];

static void fail(const char *what)
{
	fprintf(stderr, "bench_streams: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void read_pairs(void)
{
	struct pair *pair = pairs;

	while (count < PAIRS_MAX &&
		scanf("%d %d", &pair->ends[0], &pair->ends[1]) == 2) {
		pair++;
		count++;
	}
	if (count == 0)
		fail("no pairs");
}

static void wait_any(void)
{
	int ready = poll(pfds, 2 * count, STALL_MS);

	if (ready == 0)
		errno = ETIMEDOUT;
	if (ready <= 0)
		fail("stalled");
}

/* Sends or receives what is possible of at most max bytes. */
static size_t move(int fd, bool out, uint64_t max)
{
	size_t len = max < CHUNK ? (size_t)max : CHUNK;
	ssize_t n = out ? send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL)
			: recv(fd, buf, len, MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN)
		fail("a stream ended");
	if (n == 0 && !out) {
		errno = EPIPE;
		fail("a stream ended");
	}
	return n > 0 ? (size_t)n : 0;
}

/* ---- bulk ---- */

/* When so many bytes had come, 0 if never. */
static double marks[] = {0, 0, 0};
static const uint64_t mark_bytes[] = {1000000, 16000000, 64000000};

static void note_marks(uint64_t received, double seconds)
{
	for (unsigned i = 0; i < 3; i++)
		if (marks[i] == 0 && received >= mark_bytes[i])
			marks[i] = seconds;
}

static void run_bulk(uint64_t bytes)
{
	uint64_t total = bytes * count;
	uint64_t received = 0;
	double started = now_s();
	double seconds;

	for (unsigned i = 0; i < 2 * count; i++) {
		pairs[i / 2].left[i % 2] = bytes;
		pfds[i] = (struct pollfd){.fd = pairs[i / 2].ends[i % 2],
			.events = i % 2 ? POLLIN : POLLOUT};
	}
	while (received < total) {
		wait_any();
		for (unsigned i = 0; i < 2 * count; i++) {
			uint64_t *left = &pairs[i / 2].left[i % 2];
			size_t n;

			if (!pfds[i].revents)
				continue;
			n = move(pfds[i].fd, i % 2 == 0, *left);
			*left -= n;
			received += i % 2 ? n : 0;
			if (*left == 0)
				pfds[i].fd = -1;
		}
		note_marks(received, now_s() - started);
	}
	seconds = now_s() - started;
	printf("{\"seconds\":%.3f,\"mb_per_s\":%.1f,\"s_to_1_mb\":%.3f,"
	       "\"s_to_16_mb\":%.3f,\"s_to_64_mb\":%.3f}\n",
		seconds, (double)total / 1e6 / seconds, marks[0], marks[1],
		marks[2]);
}

/* ---- echo ---- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void write_all(int fd, size_t len)
{
	if (send(fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len)
		fail("cannot send");
}

static void begin_round(struct pair *pair, size_t size)
{
	pair->left[0] = pair->left[1] = size;
	pair->started_at = now_s();
	write_all(pair->ends[0], size);
}

/* An end has bytes: the second sends them back, at the first they are home.
 * True if a round is over. */
static bool take(struct pair *pair, int which, size_t size)
{
	size_t n = move(pair->ends[which], false, pair->left[which]);

	pair->left[which] -= n;
	if (which == 1 && n > 0)
		write_all(pair->ends[1], n);
	if (which == 1 && pair->left[1] == 0)
		pair->left[1] = size;
	return which == 0 && n > 0 && pair->left[0] == 0;
}

static void run_echo(uint64_t rounds, size_t size)
{
	size_t total = (size_t)rounds * count;
	double *times = calloc(total, sizeof(*times));
	size_t done = 0;
	double started = now_s();
	double seconds;

	if (!times)
		fail("memory");
	for (unsigned i = 0; i < 2 * count; i++)
		pfds[i] = (struct pollfd){
			.fd = pairs[i / 2].ends[i % 2], .events = POLLIN};
	for (unsigned i = 0; i < count; i++) {
		pairs[i].rounds = rounds;
		begin_round(&pairs[i], size);
	}
	while (done < total) {
		wait_any();
		for (unsigned i = 0; i < 2 * count; i++) {
			struct pair *pair = &pairs[i / 2];

			if (!pfds[i].revents || !take(pair, i % 2, size))
				continue;
			times[done++] = now_s() - pair->started_at;
			if (--pair->rounds > 0)
				begin_round(pair, size);
		}
	}
	seconds = now_s() - started;
	qsort(times, total, sizeof(*times), compare_doubles);
	printf("{\"seconds\":%.3f,\"round_trips_per_s\":%.0f,\"p50_ms\":%.3f,"
	       "\"p99_ms\":%.3f,\"max_ms\":%.3f}\n",
		seconds, (double)total / seconds, times[total / 2] * 1e3,
		times[total * 99 / 100] * 1e3, times[total - 1] * 1e3);
	free(times);
}

int main(int argc, char **argv)
{
	unsigned long long first = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	unsigned long size = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

	if (argc == 3 && strcmp(argv[1], "bulk") == 0 && first > 0) {
		read_pairs();
		run_bulk(first);
	} else if (argc == 4 && strcmp(argv[1], "echo") == 0 && first > 0 &&
		   size > 0 && size <= CHUNK) {
		read_pairs();
		run_echo(first, size);
	} else {
		fprintf(stderr, "usage: bench_streams bulk BYTES | "
				"echo ROUNDS SIZE\n");
		return 2;
	}
	return 0;
}
