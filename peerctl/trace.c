/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace TARGET: how a client's dial of the target through this host goes, hop
 * by hop. peerd resolves and dials for real (peerd/trace.h); this asks and
 * shows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerctl/command.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

static const json_t *at(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(at(object, key));

	return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
	return json_integer_value(at(object, key));
}

/* "proxy-2 (6f0c1234)", "this host" for our own; gives. */
static char *name_proxy(const json_t *object)
{
	const char *id = text_of(object, "proxy_id");
	const char *hostname = text_of(object, "hostname");

	/* Only other proxies have a name in peerd's table of peers. */
	if (!strcmp(text_of(object, "route"), "sibling"))
		return xstrdup("this host");
	return *hostname ? xasprintf("%s (%.8s)", hostname, id)
			 : xasprintf("(%.8s)", id);
}

static void print_target(const json_t *answer)
{
	const json_t *found = at(answer, "resolved");
	char port[16] = "no port";

	if (!json_is_object(found))
		return;
	if (number_of(found, "port"))
		snprintf(port, sizeof(port), "port %lld",
			number_of(found, "port"));
	table_line(NULL, "target      %s", text_of(answer, "target"));
	table_line(NULL, "service     %s (%s, %s)", text_of(found, "service"),
		text_of(found, "type"), port);
	table_line(NULL, "agent       %s (%s)", text_of(found, "agent"),
		text_of(found, "agent_id"));
	if (!strcmp(text_of(found, "known_from"), "cache"))
		table_line(NULL, "known from  the cache, revision %lld",
			number_of(found, "cache_revision"));
	else
		table_line(NULL, "known from  a tunnel of this host");
}

static void print_candidates(const json_t *candidates)
{
	const json_t *candidate;
	size_t i;

	json_array_foreach(candidates, i, candidate)
	{
		char *name = name_proxy(candidate);

		table_line(NULL, "%s%zu. %s: %s",
			i ? "            " : "candidates  ", i + 1, name,
			text_of(candidate, "reason"));
		free(name);
	}
}

static void print_attempts(const json_t *attempts)
{
	const json_t *attempt;
	size_t i;

	json_array_foreach(attempts, i, attempt)
	{
		const char *error = text_of(attempt, "error");
		char *name = name_proxy(attempt);

		table_line(*error ? "31" : NULL, "%s%s: %s after %lld ms",
			i ? "            " : "tried       ", name,
			*error ? error : "connected", number_of(attempt, "ms"));
		free(name);
	}
}

/* Each hop's time holds those below it. */
static void print_hops(const json_t *answer)
{
	bool peer = !strcmp(text_of(answer, "route"), "peer");
	char *name = name_proxy(answer);

	table_line(NULL, "times       %.1f ms in all, at this peerd",
		json_real_value(at(answer, "ms")));
	if (at(answer, "worker_ms"))
		table_line(NULL,
			"            %.1f ms of it at %s, its worker %lld and "
			"the agent",
			json_real_value(at(answer, "worker_ms")), name,
			number_of(answer, "worker"));
	else if (peer)
		table_line(NULL, "            %s does not tell its own", name);
	table_line(NULL, "route       %s, %s", text_of(answer, "route"), name);
	table_line("32", "agent       connected to the service; the connection "
			 "was closed at once");
	free(name);
}

static void print_answer(const json_t *answer)
{
	print_target(answer);
	print_candidates(at(answer, "candidates"));
	print_attempts(at(answer, "attempts"));
	if (json_is_true(at(answer, "ok")))
		print_hops(answer);
}

int trace_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.argument = "TARGET",
		.doc = "Dials TARGET as for a client of this proxy host, and "
		       "tells how it went: what the target is, whom it could "
		       "ask and why in this order, each hop's time, the "
		       "agent's answer."
		       "\vThe dial is a real one: the service sees a "
		       "connection that is closed at once. Exit status 1 when "
		       "it failed.",
	};
	const char *target = options_parse(options, argc, argv, &spec);
	json_t *answer = options_answer(options, "peerd", "trace",
		json_pack("{s:s}", "target", target));
	int ret = EXIT_OK;

	if (!answer)
		return EXIT_FAILED;
	if (options->json)
		table_print_json(json_incref(answer));
	else
		print_answer(answer);
	fflush(stdout);
	if (!json_is_true(at(answer, "ok")))
		ret = command_fail("%s: %s", target, text_of(answer, "error"));
	json_decref(answer);
	return ret;
}
