/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simulate's command line, and what it prints of a scenario: how long agents
 * were out of reach, how even the tunnels are afterwards.
 */
#include "tests/tools/simulate.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/conf.h"

#define SETTLE_MS 300000
#define LIMIT_MS 3600000
/* All agents come within this, at the very beginning. */
#define ARRIVAL_MS 60000

struct report {
	const struct sim_scenario *scenario;
	int64_t reachable_ms; /* -1: not in time */
	int64_t even_ms;
	uint32_t out; /* agents that were out of reach */
	int64_t p50_ms, p99_ms, max_ms;
	double least, most, deviation; /* of the average, percent */
};

/* ---- how even ---- */

/* The average of the proxies that are compared with this one. */
static double average_of(const struct sim *sim, const struct sim_proxy *one)
{
	double sum = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < sim->options.proxies; i++) {
		const struct sim_proxy *proxy = &sim->proxies[i];

		if (!sim_is_compared(sim, one, proxy))
			continue;
		sum += proxy->agent_count;
		count++;
	}
	return sum / count;
}

/* Deviation in percent. */
static double spread(const struct sim *sim, double *least, double *most)
{
	double squares = 0, averages[SIM_ZONES] = {0};
	uint32_t count = 0;

	*least = *most = 0;
	for (uint32_t i = 0; i < sim->options.proxies; i++) {
		const struct sim_proxy *proxy = &sim->proxies[i];
		double off, *average = &averages[proxy->zone];

		if (proxy->state != SIM_SERVING)
			continue;
		if (!*average)
			*average = average_of(sim, proxy);
		off = (proxy->agent_count - *average) * 100 / *average;
		*least = fmin(*least, off);
		*most = fmax(*most, off);
		squares += off * off;
		count++;
	}
	return sqrt(squares / count);
}

/* Tunnels to a silent proxy that their agents have not yet found dead: what has
 * happened is not over, and those left are as even as they were. */
static bool is_unnoticed(const struct sim *sim)
{
	for (uint32_t i = 0; i < sim->options.proxies; i++)
		if (sim->proxies[i].state == SIM_SILENT &&
			sim->proxies[i].agent_count)
			return true;
	return false;
}

/* All are within 10 % of the average, or what is not worth a move. */
static bool is_even(struct sim *sim)
{
	double least, most, slack, average = 0;

	if (is_unnoticed(sim))
		return false;
	for (uint32_t i = 0; i < sim->options.proxies; i++)
		average += sim->proxies[i].state == SIM_SERVING;
	average = (double)sim->options.agents * sim->options.count / average;
	spread(sim, &least, &most);
	slack = fmax(10, REBALANCE_LEAST * 100 / average);
	return most <= slack && least >= -slack;
}

static bool is_reachable(struct sim *sim)
{
	return sim->out_of_reach == 0;
}

/* ---- a scenario ---- */

/* What a proxy host has that sets nothing itself. */
static struct conf *defaults(void)
{
	static const char text[] =
		"peerway: {cluster_name: simulated, auth_servers: [auth]}\n"
		"proxy_service: {enabled: yes}\n";
	char *error = NULL;
	struct conf *conf = conf_parse(
		"defaults", (const uint8_t *)text, sizeof(text) - 1, &error);

	if (!conf) {
		fprintf(stderr, "simulate: %s\n", error);
		exit(1);
	}
	return conf;
}

static struct sim *make(
	const struct sim_options *options, const struct sim_scenario *scenario)
{
	struct sim *sim = xcalloc(1, sizeof(*sim));
	uint32_t first;

	sim->options = *options;
	if (scenario->prepare)
		scenario->prepare(&sim->options);
	sim->conf = defaults();
	sim->now = 1;
	sim->random = options->seed * 2 + 1;
	sim->heap = sim_heap_new();
	sim_proxies_new(sim);
	sim_agents_new(sim);
	first = strcmp(scenario->name, "scale-out") ? options->proxies
						    : options->proxies * 4 / 5;
	for (uint32_t i = 0; i < first; i++)
		sim_proxy_start(sim, i);
	sim_run(sim, 2 * SIM_PUBLISH_MS, NULL);
	for (uint32_t i = 0; i < options->agents; i++) {
		sim->agents[i].attempts_from =
			sim->now + sim_random(sim) % ARRIVAL_MS;
		sim_introduce(sim, i);
	}
	sim_after(sim, 1000, SIM_BALANCE, 0, 0, 0);
	sim_after(sim, SIM_PUSH_MS, SIM_PUSH, 0, 0, 0);
	return sim;
}

static void destroy(struct sim *sim)
{
	free(sim->scenario);
	sim_agents_free(sim);
	sim_proxies_free(sim);
	sim_heap_free(sim->heap);
	conf_free(sim->conf);
	free(sim);
}

