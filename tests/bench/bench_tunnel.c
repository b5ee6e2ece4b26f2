/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tunnel costs, measured against a raw TLS relay of the same shape:
 *
 *   generator --socket--> proxy process ==TLS over TCP==> agent process
 *             <--socket----------------------------------
 *
 * The generator (this process) feeds and drains both ends; CPU time is that of
 * the two others alone. The raw relay has a TLS connection per stream. Prints
 * one JSON object a line:
 *
 *   bench_tunnel bulk STREAMS MEGABYTES up|down tunnel|raw
 *   bench_tunnel echo STREAMS ROUNDS tunnel|raw
 *   bench_tunnel memory TUNNELS
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/relay.h"
#include "shared/sock.h"
#include "shared/tunnel.h"
#include "tests/unit/shared/tls_pair.h"

#define STREAMS_MAX 1000

/* One process of the pair. Its ends of the streams were made before fork(). */
struct side {
	enum tunnel_role role;
	bool raw;
	unsigned streams;
	unsigned tunnels;
	int fds[STREAMS_MAX]; /* towards the generator */
	int tell_fd;	      /* a byte when ready; RSS when asked */
	struct loop *loop;
	struct tunnel_hub *hub;
	SSL_CTX *ctx;
	struct chan **lines; /* TLS connections */
	unsigned ready;
	unsigned over;
	unsigned wanted; /* streams or tunnels that must end */
};

static const struct tunnel_settings settings = {
	.max_streams = 10000,
	.ping_interval_ms = 15000,
	.ping_count_max = 4,
	.stream_buffer_max = 16 << 20,
	.buffer_max = 256 << 20,
};

static void fail(const char *what)
{
	fprintf(stderr, "bench_tunnel: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static unsigned long rss_anon_kib(void)
{
	char line[256];
	unsigned long kib = 0;
	FILE *file = fopen("/proc/self/status", "r");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

static void tell(struct side *side, unsigned long value)
{
	if (write(side->tell_fd, &value, sizeof(value)) != sizeof(value))
		fail("cannot tell");
}

static unsigned long hear(int fd)
{
	unsigned long value;

	if (read(fd, &value, sizeof(value)) != sizeof(value)) {
		errno = ECHILD;
		fail("a side ended early");
	}
	return value;
}

static void count_end(struct side *side)
{
	if (++side->over == side->wanted)
		loop_stop(side->loop);
}

static void on_relay_end(void *arg, const struct relay_result *result)
{
	count_end(arg);
}

static void on_stream_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	count_end(arg);
}

static const struct tunnel_stream_ops agent_stream_ops = {
	.on_end = on_stream_end,
};

static void on_response(
	struct tunnel_stream *stream, void *arg, int status, const char *text)
{
	struct side *side = arg;

	tunnel_stream_join(stream,
		chan_new_fd(side->loop, side->fds[side->ready++]), NULL, 0);
	if (side->ready == side->streams)
		tell(side, 0);
}

static const struct tunnel_stream_ops proxy_stream_ops = {
	.on_response = on_response,
	.on_end = on_stream_end,
};

static void on_ready(struct tunnel *tunnel, void *arg)
{
	struct side *side = arg;

	if (side->tunnels > 0) {
		if (++side->ready == side->tunnels)
			tell(side, 0);
		return;
	}
	for (unsigned i = 0; side->role == TUNNEL_PROXY && i < side->streams;
		i++) {
		struct tunnel_stream *stream;
		char name[16];

		snprintf(name, sizeof(name), "s:%u", i);
		if (tunnel_connect(tunnel, name, NULL, 0, 10000,
			    &proxy_stream_ops, side, &stream) < 0)
			fail("cannot open a stream");
	}
}

static void on_request(struct tunnel *tunnel, void *arg,
	struct tunnel_stream *stream, const struct tunnel_request *request,
	const uint8_t *body, size_t len)
{
	struct side *side = arg;
	unsigned index = (unsigned)strtoul(request->authority + 2, NULL, 10);

	tunnel_stream_set_ops(stream, &agent_stream_ops, side);
	tunnel_stream_join(
		stream, chan_new_fd(side->loop, side->fds[index]), NULL, 0);
}

static void on_tunnel_end(struct tunnel *tunnel, void *arg, const char *reason)
{
	struct side *side = arg;

	if (side->tunnels > 0)
		count_end(side);
}

static const struct tunnel_ops ops = {
	.on_ready = on_ready,
	.on_request = on_request,
	.on_end = on_tunnel_end,
};

static struct chan *handshake(struct side *side, int fd)
{
	SSL *ssl = SSL_new(side->ctx);
	struct chan *chan;
	int ret;

	if (side->role == TUNNEL_PROXY)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	chan = chan_new_tls(side->loop, fd, ssl);
	while ((ret = chan_handshake(chan)) == -EAGAIN) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};

		poll(&pfd, 1, 1000);
	}
	if (ret < 0)
		fail("TLS handshake");
	return chan;
}

