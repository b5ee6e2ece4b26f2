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

#define DEFAULT_TIMEOUT_MS 30000

struct connect_options {
	struct client_request request;
	bool verbose;
};

enum { OPT_PROXY = OPTIONS_OWN, OPT_IDENTITY, OPT_TIMEOUT };

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

static void on_option(void *arg, int key, char *value, struct argp_state *state)
{
	struct connect_options *own = arg;

	switch (key) {
	case OPT_PROXY:
		own->request.proxy = value;
		break;
	case OPT_IDENTITY:
		own->request.identity = value;
		break;
	case OPT_TIMEOUT:
		own->request.timeout_ms = (int)options_time(
			state, "--timeout", value, 1, 3600000);
		break;
	case 'v':
		own->verbose = true;
		break;
	}
}

static void check(void *arg, const char *argument, struct argp_state *state)
{
	const struct connect_options *own = arg;

	if (!own->request.proxy)
		argp_error(state, "which proxy? Set --proxy HOST:PORT "
				  "or PEERWAY_PROXY");
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
	char *identity = default_identity();
	struct connect_options own = {
		.request =
			{
				.proxy = getenv("PEERWAY_PROXY"),
				.identity = identity,
				.timeout_ms = DEFAULT_TIMEOUT_MS,
			},
	};
	const struct options_spec spec = {
		.argument = "TARGET",
		.doc = "Connects stdin and stdout to TARGET: AGENT, "
		       "SERVICE.AGENT or the agent's uuid, with or without "
		       ":PORT."
		       "\vFor OpenSSH:\n"
		       "  ssh -o ProxyCommand='peerctl connect %h:%p' AGENT",
		.list = connect_options_list,
		.on_option = on_option,
		.check = check,
		.own = &own,
	};
	int ret;

	own.request.target = options_parse(options, argc, argv, &spec);
	ret = run(&own);
	free(identity);
	return ret;
}
