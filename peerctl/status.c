/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status: asks every daemon of this host, or the peerd of another proxy host
 * (--on), once or again and again (--watch). Which daemons there should be is
 * the configuration's word; without one, a daemon whose socket does not exist
 * is taken for one that does not run here.
 *
 * A daemon that is away is shown as such; the command fails only when none
 * answers, and with --watch not even then.
 */
#include "peerctl/status.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "peerctl/command.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

#define DEFAULT_INTERVAL_MS 2000

struct status_options {
	const char *on;
	bool watch;
	int interval_ms;
};

enum { OPT_ON = OPTIONS_OWN, OPT_INTERVAL, OPT_WIDE };

static const struct argp_option status_options_list[] = {
	{"on", OPT_ON, "PEER", 0,
		"What the peerd of that proxy host says: its hostname, its "
		"uuid, or a beginning of one that is enough",
		0},
	{"watch", 'w', NULL, 0,
		"Again and again, until interrupted: in place on a terminal; "
		"elsewhere one after the other, as JSON an object a line",
		0},
	{"interval", OPT_INTERVAL, "TIME", 0,
		"Between two looks of --watch (default 2s)", 0},
	{"wide", OPT_WIDE, NULL, 0,
		"All columns, nothing cut, however wide the terminal is", 0},
	{0},
};

/* ---- asking ---- */

static bool is_expected(struct options *options, int which)
{
	const char *run_dir = options_run_dir(options);
	char *path;
	bool exists;

	if (!run_dir)
		exit(EXIT_FAILED);
	if (options->conf && !options->run_dir)
		return which == AUTHD ? options->conf->auth.enabled
				      : options->conf->proxy.enabled;
	path = xasprintf("%s/%s.sock", run_dir, status_daemons[which]);
	exists = !access(path, F_OK);
	free(path);
	return exists;
}

void status_ask_all(struct options *options, struct answers *answers)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		if (!is_expected(options, i))
			continue;
		answers->of[i] = options_ask(options, status_daemons[i],
			"status", NULL, &answers->error[i]);
		if (answers->of[i])
			answers->count++;
	}
}

static void ask_peer(struct options *options, struct answers *answers)
{
	json_t *args =
		json_pack("{s:s,s:s}", "peer", answers->on, "verb", "status");

	answers->of[PEERD] = options_ask(
		options, "peerd", "ask", args, &answers->error[PEERD]);
	if (answers->of[PEERD])
		answers->count++;
	json_decref(args);
}

static void ask(struct options *options, struct answers *answers)
{
	if (answers->on)
		ask_peer(options, answers);
	else
		status_ask_all(options, answers);
}

void status_answers_deinit(struct answers *answers)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		json_decref(answers->of[i]);
		free(answers->error[i]);
	}
}

/* "no daemon answers: why"; gives. */
static char *why_none(const struct answers *answers)
{
	const char *why = NULL;

	for (int i = 0; i < DAEMON_COUNT && !why; i++)
		why = answers->error[i];
	if (answers->on)
		return xasprintf("%s: %s", answers->on, why);
	return xasprintf("no daemon answers: %s",
		why ? why : "none is enabled in the configuration");
}

/* ---- showing ---- */

json_t *status_as_json(const struct answers *answers)
{
	json_t *all = json_object();

	for (int i = 0; i < DAEMON_COUNT; i++) {
		if (answers->of[i])
			json_object_set(all, status_daemons[i], answers->of[i]);
		else if (answers->error[i])
			json_object_set_new(all, status_daemons[i],
				json_pack("{s:s}", "error", answers->error[i]));
	}
	return all;
}

static int show_once(struct options *options, const char *on)
{
	struct answers answers = {.on = on};
	int ret = EXIT_OK;
	char *why;

	ask(options, &answers);
	if (options->json)
		table_print_json(status_as_json(&answers));
	else if (answers.count)
		status_print(&answers);
	if (!answers.count) {
		why = why_none(&answers);
		ret = command_fail("%s", why);
		free(why);
	}
	status_answers_deinit(&answers);
	return ret;
}

/* ---- --watch ---- */

static void show_next(struct options *options, const char *on, bool first)
{
	struct answers answers = {.on = on};
	bool in_place = isatty(STDOUT_FILENO) && !options->json;
	char *why;

	ask(options, &answers);
	/* Home, and after the text whatever an older, longer one left. */
	if (in_place)
		fputs("\033[H\033[2J", stdout);
	else if (!options->json && !first)
		putchar('\n');
	if (options->json) {
		table_print_json_line(status_as_json(&answers));
	} else if (answers.count) {
		status_print(&answers);
	} else {
		why = why_none(&answers);
		table_line("31", "! %s (asked again)", why);
		free(why);
	}
	fflush(stdout);
	status_answers_deinit(&answers);
}

/* Until interrupted, or nobody reads any more. */
static int watch(struct options *options, const struct status_options *own)
{
	sigset_t signals;
	struct pollfd p = {.events = POLLIN};
	bool first = true;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	p.fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (p.fd < 0)
		return command_fail("cannot wait: %s", strerror(errno));
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	do {
		show_next(options, own->on, first);
		first = false;
	} while (!ferror(stdout) && poll(&p, 1, own->interval_ms) <= 0);
	close(p.fd);
	return EXIT_OK;
}

/* ---- the command ---- */

static void on_option(void *arg, int key, char *value, struct argp_state *state)
{
	struct status_options *own = arg;

	switch (key) {
	case OPT_ON:
		own->on = value;
		break;
	case 'w':
		own->watch = true;
		break;
	case OPT_INTERVAL:
		own->interval_ms = (int)options_time(
			state, "--interval", value, 100, 3600000);
		break;
	case OPT_WIDE:
		table_be_wide();
		break;
	}
}

int status_command(struct options *options, int argc, char **argv)
{
	struct status_options own = {.interval_ms = DEFAULT_INTERVAL_MS};
	const struct options_spec spec = {
		.doc = "Shows what is wrong, the daemons of this host, the "
		       "peers as peerd sees them, and the workers of proxy."
		       "\vExit status 1 when no daemon answers; with --watch "
		       "that is said and asked again.",
		.list = status_options_list,
		.on_option = on_option,
		.own = &own,
	};

	options_parse(options, argc, argv, &spec);
	return own.watch ? watch(options, &own) : show_once(options, own.on);
}