/* Connects count TLS lines to the other side, one after the other. */
static void make_lines(struct side *side, const struct sock_addr *addr,
	int listener, unsigned count)
{
	side->lines = calloc(count, sizeof(*side->lines));
	for (unsigned i = 0; i < count; i++) {
		struct pollfd pfd = {.fd = listener, .events = POLLIN};
		int fd;

		if (side->role == TUNNEL_PROXY) {
			poll(&pfd, 1, 10000);
			fd = accept4(listener, NULL, NULL,
				SOCK_CLOEXEC | SOCK_NONBLOCK);
		} else {
			fd = sock_connect(addr);
			pfd = (struct pollfd){.fd = fd, .events = POLLOUT};
			poll(&pfd, 1, 10000);
		}
		if (fd < 0)
			fail("cannot connect");
		sock_nodelay(fd);
		side->lines[i] = handshake(side, fd);
	}
}

static void run_raw(struct side *side)
{
	side->wanted = side->streams;
	for (unsigned i = 0; i < side->streams; i++)
		relay_new(side->loop, chan_new_fd(side->loop, side->fds[i]),
			side->lines[i], NULL, 0, on_relay_end, side);
	if (side->role == TUNNEL_PROXY)
		tell(side, 0);
	loop_run(side->loop);
}

static void run_tunnel(struct side *side)
{
	side->hub = tunnel_hub_new(side->loop, &settings);
	side->wanted = side->streams;
	tunnel_new(side->hub, side->role, side->lines[0], &ops, side);
	loop_run(side->loop);
}

static void on_measure(void *arg)
{
	struct side *side = arg;

	tell(side, rss_anon_kib());
	if (side->role == TUNNEL_AGENT) /* stays until the proxy has gone */
		return;
	exit(0);
}

/* Tells what memory was taken before the tunnels and 4 s after the last. */
static void run_memory(
	struct side *side, const struct sock_addr *addr, int listener)
{
	struct timer *timer = timer_new(side->loop, on_measure, side);

	side->hub = tunnel_hub_new(side->loop, &settings);
	side->wanted = side->tunnels;
	tell(side, rss_anon_kib());
	make_lines(side, addr, listener, side->tunnels);
	for (unsigned i = 0; i < side->tunnels; i++)
		tunnel_new(side->hub, side->role, side->lines[i], &ops, side);
	timer_set(timer, 4000);
	loop_run(side->loop);
}

static pid_t start(
	struct side *side, const struct sock_addr *addr, int listener)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("cannot fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	side->loop = loop_new();
	side->ctx = tls_pair_ctx(side->role == TUNNEL_PROXY);
	if (side->tunnels > 0) {
		run_memory(side, addr, listener);
		exit(0);
	}
	make_lines(side, addr, listener, side->raw ? side->streams : 1);
	if (side->raw)
		run_raw(side);
	else
		run_tunnel(side);
	exit(0);
}

struct bench {
	struct side sides[2];
	pid_t pids[2];
	int tell_fds[2];
	int ends[2][STREAMS_MAX]; /* the generator's, by side */
};

static int open_listener(struct sock_addr *addr)
{
	int fd;

	if (sock_parse("127.0.0.1:1", 1, addr) < 0)
		fail("address");
	((struct sockaddr_in *)&addr->ss)->sin_port = 0;
	fd = sock_listen(addr, false, 1024);
	addr->len = sizeof(addr->ss);
	if (fd < 0 ||
		getsockname(fd, (struct sockaddr *)&addr->ss, &addr->len) < 0)
		fail("cannot listen");
	return fd;
}

