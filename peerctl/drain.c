/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drain, undrain: maintenance of this proxy host. The order goes to the proxy;
 * with --wait its counts are shown until nothing is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "peerctl/command.h"
#include "peerctl/status.h"
#include "peerctl/table.h"

#define LOOK_MS 250
/* Between two lines that say the same, where each is a line of its own. */
#define SAY_MS 10000
/* After drain_timeout what is left is being cut. */
#define CUT_MS 3000

enum { OPT_WAIT = OPTIONS_OWN };

static const struct argp_option drain_list[] = {
	{"wait", OPT_WAIT, NULL, 0,
		"Wait until no tunnel and no connection is left, showing how "
		"many there are",
		0},
	{0},
};

static void on_option(void *own, int key, char *value, struct argp_state *state)
{
	*(bool *)own = true;
}

struct counts {
	long long tunnels;
	long long sessions;
	long long clients;
	long long left_ms;
};

static struct counts counts_of(const json_t *answer)
{
	return (struct counts){
		.tunnels = status_number(answer, "tunnels"),
		.sessions = status_number(answer, "sessions"),
		.clients = status_number(answer, "clients"),
		.left_ms = status_number(answer, "drain_left_ms"),
	};
}

static void describe(const struct counts *counts, char *text, size_t size)
{
	char left[32];

	table_duration(counts->left_ms / 1000, left, sizeof(left));
	snprintf(text, size,
		"draining: %lld tunnels, %lld sessions, %lld clients, %s left",
		counts->tunnels, counts->sessions, counts->clients, left);
}

/* One line that changes on a terminal; elsewhere a line from time to time. */
static void show(const struct counts *counts, bool again)
{
	static int silent_ms;
	char text[200];
	bool terminal = isatty(STDOUT_FILENO);

	describe(counts, text, sizeof(text));
	silent_ms += LOOK_MS;
	if (terminal) {
		printf("%s%-79s", again ? "\r" : "", text);
	} else if (!again || silent_ms >= SAY_MS) {
		puts(text);
		silent_ms = 0;
	}
	fflush(stdout);
}

static bool is_empty(const struct counts *counts)
{
	return !counts->tunnels && !counts->sessions && !counts->clients;
}

/* The last answer, and what it means. Takes it. */
static int conclude(struct options *options, json_t *answer)
{
	struct counts counts = counts_of(answer);
	bool draining = json_is_true(json_object_get(answer, "draining"));

	if (options->json) {
		table_print_json(answer);
	} else {
		json_decref(answer);
		if (isatty(STDOUT_FILENO))
			putchar('\n');
	}
	if (!draining)
		return command_fail("somebody ended the drain");
	if (is_empty(&counts))
		return EXIT_OK;
	return command_fail(
		"drain_timeout is over, and there are still %lld "
		"tunnels and %lld clients: they find no other proxy",
		counts.tunnels, counts.clients);
}

/* Asks until nothing is left. Takes answer. */
static int wait_until_empty(struct options *options, json_t *answer)
{
	long long over_ms = 0;
	bool again = false;

	for (;;) {
		struct counts counts = counts_of(answer);

		if (!options->json)
			show(&counts, again);
		again = true;
		if (is_empty(&counts) || over_ms > CUT_MS ||
			!json_is_true(json_object_get(answer, "draining")))
			return conclude(options, answer);
		json_decref(answer);
		if (counts.left_ms == 0)
			over_ms += LOOK_MS;
		usleep(LOOK_MS * 1000);
		answer = options_answer(options, "proxy", "status", NULL);
		if (!answer)
			return EXIT_FAILED;
	}
}

static int order(
	struct options *options, const char *verb, bool wait, const char *done)
{
	json_t *answer = options_answer(options, "proxy", verb, NULL);
	char text[200];

	if (!answer)
		return EXIT_FAILED;
	if (wait)
		return wait_until_empty(options, answer);
	if (options->json) {
		table_print_json(answer);
		return EXIT_OK;
	}
	if (!done) {
		struct counts counts = counts_of(answer);

		describe(&counts, text, sizeof(text));
		done = text;
	}
	puts(done);
	json_decref(answer);
	return EXIT_OK;
}

int drain_command(struct options *options, int argc, char **argv)
{
	bool wait = false;
	const struct options_spec spec = {
		.doc = "Takes this proxy host out of service: agents move to "
		       "other proxies, /readyz says 503, and what still runs "
		       "has drain_timeout to end.",
		.list = drain_list,
		.on_option = on_option,
		.own = &wait,
	};

	options_parse(options, argc, argv, &spec);
	return order(options, "drain", wait, NULL);
}

int undrain_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.doc = "Takes this proxy host into service again.",
	};

	options_parse(options, argc, argv, &spec);
	return order(options, "undrain", false, "serving");
}