static int compare_times(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static void count_out(const struct sim *sim, struct report *report)
{
	int64_t *times = xcalloc(sim->options.agents, sizeof(*times));

	for (uint32_t i = 0; i < sim->options.agents; i++)
		if (sim->agents[i].was_out)
			times[report->out++] = sim->agents[i].out_ms;
	qsort(times, report->out, sizeof(*times), compare_times);
	if (report->out) {
		report->p50_ms = times[report->out / 2];
		report->p99_ms = times[(uint64_t)report->out * 99 / 100];
		report->max_ms = times[report->out - 1];
	}
	free(times);
}

/* Until it has happened and all are in reach, and then until even. */
static void watch(struct sim *sim, struct report *report)
{
	int64_t begun = sim->now;

	report->reachable_ms = report->even_ms = -1;
	while (sim->now < begun + LIMIT_MS) {
		sim_run(sim, sim->now + 100, NULL);
		if (!report->scenario->done(sim) || sim->now < begun + 1000)
			continue;
		if (report->reachable_ms < 0 && is_reachable(sim))
			report->reachable_ms = sim->now - begun;
		if (report->even_ms < 0 && report->reachable_ms >= 0 &&
			is_even(sim))
			report->even_ms = sim->now - begun;
		if (report->even_ms >= 0 &&
			sim->now > begun + SIM_SILENT_MAX_MS + 10000)
			return;
	}
}

static struct report play(
	const struct sim_options *options, const struct sim_scenario *scenario)
{
	struct report report = {.scenario = scenario};
	struct sim *sim = make(options, scenario);

	sim_run(sim, sim->now + SETTLE_MS, NULL);
	for (uint32_t i = 0; i < options->agents; i++) {
		sim->agents[i].was_out = false;
		sim->agents[i].out_ms = 0;
	}
	memset(&sim->stats, 0, sizeof(sim->stats));
	scenario->begin(sim);
	watch(sim, &report);
	count_out(sim, &report);
	report.deviation = spread(sim, &report.least, &report.most);
	printf("{\"scenario\": \"%s\", \"agents\": %u, \"proxies\": %u, "
	       "\"out_of_reach\": %u, \"out_p50_s\": %.1f, \"out_p99_s\": "
	       "%.1f, "
	       "\"out_max_s\": %.1f, \"all_reachable_s\": %.1f, "
	       "\"even_s\": %.1f, \"least_percent\": %.0f, "
	       "\"most_percent\": %.0f, \"deviation_percent\": %.1f, "
	       "\"moves\": %llu, \"handshakes\": %llu, \"put_off\": %llu, "
	       "\"lists\": %llu}\n",
		scenario->name, options->agents, options->proxies, report.out,
		(double)report.p50_ms / 1000, (double)report.p99_ms / 1000,
		(double)report.max_ms / 1000,
		(double)report.reachable_ms / 1000,
		(double)report.even_ms / 1000, report.least, report.most,
		report.deviation, (unsigned long long)sim->stats.moves,
		(unsigned long long)sim->stats.handshakes,
		(unsigned long long)sim->stats.put_off,
		(unsigned long long)sim->stats.lists);
	fflush(stdout);
	destroy(sim);
	return report;
}

/* ---- the command line ---- */

static int usage(void)
{
	fprintf(stderr, "usage: simulate [--agents N] [--proxies N] [--seed N] "
			"[--scenario NAME]\n"
			"One line of JSON for each scenario:\n");
	for (const struct sim_scenario *s = sim_scenarios; s->name; s++)
		fprintf(stderr, "  %-16s %s\n", s->name, s->what);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"agents", required_argument, NULL, 'a'},
		{"proxies", required_argument, NULL, 'p'},
		{"seed", required_argument, NULL, 's'},
		{"scenario", required_argument, NULL, 'n'},
		{NULL, 0, NULL, 0},
	};
	struct sim_options options = {
		.agents = 100000, .proxies = 500, .count = 1, .seed = 1};
	const char *wanted = NULL;
	bool found = false, good = true;
	int key;

	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (key == 'a')
			options.agents = (uint32_t)atoi(optarg);
		else if (key == 'p')
			options.proxies = (uint32_t)atoi(optarg);
		else if (key == 's')
			options.seed = (uint64_t)atoll(optarg);
		else if (key == 'n')
			wanted = optarg;
		else
			return usage();
	}
	if (optind != argc || !options.agents || options.proxies < 3 ||
		options.proxies > DISCOVERY_PROXIES_MAX)
		return usage();
	for (const struct sim_scenario *s = sim_scenarios; s->name; s++) {
		struct report report;

		if (wanted && strcmp(wanted, s->name) != 0)
			continue;
		found = true;
		report = play(&options, s);
		good = good && report.reachable_ms >= 0 && report.even_ms >= 0;
	}
	return !found ? usage() : good ? 0 : 1;
}
