/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status: asks every daemon of this host and shows what they say side by side.
 * Which daemons there should be is the configuration's word; without one, a
 * daemon whose socket does not exist is taken for one that does not run here.
 *
 * A daemon that is away is shown as such; the command fails only when none
 * answers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerctl/command.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

enum { AUTHD, ROUTED, PEERD, PROXY, DAEMON_COUNT };

static const char *const daemons[DAEMON_COUNT] = {
	[AUTHD] = "authd",
	[ROUTED] = "routed",
	[PEERD] = "peerd",
	[PROXY] = "proxy",
};

struct answers {
	json_t *of[DAEMON_COUNT];  /* NULL: away, or not expected */
	char *error[DAEMON_COUNT]; /* NULL: answered, or not expected */
	unsigned count;		   /* answered */
};

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
	path = xasprintf("%s/%s.sock", run_dir, daemons[which]);
	exists = !access(path, F_OK);
	free(path);
	return exists;
}

static void ask_all(struct options *options, struct answers *answers)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		if (!is_expected(options, i))
			continue;
		answers->of[i] = options_ask(options, daemons[i], "status",
			NULL, &answers->error[i]);
		if (answers->of[i])
			answers->count++;
	}
}

static void answers_deinit(struct answers *answers)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		json_decref(answers->of[i]);
		free(answers->error[i]);
	}
}

/* {"peerd": its answer, "routed": {"error": why it is away}, ...} */
static void print_json(const struct answers *answers)
{
	json_t *all = json_object();

	for (int i = 0; i < DAEMON_COUNT; i++) {
		if (answers->of[i])
			json_object_set(all, daemons[i], answers->of[i]);
		else if (answers->error[i])
			json_object_set_new(all, daemons[i],
				json_pack("{s:s}", "error", answers->error[i]));
	}
	table_print_json(all);
}

/* --- tables --- */

static const json_t *at(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(at(object, key));

	return text && *text ? text : "-";
}

static long long number_of(const json_t *object, const char *key)
{
	return json_integer_value(at(object, key));
}

static char *details_of_authd(const json_t *a)
{
	const json_t *store = at(a, "store");

	return xasprintf("cluster=%s listening=%s revision=%lld leases=%lld "
			 "watchers=%lld not_after=%s pin=%s",
		text_of(a, "cluster"), text_of(a, "listening"),
		number_of(store, "revision"), number_of(a, "leases"),
		number_of(a, "watchers"),
		text_of(at(a, "identity"), "not_after"), text_of(a, "pin"));
}

static char *details_of_routed(const json_t *a)
{
	const json_t *cache = at(a, "cache");
	const json_t *lease = at(a, "lease");

	return xasprintf("auth=%s %s since=%s lease=%s epoch=%lld published="
			 "%lld pending=%lld cache_revision=%lld "
			 "cache_age=%lldms not_after=%s%s%s",
		text_of(a, "auth_server"), text_of(a, "auth_state"),
		text_of(a, "since"), text_of(lease, "state"),
		number_of(lease, "epoch"), number_of(a, "tunnels_published"),
		number_of(a, "tunnels_pending"), number_of(cache, "revision"),
		number_of(cache, "age_ms"),
		text_of(at(a, "identity"), "not_after"),
		*text_of(a, "last_error") == '-' ? "" : " last_error=",
		*text_of(a, "last_error") == '-' ? ""
						 : text_of(a, "last_error"));
}

static char *details_of_peerd(const json_t *a)
{
	const json_t *dials = at(a, "dials");

	return xasprintf("%slistening=%s strategy=%s streams=%lld "
			 "dials_sibling=%lld dials_peer=%lld dials_failed=%lld "
			 "cache_revision=%lld",
		json_is_true(at(a, "draining")) ? "draining " : "",
		text_of(a, "listening"), text_of(a, "strategy"),
		number_of(a, "streams"), number_of(dials, "sibling"),
		number_of(dials, "peer"), number_of(dials, "failed"),
		number_of(at(a, "cache"), "revision"));
}

static char *details_of_proxy(const json_t *a)
{
	return xasprintf("workers=%zu clients=%lld tunnels=%lld",
		json_array_size(at(a, "workers")), number_of(a, "clients"),
		number_of(a, "tunnels"));
}

static char *(*const details[DAEMON_COUNT])(const json_t *answer) = {
	[AUTHD] = details_of_authd,
	[ROUTED] = details_of_routed,
	[PEERD] = details_of_peerd,
	[PROXY] = details_of_proxy,
};

