/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: routed's sockets, then commands on the input, each answered
 * by one line of JSON; the end of the input ends the program.
 *
 *   flow RATE   changes from now on, so many a second; 0: none
 *   counts      what there is
 *   result      of the changes since the last result
 */
#include "tests/tools/workers.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/daemon.h"
#include "shared/log.h"

static int usage(void)
{
	fprintf(stderr, "usage: workers --tunnels N [--watch EVERY] SOCKET...\n"
			"Commands on its input: flow RATE, counts, result.\n");
	return 2;
}

static void print_counts(const struct workers *workers)
{
	uint64_t commits = 0, up = 0;
	unsigned links = 0;

	for (unsigned h = 0; h < workers->host_count; h++) {
		const struct host *host = &workers->hosts[h];

		links += ipc_link_is_up(host->link);
		commits += host->commits;
		for (unsigned t = 0; t < workers->tunnels; t++)
			up += host->since[t] != 0;
	}
	printf("{\"links\": %u, \"tunnels\": %" PRIu64 ", \"commits\": %" PRIu64
	       ", \"unseen\": %u}\n",
		links, up, commits, changes_unseen(workers->changes));
	fflush(stdout);
}

static void obey(struct workers *workers, const char *line)
{
	unsigned rate;

	if (sscanf(line, "flow %u", &rate) == 1) {
		changes_flow(workers->changes, rate);
		printf("{\"rate\": %u}\n", rate);
		fflush(stdout);
	} else if (strcmp(line, "result\n") == 0) {
		changes_print(workers->changes);
	} else {
		print_counts(workers);
	}
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
	struct workers *workers = arg;
	char line[128];
	ssize_t got = read(fd, line, sizeof(line) - 1);

	if (got <= 0) {
		loop_stop(workers->loop);
		return;
	}
	/* who asks waits for the answer, so it is one line */
	line[got] = '\0';
	obey(workers, line);
}

static void run(struct workers *workers, char *const *sockets, unsigned every)
{
	struct event *input;

	workers->loop = loop_new();
	workers->changes = changes_new(workers, every);
	for (unsigned h = 0; h < workers->host_count; h++)
		host_start(&workers->hosts[h], workers, h, sockets[h]);
	input = event_new(loop_base(workers->loop), STDIN_FILENO,
		EV_READ | EV_PERSIST, on_input, workers);
	event_add(input, NULL);
	loop_run(workers->loop);
	event_free(input);
	for (unsigned h = 0; h < workers->host_count; h++)
		host_stop(&workers->hosts[h]);
	changes_free(workers->changes);
	loop_free(workers->loop);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"tunnels", required_argument, NULL, 't'},
		{"watch", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	static struct workers workers;
	unsigned every = 0;
	int key;

	while ((key = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (key == 't')
			workers.tunnels = (unsigned)atoi(optarg);
		else if (key == 'w')
			every = (unsigned)atoi(optarg);
		else
			return usage();
	}
	if (optind == argc || argc - optind > WORKERS_HOSTS_MAX)
		return usage();
	workers.host_count = (unsigned)(argc - optind);
	daemon_raise_fd_limit();
	run(&workers, argv + optind, every);
	return 0;
}
