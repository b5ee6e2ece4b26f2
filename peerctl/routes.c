/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ls and routes: what routed's cache says of agents. One row for an agent's
 * services (ls), one for each proxy that holds it (routes).
 */
#include <stdlib.h>
#include <string.h>

#include "peerctl/command.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

static void services_cell(struct table *table, const json_t *services)
{
	char *text = xstrdup("");
	size_t i;
	json_t *service;

	json_array_foreach(services, i, service)
	{
		const char *name = "?";
		const char *type = "?";
		json_int_t port = 0;
		char *longer;

		json_unpack(service, "{s?s,s?s,s?I}", "name", &name, "type",
			&type, "port", &port);
		longer = xasprintf("%s%s%s(%s:%d)", text, i ? "," : "", name,
			type, (int)port);
		free(text);
		text = longer;
	}
	table_cell(table, "%s", *text ? text : "-");
	free(text);
}

static void labels_cell(struct table *table, json_t *labels)
{
	char *text = xstrdup("");
	const char *name;
	json_t *value;

	json_object_foreach(labels, name, value)
	{
		char *longer = xasprintf("%s%s%s=%s", text, *text ? "," : "",
			name,
			json_is_string(value) ? json_string_value(value) : "?");

		free(text);
		text = longer;
	}
	table_cell(table, "%s", *text ? text : "-");
	free(text);
}

static void print_agents(const json_t *agents)
{
	static const char *const headings[] = {
		"AGENT", "SERVICES", "PROXIES", "LABELS", "AGENT ID", NULL};
	struct table *table = table_new(headings);
	size_t i;
	json_t *agent;

	json_array_foreach(agents, i, agent)
	{
		json_t *proxies = json_object_get(agent, "proxies");

		table_member(table, agent, "name");
		services_cell(table, json_object_get(agent, "services"));
		table_cell(table, "%zu", json_array_size(proxies));
		labels_cell(table, json_object_get(agent, "labels"));
		table_member(table, agent, "agent_id");
	}
	table_print(table);
	table_free(table);
}

static void print_routes(const json_t *agents)
{
	static const char *const headings[] = {
		"AGENT", "AGENT ID", "PROXY", "PROXY ID", "SINCE", NULL};
	struct table *table = table_new(headings);
	size_t i;
	size_t j;
	json_t *agent;
	json_t *proxy;

	json_array_foreach(agents, i, agent)
		json_array_foreach(json_object_get(agent, "proxies"), j, proxy)
	{
		table_member(table, agent, "name");
		table_member(table, agent, "agent_id");
		table_member(table, proxy, "hostname");
		table_member(table, proxy, "id");
		table_member(table, proxy, "since");
	}
	table_print(table);
	table_free(table);
}

int ls_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.doc = "Lists the agents that are online and their services, "
		       "as this proxy host knows them.",
	};
	json_t *answer;

	options_parse(options, argc, argv, &spec);
	answer = options_answer(options, "routed", "ls", NULL);
	if (!answer)
		return EXIT_FAILED;
	if (options->json)
		table_print_json(json_incref(answer));
	else
		print_agents(json_object_get(answer, "agents"));
	json_decref(answer);
	return EXIT_OK;
}

/* No route is a failure, so that scripts can wait for one. */
int routes_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.argument = "AGENT",
		.doc = "Shows which proxies hold tunnels of AGENT, a name or a "
		       "uuid. Exit status 1 when none does.",
	};
	const char *agent = options_parse(options, argc, argv, &spec);
	json_t *answer = options_answer(options, "routed", "routes",
		json_pack("{s:s}", "agent", agent));
	json_t *agents = json_object_get(answer, "agents");
	int ret = EXIT_OK;

	if (!answer)
		return EXIT_FAILED;
	if (options->json)
		table_print_json(json_incref(answer));
	else if (json_array_size(agents))
		print_routes(agents);
	if (!json_array_size(agents))
		ret = command_fail("no proxy holds an agent called %s", agent);
	json_decref(answer);
	return ret;
}