static void print_daemons(const struct answers *answers)
{
	static const char *const headings[] = {
		"DAEMON", "STATE", "PID", "UPTIME", "DETAILS", NULL};
	struct table *table = table_new(headings);

	for (int i = 0; i < DAEMON_COUNT; i++) {
		const json_t *answer = answers->of[i];
		char uptime[32] = "-";
		char *text;

		if (!answer && !answers->error[i])
			continue;
		if (json_is_integer(at(answer, "uptime_s")))
			table_duration(number_of(answer, "uptime_s"), uptime,
				sizeof(uptime));
		text = answer ? details[i](answer) : xstrdup(answers->error[i]);
		table_cell(table, "%s", daemons[i]);
		table_cell(table, answer ? "running" : "away");
		table_member(table, answer, "pid");
		table_cell(table, "%s", uptime);
		table_cell(table, "%s", text);
		free(text);
	}
	table_print(table);
	table_free(table);
}

static void print_peers(const json_t *peers)
{
	/* What is wrong, first: it must be seen on 80 columns. */
	static const char *const headings[] = {"PEER", "STATE", "MS", "STREAMS",
		"SINCE", "LAST ERROR", "ADDRESS", "SENT", "RECEIVED", "ID",
		NULL};
	struct table *table = table_new(headings);
	size_t i;
	json_t *peer;

	json_array_foreach(peers, i, peer)
	{
		const json_t *ms = json_object_get(peer, "latency_ms");

		table_member(table, peer, "hostname");
		table_member(table, peer, "state");
		if (json_real_value(ms) > 0)
			table_cell(table, "%.1f", json_real_value(ms));
		else
			table_cell(table, "-");
		table_member(table, peer, "streams");
		table_member(table, peer, "since");
		table_member(table, peer, "last_error");
		table_member(table, peer, "addr");
		table_member(table, peer, "bytes_sent");
		table_member(table, peer, "bytes_received");
		table_member(table, peer, "id");
	}
	if (table_rows(table)) {
		putchar('\n');
		table_print(table);
	}
	table_free(table);
}

static void print_workers(const json_t *workers, const json_t *of_peerd)
{
	static const char *const headings[] = {
		"WORKER", "PID", "RESTARTS", "SINCE", "TUNNELS", NULL};
	struct table *table = table_new(headings);
	size_t i;
	size_t j;
	json_t *worker;
	json_t *seen;

	json_array_foreach(workers, i, worker)
	{
		const json_t *match = NULL;

		json_array_foreach(of_peerd, j,
			seen) if (number_of(seen, "worker") ==
				  number_of(worker, "worker")) match = seen;
		table_member(table, worker, "worker");
		table_member(table, worker, "pid");
		table_member(table, worker, "restarts");
		table_member(table, worker, "up_since");
		table_member(table, match, "tunnels");
	}
	if (table_rows(table)) {
		putchar('\n');
		table_print(table);
	}
	table_free(table);
}

static void print_tables(const struct answers *answers)
{
	const json_t *peerd = answers->of[PEERD];
	const json_t *routed = answers->of[ROUTED];
	const json_t *host = peerd ? peerd : routed;

	if (host)
		printf("HOST\t%s\n", text_of(host, "proxy_id"));
	if (peerd)
		printf("CLUSTER\t%s\n\n", text_of(peerd, "cluster"));
	else if (host)
		putchar('\n');
	print_daemons(answers);
	print_peers(at(peerd, "peers"));
	print_workers(at(answers->of[PROXY], "workers"), at(peerd, "workers"));
}

static error_t on_option(int key, char *value, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = state->input;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument: %s", value);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int status_command(struct options *options, int argc, char **argv)
{
	const struct argp_child children[] = {{&options_argp, 0, NULL, 0}, {0}};
	const struct argp argp = {
		.parser = on_option,
		.doc = "Shows the daemons of this host, the peers as peerd "
		       "sees them, and the workers of proxy. Exit status 1 "
		       "when no daemon answers.",
		.children = children,
	};
	struct answers answers = {0};
	int ret = EXIT_OK;

	argp_parse(&argp, argc, argv, 0, NULL, options);
	ask_all(options, &answers);
	if (options->json)
		print_json(&answers);
	else if (answers.count)
		print_tables(&answers);
	if (!answers.count) {
		const char *why = NULL;

		for (int i = 0; i < DAEMON_COUNT && !why; i++)
			why = answers.error[i];
		ret = command_fail("no daemon answers%s%s", why ? ": " : "",
			why ? why : "");
	}
	answers_deinit(&answers);
	return ret;
}
