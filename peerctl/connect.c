/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect TARGET: stdin and stdout to a service behind the fleet, as OpenSSH's
 * ProxyCommand wants it. Nothing but the service's bytes goes to stdout.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerctl/client.h"
#include "peerctl/command.h"
#include "peerctl/pump.h"
#include "shared/alloc.h"
#include "shared/conf_number.h"

#define DEFAULT_TIMEOUT_MS 30000

struct connect_options {
	struct options *options;
	struct client_request request;
	bool verbose;
};

enum { OPT_PROXY = 0x2000, OPT_IDENTITY, OPT_TIMEOUT };

static const struct argp_option connect_options_list[] = {
	{"proxy", OPT_PROXY, "HOST:PORT", 0,
		"The proxy (default $PEERWAY_PROXY; port 3080)", 0},
	{"identity", OPT_IDENTITY, "DIR", 0,
		"The directory that identity issue made (default "
		"$PEERWAY_IDENTITY, else ~/.peerway)",
		0},
	{"timeout", OPT_TIMEOUT, "TIME", 0,
		"How long it may take until connected (default 30s)", 0},
	{"verbose", 'v', NULL, 0,
		"Say on stderr which way it went: route=local, sibling or peer",
		0},
	{0},
};

static error_t on_option(int key, char *value, struct argp_state *state)
{
	struct connect_options *own = state->input;
	uint64_t ms;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = own->options;
		return 0;
	case OPT_PROXY:
		own->request.proxy = value;
		return 0;
	case OPT_IDENTITY:
		own->request.identity = value;
		return 0;
	case OPT_TIMEOUT:
		if (!conf_number_parse(value, CONF_UNIT_TIME, &ms) || !ms ||
			ms > 3600000)
			argp_error(state,
				"--timeout: \"%s\" is not a time "
				"such as 30s, at most 1h",
				value);
		own->request.timeout_ms = ms;
		return 0;
	case 'v':
		own->verbose = true;
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num)
			argp_error(state, "unexpected argument: %s", value);
		own->request.target = value;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "TARGET is missing");
		return EINVAL;
	case ARGP_KEY_END:
		if (!own->request.proxy)
			argp_error(state, "which proxy? Set --proxy HOST:PORT "
					  "or PEERWAY_PROXY");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int run(const struct connect_options *own)
{
	char *error = NULL;
	struct client *client = client_open(&own->request, &error);
	int ret;

	if (!client) {
		ret = command_fail("%s", error);
		free(error);
		return ret;
	}
	if (own->verbose)
		fprintf(stderr, "route=%s proxy=%s conn=%s\n", client->route,
			client->proxy_id, client->connection_id);
	ret = pump_run(client, STDIN_FILENO, STDOUT_FILENO);
	client_free(client);
	if (ret)
		return command_fail("%s: connection broke: %s",
			own->request.target, strerror(-ret));
	return EXIT_OK;
}

static char *default_identity(void)
{
	const char *dir = getenv("PEERWAY_IDENTITY");
	const char *home = getenv("HOME");

	if (dir)
		return xstrdup(dir);
	return xasprintf("%s/.peerway", home ? home : "");
}

int connect_command(struct options *options, int argc, char **argv)
{
	const struct argp_child children[] = {{&options_argp, 0, NULL, 0}, {0}};
	const struct argp argp = {
		.options = connect_options_list,
		.parser = on_option,
		.args_doc = "TARGET",
		.doc = "Connects stdin and stdout to TARGET: AGENT, "
		       "SERVICE.AGENT or the agent's uuid, with or without "
		       ":PORT."
		       "\vFor OpenSSH:\n"
		       "  ssh -o ProxyCommand='peerctl connect %h:%p' AGENT",
		.children = children,
	};
	char *identity = default_identity();
	struct connect_options own = {
		.options = options,
		.request =
			{
				.proxy = getenv("PEERWAY_PROXY"),
				.identity = identity,
				.timeout_ms = DEFAULT_TIMEOUT_MS,
			},
	};
	int ret;

	argp_parse(&argp, argc, argv, 0, NULL, &own);
	ret = run(&own);
	free(identity);
	return ret;
}
