/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ping PEER: real pings of this host's peerd to another's, one a second, over
 * the connection that dials use. As ping(8): a line each, then the summary.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerctl/command.h"
#include "peerctl/table.h"

#define DEFAULT_COUNT 4
#define COUNT_MAX 100000
#define DEFAULT_INTERVAL_MS 1000

struct ping_options {
	unsigned count;
	int interval_ms;
};

struct tally {
	json_t *pings; /* for JSON */
	unsigned sent;
	unsigned answered;
	double min, max, sum; /* ms */
};

enum { OPT_INTERVAL = OPTIONS_OWN };

static const struct argp_option ping_options_list[] = {
	{"count", 'c', "N", 0, "How many (default 4)", 0},
	{"interval", OPT_INTERVAL, "TIME", 0, "Between two (default 1s)", 0},
	{0},
};

static void count(struct tally *tally, const json_t *ping)
{
	double ms = json_real_value(json_object_get(ping, "ms"));

	tally->sent++;
	if (!json_is_true(json_object_get(ping, "answered")))
		return;
	if (!tally->answered || ms < tally->min)
		tally->min = ms;
	if (ms > tally->max)
		tally->max = ms;
	tally->sum += ms;
	tally->answered++;
}

static void print_ping(const json_t *ping, unsigned number)
{
	const char *error = json_string_value(json_object_get(ping, "error"));
	const char *peer = json_string_value(json_object_get(ping, "peer"));
	bool implemented = !json_is_false(json_object_get(ping, "implemented"));

	if (error)
		table_line("31", "%s: ping %u: %s", peer, number, error);
	else
		table_line(NULL, "%s: ping %u: %.3f ms%s", peer, number,
			json_real_value(json_object_get(ping, "ms")),
			implemented ? "" : " (alive, but knows no Ping)");
	fflush(stdout);
}

static void print_summary(struct options *options, struct tally *tally)
{
	double average = tally->answered ? tally->sum / tally->answered : 0;

	if (options->json) {
		table_print_json(json_pack("{s:O,s:i,s:i,s:f,s:f,s:f}", "pings",
			tally->pings, "sent", (int)tally->sent, "answered",
			(int)tally->answered, "min_ms", tally->min, "avg_ms",
			average, "max_ms", tally->max));
		return;
	}
	if (tally->answered)
		printf("%u pings, %u answered, min/avg/max = "
		       "%.3f/%.3f/%.3f ms\n",
			tally->sent, tally->answered, tally->min, average,
			tally->max);
	else
		printf("%u pings, none answered\n", tally->sent);
}

static int run(struct options *options, const struct ping_options *own,
	const char *peer)
{
	struct tally tally = {.pings = json_array()};
	unsigned left = own->count;

	while (left-- > 0) {
		json_t *ping = options_answer(options, "peerd", "ping",
			json_pack("{s:s}", "peer", peer));

		if (!ping)
			break;
		count(&tally, ping);
		if (!options->json)
			print_ping(ping, tally.sent);
		json_array_append_new(tally.pings, ping);
		if (left)
			poll(NULL, 0, own->interval_ms);
	}
	if (tally.sent)
		print_summary(options, &tally);
	json_decref(tally.pings);
	return tally.answered == own->count ? EXIT_OK : EXIT_FAILED;
}

static void on_option(void *arg, int key, char *value, struct argp_state *state)
{
	struct ping_options *own = arg;
	char *end;
	unsigned long number;

	if (key == OPT_INTERVAL) {
		own->interval_ms = (int)options_time(
			state, "--interval", value, 10, 3600000);
		return;
	}
	errno = 0;
	number = strtoul(value, &end, 10);
	if (*end || end == value || errno || !number || number > COUNT_MAX)
		argp_error(state, "-c: \"%s\" is not a number from 1 to %d",
			value, COUNT_MAX);
	own->count = (unsigned)number;
}

int ping_command(struct options *options, int argc, char **argv)
{
	struct ping_options own = {
		.count = DEFAULT_COUNT,
		.interval_ms = DEFAULT_INTERVAL_MS,
	};
	const struct options_spec spec = {
		.argument = "PEER",
		.doc = "Pings another proxy host, PEER: its hostname, its "
		       "uuid, or a beginning of one that is enough."
		       "\vExit status 1 when a ping was not answered within "
		       "5 s.",
		.list = ping_options_list,
		.on_option = on_option,
		.own = &own,
	};
	const char *peer = options_parse(options, argc, argv, &spec);

	return run(options, &own, peer);
}
