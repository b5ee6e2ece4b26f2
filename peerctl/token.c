/* SPDX-License-Identifier: Apache-2.0 */
/*
 * token add, ls, rm: join tokens, kept by authd. The token itself exists once,
 * in the answer to add: it goes to stdout or to a file, never to a log.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerctl/command.h"
#include "peerctl/file.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

#define DEFAULT_TTL_MS (3600 * 1000)

struct token_options {
	const char *role;
	json_t *names;
	const char *agent_name;
	const char *out;
	uint64_t ttl_ms;
};

enum { OPT_ROLE = OPTIONS_OWN, OPT_NAME, OPT_AGENT_NAME, OPT_TTL, OPT_OUT };

static const struct argp_option add_options[] = {
	{"role", OPT_ROLE, "proxy|node", 0,
		"What may join with it: a proxy host, or an agent (node)", 0},
	{"name", OPT_NAME, "NAME", 0,
		"A DNS name or IP address that the proxy host's certificate "
		"may carry; may be repeated",
		0},
	{"agent-name", OPT_AGENT_NAME, "NAME", 0,
		"The only name the agent may take", 0},
	{"ttl", OPT_TTL, "TIME", 0, "How long it is good, as 30m (default 1h)",
		0},
	{"out", OPT_OUT, "FILE", 0,
		"Write the token into FILE, mode 0600, instead of stdout", 0},
	{0},
};

static void check_add(void *arg, const char *argument, struct argp_state *state)
{
	const struct token_options *own = arg;

	if (!own->role)
		argp_error(state, "--role proxy or --role node is missing");
	if (!strcmp(own->role, "proxy") && own->agent_name)
		argp_error(state, "--agent-name is for --role node");
	if (!strcmp(own->role, "node") && json_array_size(own->names))
		argp_error(state, "--name is for --role proxy");
}

static void on_add_option(
	void *arg, int key, char *value, struct argp_state *state)
{
	struct token_options *own = arg;

	switch (key) {
	case OPT_ROLE:
		if (strcmp(value, "proxy") && strcmp(value, "node"))
			argp_error(state, "--role: \"%s\" is not proxy or node",
				value);
		own->role = value;
		break;
	case OPT_NAME:
		json_array_append_new(own->names, json_string(value));
		break;
	case OPT_AGENT_NAME:
		own->agent_name = value;
		break;
	case OPT_TTL:
		own->ttl_ms =
			options_time(state, "--ttl", value, 1000, UINT64_MAX);
		break;
	case OPT_OUT:
		own->out = value;
		break;
	}
}

/* The joining host wants the CA's pin beside the token: have both at hand. */
static json_t *with_pin(struct options *options, json_t *answer)
{
	char *error;
	json_t *ca = options_ask(options, "authd", "ca", NULL, &error);

	if (ca)
		json_object_set(answer, "ca_pin", json_object_get(ca, "pin"));
	else
		free(error);
	json_decref(ca);
	return answer;
}

static void print_added(const json_t *answer)
{
	static const char *const headings[] = {
		"TOKEN", "ID", "EXPIRES", "CA PIN", NULL};
	struct table *table = table_new(headings);

	table_member(table, answer, "token");
	table_member(table, answer, "id");
	table_member(table, answer, "expires");
	table_member(table, answer, "ca_pin");
	table_print(table);
	table_free(table);
}

static int save_token(json_t *answer, const char *path)
{
	const char *token = json_string_value(json_object_get(answer, "token"));
	char *line = xasprintf("%s\n", token ? token : "");
	int ret = file_write(path, 0600, line, strlen(line));

	wipe(line, strlen(line));
	free(line);
	if (ret)
		return command_fail(
			"cannot write %s: %s", path, strerror(-ret));
	json_object_del(answer, "token");
	return EXIT_OK;
}

static int add(struct options *options, const struct token_options *own)
{
	json_t *args = json_pack("{s:s,s:O,s:I,s:s*}", "role", own->role,
		"names", own->names, "ttl_s", (json_int_t)(own->ttl_ms / 1000),
		"agent_name", own->agent_name);
	json_t *answer = options_answer(options, "authd", "token.add", args);
	int ret = EXIT_OK;

	if (!answer)
		return EXIT_FAILED;
	with_pin(options, answer);
	if (own->out)
		ret = save_token(answer, own->out);
	if (!ret && options->json)
		table_print_json(json_incref(answer));
	else if (!ret)
		print_added(answer);
	json_decref(answer);
	return ret;
}

static int token_add(struct options *options, int argc, char **argv)
{
	struct token_options own = {
		.names = json_array(),
		.ttl_ms = DEFAULT_TTL_MS,
	};
	const struct options_spec spec = {
		.doc = "Makes a join token. It is shown once.",
		.list = add_options,
		.on_option = on_add_option,
		.check = check_add,
		.own = &own,
	};
	int ret;

	options_parse(options, argc, argv, &spec);
	ret = add(options, &own);
	json_decref(own.names);
	return ret;
}

/* --- ls, rm --- */

static void print_tokens(const json_t *tokens)
{
	static const char *const headings[] = {
		"ID", "ROLE", "NAMES", "AGENT NAME", "EXPIRES", NULL};
	struct table *table = table_new(headings);
	size_t i;
	json_t *token;

	json_array_foreach(tokens, i, token)
	{
		table_member(table, token, "id");
		table_member(table, token, "role");
		table_list(table, json_object_get(token, "names"));
		table_member(table, token, "agent_name");
		table_member(table, token, "expires");
	}
	table_print(table);
	table_free(table);
}

static int ask(struct options *options, const char *verb, json_t *args)
{
	json_t *answer = options_answer(options, "authd", verb, args);
	const json_t *tokens = json_object_get(answer, "tokens");

	if (!answer)
		return EXIT_FAILED;
	if (options->json)
		table_print_json(json_incref(answer));
	else if (tokens)
		print_tokens(tokens);
	json_decref(answer);
	return EXIT_OK;
}

static int token_ls(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.doc = "Lists join tokens, without the tokens themselves.",
	};

	options_parse(options, argc, argv, &spec);
	return ask(options, "token.ls", NULL);
}

static int token_rm(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.argument = "ID",
		.doc = "Removes a join token: nobody joins with it any more. "
		       "ID is what token ls shows.",
	};
	const char *id = options_parse(options, argc, argv, &spec);

	return ask(options, "token.rm", json_pack("{s:s}", "id", id));
}

int token_command(struct options *options, int argc, char **argv)
{
	static const struct command commands[] = {
		{"add", "make one", token_add},
		{"ls", "list them", token_ls},
		{"rm", "remove one", token_rm},
		{NULL, NULL, NULL},
	};

	return command_run(commands,
		"Join tokens, on the host that runs authd.", options, argc,
		argv);
}
