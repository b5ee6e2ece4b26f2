/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of every command, and where the daemons' sockets are: --run-dir,
 * else the configuration file's run_dir, else /run/peerway when the default
 * configuration file does not exist (a host need not have one to be asked).
 */
#include "peerctl/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerctl/command.h"
#include "shared/alloc.h"
#include "shared/ctl.h"

#define DEFAULT_CONFIG "/etc/peerway/peerway.yaml"
#define DEFAULT_RUN_DIR "/run/peerway"
#define ASK_TIMEOUT_MS 10000

enum { OPT_RUN_DIR = 0x1000, OPT_FORMAT };

static const struct argp_option common_options[] = {
	{NULL, 0, NULL, 0, "Options of every command:", 90},
	{"config", 'c', "FILE", 0,
		"Configuration of this host (default " DEFAULT_CONFIG ")", 90},
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

const char *options_run_dir(struct options *options)
{
	const char *path = options->config_path;
	char *error;

	if (options->run_dir)
		return options->run_dir;
	if (!path && access(DEFAULT_CONFIG, F_OK) < 0)
		return DEFAULT_RUN_DIR;
	if (!options->conf) {
		options->conf = conf_load(path ? path : DEFAULT_CONFIG, &error);
		if (!options->conf) {
			command_fail("%s", error);
			free(error);
			return NULL;
		}
	}
	return options->conf->run_dir;
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
	answer = ctl_ask(path, verb, args, ASK_TIMEOUT_MS, error_out);
	free(path);
	return answer;
}

void options_free(struct options *options)
{
	conf_free(options->conf);
	options->conf = NULL;
}
