/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ca rotate start, status, finish, rollback: replaces the cluster's CAs, by
 * questions to authd. Decides nothing: authd knows who would be cut off.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerctl/command.h"
#include "peerctl/table.h"

struct ca_options {
	const char *ca;
	bool force;
};

enum { OPT_CA = OPTIONS_OWN, OPT_FORCE };

static const struct argp_option change_options[] = {
	{"ca", OPT_CA, "host|user|both", 0, "Which CA is meant (default both)",
		0},
	{0},
};

static const struct argp_option finish_options[] = {
	{"ca", OPT_CA, "host|user|both", 0, "Which CA is meant (default both)",
		0},
	{"force", OPT_FORCE, NULL, 0,
		"Also when hosts or users still need the CA that goes: they "
		"are cut off and have to join, or be issued, again",
		0},
	{0},
};

static void on_option(void *arg, int key, char *value, struct argp_state *state)
{
	struct ca_options *own = arg;

	if (key == OPT_FORCE) {
		own->force = true;
		return;
	}
	if (strcmp(value, "host") && strcmp(value, "user") &&
		strcmp(value, "both"))
		argp_error(
			state, "--ca: \"%s\" is not host, user or both", value);
	own->ca = value;
}

/* ---- the answer ---- */

static void pin_cell(struct table *table, const json_t *ca)
{
	const char *pin = json_string_value(json_object_get(ca, "pin"));

	table_cell(table, "%.19s", pin ? pin : "-");
}

static void progress_cell(struct table *table, const json_t *count)
{
	if (!count) {
		table_cell(table, "-");
		return;
	}
	table_cell(table, "%lld of %lld",
		(long long)json_integer_value(
			json_object_get(count, "reissued")),
		(long long)json_integer_value(json_object_get(count, "total")));
}

static void print_one(struct table *table, const char *name, const json_t *set)
{
	const json_t *other = json_object_get(set, "other");
	bool two = json_is_object(other);

	table_cell(table, "%s", name);
	table_member(table, set, "phase");
	table_member(table, set, "since");
	pin_cell(table, json_object_get(set, "active"));
	pin_cell(table, other);
	progress_cell(table, two ? json_object_get(set, "proxies") : NULL);
	progress_cell(table, two ? json_object_get(set, "agents") : NULL);
}

static void print_remaining(const json_t *host)
{
	static const char *const headings[] = {
		"REMAINING", "NAME", "ID", "ONLINE", "EXPIRES", NULL};
	const json_t *list = json_object_get(host, "remaining");
	long long count =
		json_integer_value(json_object_get(host, "remaining_count"));
	long long listed = (long long)json_array_size(list);
	struct table *table;
	size_t i;
	json_t *one;

	if (!listed)
		return;
	printf("\n");
	table = table_new(headings);
	json_array_foreach(list, i, one)
	{
		table_member(table, one, "role");
		table_member(table, one, "name");
		table_member(table, one, "id");
		table_cell(table, "%s",
			json_is_true(json_object_get(one, "online")) ? "yes"
								     : "no");
		table_member(table, one, "not_after");
	}
	table_print(table);
	table_free(table);
	if (count > listed)
		printf("and %lld more\n", count - listed);
}

static void print_users(const json_t *set, const char *which)
{
	const char *until =
		json_string_value(json_object_get(set, "users_until"));

	if (until)
		printf("\nusers' last certificate that needs the %s CA that "
		       "goes ends %s\n",
			which, until);
}

static void print_status(const json_t *answer)
{
	static const char *const headings[] = {"CA", "PHASE", "SINCE", "SIGNS",
		"ALSO TRUSTED", "PROXIES", "AGENTS", NULL};
	const json_t *host = json_object_get(answer, "host");
	const json_t *user = json_object_get(answer, "user");
	struct table *table = table_new(headings);

	print_one(table, "host", host);
	print_one(table, "user", user);
	table_print(table);
	table_free(table);
	print_users(host, "host");
	print_users(user, "user");
	print_remaining(host);
}

/* ---- the commands ---- */

static int ask(struct options *options, int argc, char **argv, const char *verb,
	const struct argp_option *list, const char *doc)
{
	struct ca_options own = {.ca = "both"};
	const struct options_spec spec = {
		.doc = doc, .list = list, .on_option = on_option, .own = &own};
	json_t *answer;

	options_parse(options, argc, argv, &spec);
	answer = options_answer(options, "authd", verb,
		json_pack("{s:s, s:b}", "ca", own.ca, "force", own.force));
	if (!answer)
		return EXIT_FAILED;
	if (options->json)
		table_print_json(json_incref(answer));
	else
		print_status(answer);
	json_decref(answer);
	return EXIT_OK;
}

static int rotate_start(struct options *options, int argc, char **argv)
{
	return ask(options, argc, argv, "ca.rotate.start", change_options,
		"Makes a new CA that signs from now on; both are trusted.");
}

static int rotate_status(struct options *options, int argc, char **argv)
{
	return ask(options, argc, argv, "ca.rotate.status", NULL,
		"Shows how far a rotation has come, and who remains.");
}

static int rotate_finish(struct options *options, int argc, char **argv)
{
	return ask(options, argc, argv, "ca.rotate.finish", finish_options,
		"Withdraws the CA that does not sign any more.");
}

static int rotate_rollback(struct options *options, int argc, char **argv)
{
	return ask(options, argc, argv, "ca.rotate.rollback", change_options,
		"Lets the old CA sign again; finish then drops the new one.");
}

static int rotate(struct options *options, int argc, char **argv)
{
	static const struct command commands[] = {
		{"start", "make a new CA, trust both", rotate_start},
		{"status", "how far it has come", rotate_status},
		{"finish", "withdraw the other CA", rotate_finish},
		{"rollback", "sign with the old CA again", rotate_rollback},
		{NULL, NULL, NULL},
	};

	return command_run(commands,
		"Replaces the CAs, on the host that runs authd.", options, argc,
		argv);
}

int ca_command(struct options *options, int argc, char **argv)
{
	static const struct command commands[] = {
		{"rotate", "replace them: start, status, finish, rollback",
			rotate},
		{NULL, NULL, NULL},
	};

	return command_run(commands,
		"The cluster's CAs, on the host that runs authd.", options,
		argc, argv);
}
