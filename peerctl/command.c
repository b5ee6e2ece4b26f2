/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the command that argv names and gives it the rest. --help is derived
 * from the table.
 */
#include "peerctl/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

struct choice {
	const struct command *commands;
	const struct command *command; /* chosen */
	struct options *options;
	int index; /* of its name in argv */
};

static error_t on_option(int key, char *value, struct argp_state *state)
{
	struct choice *choice = state->input;
	const struct command *command = choice->commands;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = choice->options;
		return 0;
	case ARGP_KEY_ARG:
		while (command->name && strcmp(command->name, value))
			command++;
		if (!command->name)
			argp_error(state, "unknown command: %s", value);
		choice->command = command;
		choice->index = state->next - 1;
		state->next = state->argc; /* the rest is the command's */
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a command is missing");
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static char *make_doc(const struct command *commands, const char *summary)
{
	char *doc = xasprintf("%s\vCommands:\n", summary);

	for (; commands->name; commands++) {
		char *longer = xasprintf("%s  %-10s %s\n", doc, commands->name,
			commands->summary);

		free(doc);
		doc = longer;
	}
	return doc;
}

int command_run(const struct command *commands, const char *summary,
	struct options *options, int argc, char **argv)
{
	const struct argp_child children[] = {{&options_argp, 0, NULL, 0}, {0}};
	char *doc = make_doc(commands, summary);
	const struct argp argp = {
		.parser = on_option,
		.args_doc = "COMMAND ...",
		.doc = doc,
		.children = children,
	};
	struct choice choice = {.commands = commands, .options = options};
	char *name;
	int ret;

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &choice);
	free(doc);
	name = xasprintf("%s %s", argv[0], choice.command->name);
	argv[choice.index] = name;
	ret = choice.command->run(
		options, argc - choice.index, argv + choice.index);
	free(name);
	return ret;
}

int command_fail(const char *format, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	/* One line, and none of a remote side's escape sequences. */
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = p[1] ? ' ' : '\0';
	fprintf(stderr, "peerctl: %s\n", text);
	return EXIT_FAILED;
}