static void begin(
	struct bench *bench, unsigned streams, unsigned tunnels, bool raw)
{
	struct sock_addr addr;
	int listener = open_listener(&addr);

	for (int role = 0; role < 2; role++) {
		struct side *side = &bench->sides[role];
		int pipe_fds[2];

		*side = (struct side){.role = (enum tunnel_role)role,
			.raw = raw,
			.streams = streams,
			.tunnels = tunnels};
		for (unsigned i = 0; i < streams; i++) {
			int fds[2];

			if (sock_pair(fds) < 0)
				fail("cannot make a socket pair");
			side->fds[i] = fds[0];
			bench->ends[role][i] = fds[1];
		}
		if (pipe(pipe_fds) < 0)
			fail("cannot make a pipe");
		side->tell_fd = pipe_fds[1];
		bench->tell_fds[role] = pipe_fds[0];
	}
	for (int role = 0; role < 2; role++)
		bench->pids[role] = start(&bench->sides[role], &addr, listener);
	for (int role = 0; role < 2; role++) {
		close(bench->sides[role].tell_fd);
		for (unsigned i = 0; i < streams; i++)
			close(bench->sides[role].fds[i]);
	}
	close(listener);
}

/* Waits for side's process; its CPU seconds. */
static double end(struct bench *bench, int role)
{
	struct rusage usage;
	int status;

	if (wait4(bench->pids[role], &status, 0, &usage) < 0 || status != 0)
		fail("a side failed");
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
	       ((double)usage.ru_utime.tv_usec +
		       (double)usage.ru_stime.tv_usec) /
		       1e6;
}

/* Feeds `from` ends with bytes each and drains `to` ends of them. */
static void transfer(
	struct bench *bench, int from, unsigned streams, uint64_t bytes)
{
	static uint8_t buf[65536];
	struct pollfd pfds[2 * STREAMS_MAX];
	uint64_t left[STREAMS_MAX];
	unsigned open = streams;

	for (unsigned i = 0; i < streams; i++) {
		left[i] = bytes;
		pfds[2 * i] = (struct pollfd){
			.fd = bench->ends[from][i], .events = POLLOUT};
		pfds[2 * i + 1] = (struct pollfd){
			.fd = bench->ends[1 - from][i], .events = POLLIN};
	}
	while (open > 0) {
		if (poll(pfds, 2 * streams, 30000) <= 0)
			fail("stalled");
		for (unsigned i = 0; i < 2 * streams; i++) {
			ssize_t n = 0;

			if (!pfds[i].revents)
				continue;
			if (i % 2) {
				n = read(pfds[i].fd, buf, sizeof(buf));
				if (n == 0) {
					shutdown(pfds[i].fd, SHUT_WR);
					pfds[i].fd = -1;
					open--;
				}
				continue;
			}
			if (left[i / 2] > 0)
				n = write(pfds[i].fd, buf,
					left[i / 2] < sizeof(buf)
						? left[i / 2]
						: sizeof(buf));
			left[i / 2] -= n > 0 ? (uint64_t)n : 0;
			if (left[i / 2] == 0) {
				shutdown(pfds[i].fd, SHUT_WR);
				pfds[i].fd = -1;
			}
		}
	}
}

