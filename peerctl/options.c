/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of every command, and where the daemons' sockets are:
 * --run-dir, else the configuration file's run_dir, else /run/peerway when the
 * default configuration file does not exist (a host need not have one to be
 * asked).
 */
#include "peerctl/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerctl/command.h"
#include "shared/alloc.h"
#include "shared/conf_number.h"
#include "shared/ctl.h"
#include "shared/sock.h"

#define DEFAULT_RUN_DIR "/run/peerway"
#define ASK_TIMEOUT_MS 30000

enum { OPT_RUN_DIR = 0x1000, OPT_FORMAT };

static const struct argp_option common_options[] = {
	{NULL, 0, NULL, 0, "Options of every command:", 90},
	{"config", 'c', "FILE", 0,
		"Configuration of this host (default " OPTIONS_DEFAULT_CONFIG
		")",
		90},
	{"run-dir", OPT_RUN_DIR, "DIR", 0,
		"Where the daemons' sockets are (default: as configured)", 90},
	{"format", OPT_FORMAT, "table|json", 0,
		"How to print (default table; columns are separated by tabs "
		"when the output is not a terminal)",
		90},
	{0},
};

static error_t on_option(int key, char *value, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'c':
		options->config_path = value;
		return 0;
	case OPT_RUN_DIR:
		options->run_dir = value;
		return 0;
	case OPT_FORMAT:
		if (strcmp(value, "table") && strcmp(value, "json"))
			argp_error(state,
				"--format: \"%s\" is not table or json", value);
		options->json = !strcmp(value, "json");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp options_argp = {
	.options = common_options,
	.parser = on_option,
};

/* ---- one command's ---- */

struct parse {
	const struct options_spec *spec;
	struct options *options;
	const char *argument;
};

static bool is_own(const struct options_spec *spec, int key)
{
	for (const struct argp_option *o = spec->list; o && o->name; o++) {
		if (o->key == key)
			return true;
	}
	return false;
}

static error_t on_command_option(int key, char *value, struct argp_state *state)
{
	struct parse *parse = state->input;
	const struct options_spec *spec = parse->spec;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = parse->options;
		return 0;
	case ARGP_KEY_ARG:
		if (!spec->argument || state->arg_num)
			argp_error(state, "unexpected argument: %s", value);
		parse->argument = value;
		return 0;
	case ARGP_KEY_NO_ARGS:
		if (spec->argument && !spec->optional)
			argp_error(state, "%s is missing", spec->argument);
		return 0;
	case ARGP_KEY_END:
		if (spec->check)
			spec->check(spec->own, parse->argument, state);
		return 0;
	default:
		if (!is_own(spec, key))
			return ARGP_ERR_UNKNOWN;
		spec->on_option(spec->own, key, value, state);
		return 0;
	}
}

const char *options_parse(struct options *options, int argc, char **argv,
	const struct options_spec *spec)
{
	const struct argp_child children[] = {{&options_argp, 0, NULL, 0}, {0}};
	const struct argp argp = {
		.options = spec->list,
		.parser = on_command_option,
		.args_doc = spec->argument,
		.doc = spec->doc,
		.children = children,
	};
	struct parse parse = {.spec = spec, .options = options};

	argp_parse(&argp, argc, argv, 0, NULL, &parse);
	return parse.argument;
}

uint64_t options_time(struct argp_state *state, const char *option,
	const char *value, uint64_t min_ms, uint64_t max_ms)
{
	uint64_t ms = 0;

	if (!conf_number_parse(value, CONF_UNIT_TIME, &ms))
		argp_error(state, "%s: \"%s\" is not a time such as 30s or 12h",
			option, value);
	if (ms < min_ms || ms > max_ms)
		argp_error(state, "%s: \"%s\" is too %s", option, value,
			ms < min_ms ? "short" : "long");
	return ms;
}

/* ---- the daemons ---- */

const struct conf *options_conf(struct options *options)
{
	const char *path = options->config_path;
	char *error;

	if (!options->conf) {
		options->conf =
			conf_load(path ? path : OPTIONS_DEFAULT_CONFIG, &error);
		if (!options->conf) {
			command_fail("%s", error);
			free(error);
		}
	}
	return options->conf;
}

const char *options_run_dir(struct options *options)
{
	const struct conf *conf;

	if (options->run_dir)
		return options->run_dir;
	if (!options->config_path && access(OPTIONS_DEFAULT_CONFIG, F_OK) < 0)
		return DEFAULT_RUN_DIR;
	conf = options_conf(options);
	return conf ? conf->run_dir : NULL;
}

/* Whether the socket answers at all; else the error in words of what to do.
 * Gives. */
static char *explain(const char *daemon, const char *path, char *error)
{
	int fd = sock_unix_connect(path);
	char *text;

	if (fd >= 0) {
		close(fd);
		return error;
	}
	if (fd == -EACCES)
		text = xasprintf("%s may not be asked: be root or in the group "
				 "of run_dir: %s",
			daemon, error);
	else
		text = xasprintf(
			"%s is not running on this host: %s", daemon, error);
	free(error);
	return text;
}

json_t *options_ask(struct options *options, const char *daemon,
	const char *verb, const json_t *args, char **error_out)
{
	const char *run_dir = options_run_dir(options);
	char *path;
	json_t *answer;

	if (!run_dir)
		exit(EXIT_FAILED);
	path = xasprintf("%s/%s.sock", run_dir, daemon);
	answer = ctl_ask(path, verb, args,
		options->ask_ms ? options->ask_ms : ASK_TIMEOUT_MS, error_out);
	if (!answer)
		*error_out = explain(daemon, path, *error_out);
	free(path);
	return answer;
}

json_t *options_answer(struct options *options, const char *daemon,
	const char *verb, json_t *args)
{
	char *error;
	json_t *answer = options_ask(options, daemon, verb, args, &error);

	json_decref(args);
	if (!answer) {
		command_fail("%s", error);
		free(error);
	}
	return answer;
}

void options_free(struct options *options)
{
	conf_free(options->conf);
	options->conf = NULL;
}
