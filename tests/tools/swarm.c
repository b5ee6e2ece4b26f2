/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swarm's command line and its first process: starts the others, answers each
 * line of its input with one line of JSON, and ends all at its end.
 */
#include "tests/tools/swarm.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/log.h"

enum option_key {
	OPT_CLUSTER = 1,
	OPT_CA,
	OPT_CA_KEY,
	OPT_PROXY,
	OPT_PREFIX,
	OPT_SERVICE,
	OPT_REGION,
	OPT_ZONE,
	OPT_COUNT,
	OPT_FIRST,
	OPT_PROCESSES,
	OPT_NICE,
	OPT_LOG,
};

static const struct option long_options[] = {
	{"cluster", required_argument, NULL, OPT_CLUSTER},
	{"ca", required_argument, NULL, OPT_CA},
	{"ca-key", required_argument, NULL, OPT_CA_KEY},
	{"proxy", required_argument, NULL, OPT_PROXY},
	{"prefix", required_argument, NULL, OPT_PREFIX},
	{"service", required_argument, NULL, OPT_SERVICE},
	{"region", required_argument, NULL, OPT_REGION},
	{"zone", required_argument, NULL, OPT_ZONE},
	{"count", required_argument, NULL, OPT_COUNT},
	{"first", required_argument, NULL, OPT_FIRST},
	{"processes", required_argument, NULL, OPT_PROCESSES},
	{"nice", required_argument, NULL, OPT_NICE},
	{"log", required_argument, NULL, OPT_LOG},
	{NULL, 0, NULL, 0},
};

static int usage(void)
{
	fprintf(stderr,
		"usage: swarm --cluster NAME --ca FILE --ca-key FILE\n"
		"             --proxy HOST:PORT [--proxy ...] "
		"--service HOST:PORT\n"
		"             [--count N] [--first N] [--prefix TEXT] "
		"[--processes N]\n"
		"             [--region TEXT] [--zone TEXT] [--nice N] "
		"[--log LEVEL]\n"
		"A line on its input is answered by its counts in JSON; the "
		"end of its input ends it.\n");
	return 2;
}

static bool set_log(const char *value)
{
	enum log_level level;

	if (log_level_parse(value, &level))
		return false;
	log_init("swarm", level, false);
	return true;
}

static bool set_option(
	struct swarm_options *options, int key, const char *value)
{
	switch (key) {
	case OPT_CLUSTER:
		options->cluster = value;
		break;
	case OPT_CA:
		options->ca = value;
		break;
	case OPT_CA_KEY:
		options->ca_key = value;
		break;
	case OPT_PROXY:
		if (options->proxy_count == SWARM_PROXIES_MAX)
			return false;
		options->proxies[options->proxy_count++] = value;
		break;
	case OPT_PREFIX:
		options->prefix = value;
		break;
	case OPT_SERVICE:
		options->service = value;
		break;
	case OPT_REGION:
		options->region = value;
		break;
	case OPT_ZONE:
		options->zone = value;
		break;
	case OPT_COUNT:
		options->count = (unsigned)atoi(value);
		break;
	case OPT_FIRST:
		options->first = (unsigned)atoi(value);
		break;
	case OPT_PROCESSES:
		options->processes = (unsigned)atoi(value);
		break;
	case OPT_NICE:
		return nice(atoi(value)) != -1;
	case OPT_LOG:
		return set_log(value);
	default:
		return false;
	}
	return true;
}

static bool is_complete(const struct swarm_options *options)
{
	return options->cluster && options->ca && options->ca_key &&
	       options->proxy_count && options->service && options->count &&
	       options->prefix[0] && options->processes &&
	       options->processes <= SWARM_PROCESSES_MAX &&
	       options->processes <= options->count;
}

/* Each process has its share; the first ones have what is left over. */
static void start(const struct swarm_options *options, pid_t *pids,
	struct swarm_counts *counts)
{
	unsigned first = options->first;

	for (unsigned i = 0; i < options->processes; i++) {
		unsigned share = options->count / options->processes +
				 (i < options->count % options->processes);

		pids[i] = fork();
		if (pids[i] < 0)
			die("cannot fork: %m");
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(STDIN_FILENO);
			exit(swarm_run(options, first, share, &counts[i]));
		}
		first += share;
	}
}

static void answer(
	const struct swarm_options *options, const struct swarm_counts *counts)
{
	unsigned agents = 0, ready = 0, tunnels = 0;
	long opened = 0, failed = 0, busy = 0;

	for (unsigned i = 0; i < options->processes; i++) {
		agents += counts[i].agents;
		ready += counts[i].ready;
		tunnels += counts[i].tunnels;
		opened += counts[i].opened;
		failed += counts[i].failed;
		busy += counts[i].busy;
	}
	printf("{\"agents\": %u, \"ready\": %u, \"tunnels\": %u, "
	       "\"opened\": %ld, \"failed\": %ld, \"busy\": %ld}\n",
		agents, ready, tunnels, opened, failed, busy);
	fflush(stdout);
}

static int finish(const struct swarm_options *options, const pid_t *pids)
{
	int worst = 0;

	for (unsigned i = 0; i < options->processes; i++)
		kill(pids[i], SIGTERM);
	for (unsigned i = 0; i < options->processes; i++) {
		int status = 0;

		waitpid(pids[i], &status, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			worst = 1;
	}
	return worst;
}

int main(int argc, char **argv)
{
	struct swarm_options options = {
		.prefix = "s", .count = 1, .processes = 1};
	pid_t pids[SWARM_PROCESSES_MAX];
	struct swarm_counts *counts;
	char line[64];
	int key;

	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		if (!set_option(&options, key, optarg))
			return usage();
	if (optind != argc || !is_complete(&options))
		return usage();
	counts = mmap(NULL, options.processes * sizeof(*counts),
		PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		die("out of memory");
	start(&options, pids, counts);
	while (fgets(line, sizeof(line), stdin))
		answer(&options, counts);
	return finish(&options, pids);
}