static void run_bulk(
	unsigned streams, unsigned megabytes, const char *way, bool raw)
{
	static struct bench bench;
	uint64_t bytes = (uint64_t)megabytes * 1000000 / streams;
	double gb = (double)bytes * streams / 1e9;
	double started;
	double seconds;
	double cpu[2];

	begin(&bench, streams, 0, raw);
	hear(bench.tell_fds[TUNNEL_PROXY]);
	started = now_s();
	transfer(&bench, strcmp(way, "up") == 0 ? TUNNEL_PROXY : TUNNEL_AGENT,
		streams, bytes);
	seconds = now_s() - started;
	for (int role = 0; role < 2; role++)
		cpu[role] = end(&bench, role);
	printf("{\"bench\":\"bulk\",\"kind\":\"%s\",\"way\":\"%s\","
	       "\"streams\":%u,\"mb_per_s\":%.0f,\"proxy_cpu_s_per_gb\":%.2f,"
	       "\"agent_cpu_s_per_gb\":%.2f}\n",
		raw ? "raw" : "tunnel", way, streams,
		(double)bytes * streams / 1e6 / seconds, cpu[TUNNEL_PROXY] / gb,
		cpu[TUNNEL_AGENT] / gb);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Every stream has one byte under way; the generator is client and service. */
static void run_echo(unsigned streams, unsigned rounds, bool raw)
{
	static struct bench bench;
	static double sent_at[STREAMS_MAX];
	struct pollfd pfds[2 * STREAMS_MAX];
	size_t total = (size_t)streams * rounds;
	double *times = calloc(total, sizeof(*times));
	size_t done = 0;
	char byte = 'x';

	begin(&bench, streams, 0, raw);
	hear(bench.tell_fds[TUNNEL_PROXY]);
	for (unsigned i = 0; i < 2 * streams; i++)
		pfds[i] = (struct pollfd){
			.fd = bench.ends[i % 2][i / 2], .events = POLLIN};
	for (unsigned i = 0; i < streams; i++) {
		sent_at[i] = now_s();
		if (write(pfds[2 * i].fd, &byte, 1) != 1)
			fail("cannot write");
	}
	while (done < total) {
		if (poll(pfds, 2 * streams, 30000) <= 0)
			fail("stalled");
		for (unsigned i = 0; i < 2 * streams && done < total; i++) {
			if (!pfds[i].revents || read(pfds[i].fd, &byte, 1) != 1)
				continue;
			if (i % 2 == 0) {
				times[done++] = now_s() - sent_at[i / 2];
				sent_at[i / 2] = now_s();
			}
			if (write(pfds[i].fd, &byte, 1) != 1)
				fail("cannot write");
		}
	}
	/* The other processes have copies: closing ours would end nothing. */
	for (unsigned i = 0; i < 2 * streams; i++)
		shutdown(pfds[i].fd, SHUT_RDWR);
	for (int role = 0; role < 2; role++)
		end(&bench, role);
	qsort(times, total, sizeof(*times), compare_doubles);
	printf("{\"bench\":\"echo\",\"kind\":\"%s\",\"streams\":%u,"
	       "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}\n",
		raw ? "raw" : "tunnel", streams, times[total / 2] * 1e3,
		times[total * 99 / 100] * 1e3, times[total - 1] * 1e3);
	free(times);
}

static void run_memory_bench(unsigned tunnels)
{
	static struct bench bench;
	unsigned long before;
	unsigned long after;

	begin(&bench, 0, tunnels, false);
	before = hear(bench.tell_fds[TUNNEL_PROXY]);
	hear(bench.tell_fds[TUNNEL_PROXY]); /* all are ready */
	after = hear(bench.tell_fds[TUNNEL_PROXY]);
	for (int role = 0; role < 2; role++)
		end(&bench, role);
	printf("{\"bench\":\"memory\",\"tunnels\":%u,"
	       "\"rss_anon_kib_per_idle_tunnel\":%.1f}\n",
		tunnels, ((double)after - (double)before) / tunnels);
}

int main(int argc, char **argv)
{
	unsigned first = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	unsigned second = argc > 3 ? (unsigned)atoi(argv[3]) : 0;

	if (argc == 6 && strcmp(argv[1], "bulk") == 0 && first > 0 &&
		first <= STREAMS_MAX && second > 0)
		run_bulk(first, second, argv[4], strcmp(argv[5], "raw") == 0);
	else if (argc == 5 && strcmp(argv[1], "echo") == 0 && first > 0 &&
		 first <= STREAMS_MAX && second > 0)
		run_echo(first, second, strcmp(argv[4], "raw") == 0);
	else if (argc == 3 && strcmp(argv[1], "memory") == 0 && first > 0)
		run_memory_bench(first);
	else {
		fprintf(stderr,
			"usage: bench_tunnel bulk STREAMS MB up|down "
			"tunnel|raw\n"
			"       bench_tunnel echo STREAMS ROUNDS tunnel|raw\n"
			"       bench_tunnel memory TUNNELS\n");
		return 2;
	}
	return 0;
}
