/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status as tables: what is wrong in a line each, then the daemons, the
 * peers, the workers. On a terminal every line fits (see table_fit()); what is
 * left out there is in --wide, in JSON, and in what goes to a file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "peerctl/status.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

#define NAME_MAX_SHOWN 20

const char *const status_daemons[DAEMON_COUNT] = {
	[AUTHD] = "authd",
	[ROUTED] = "routed",
	[PEERD] = "peerd",
	[PROXY] = "proxy",
};

static const json_t *at(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

/* "29d", below two days "26h" and the like; "-" when there is none. */
static const char *left_of(const json_t *answer, char *text, size_t size)
{
	const char *end = status_text(at(answer, "identity"), "not_after");
	int64_t left = status_until(end, time(NULL));

	if (*end == '-')
		return "-";
	if (left >= 2 * 86400)
		snprintf(text, size, "%lldd", (long long)left / 86400);
	else
		table_duration(left > 0 ? left : 0, text, size);
	return text;
}

/* In each, what may be wrong comes before what never changes. */
static char *details_of_authd(const json_t *a)
{
	char left[32];

	return xasprintf("cert=%s leases=%lld watchers=%lld revision=%lld "
			 "store=%s cluster=%s listening=%s pin=%s",
		left_of(a, left, sizeof(left)), status_number(a, "leases"),
		status_number(a, "watchers"),
		status_number(at(a, "store"), "revision"),
		status_text(at(a, "store"), "type"), status_text(a, "cluster"),
		status_text(a, "listening"), status_text(a, "pin"));
}

static char *details_of_routed(const json_t *a)
{
	const json_t *cache = at(a, "cache");
	const json_t *lease = at(a, "lease");
	const char *error = status_text(a, "last_error");
	char age[32] = "-";
	char left[32];

	if (json_is_integer(at(cache, "age_ms")))
		table_duration(status_number(cache, "age_ms") / 1000, age,
			sizeof(age));
	return xasprintf("%sauth=%s cache=%lld age=%s cert=%s lease=%s "
			 "published=%lld pending=%lld server=%s epoch=%lld "
			 "since=%s%s%s",
		json_is_true(at(a, "rebalancing")) ? "rebalancing " : "",
		status_text(a, "auth_state"), status_number(cache, "revision"),
		age, left_of(a, left, sizeof(left)),
		status_text(lease, "state"),
		status_number(a, "tunnels_published"),
		status_number(a, "tunnels_pending"),
		status_text(a, "auth_server"), status_number(lease, "epoch"),
		status_text(a, "since"), *error == '-' ? "" : " last_error=",
		*error == '-' ? "" : error);
}

static char *details_of_peerd(const json_t *a)
{
	const json_t *dials = at(a, "dials");
	char left[32];

	return xasprintf("%sstreams=%lld cache=%lld cert=%s failed=%lld "
			 "sibling=%lld peer=%lld listening=%s strategy=%s",
		json_is_true(at(a, "draining")) ? "draining " : "",
		status_number(a, "streams"),
		status_number(at(a, "cache"), "revision"),
		left_of(a, left, sizeof(left)), status_number(dials, "failed"),
		status_number(dials, "sibling"), status_number(dials, "peer"),
		status_text(a, "listening"), status_text(a, "strategy"));
}

static char *details_of_proxy(const json_t *a)
{
	return xasprintf("%stunnels=%lld clients=%lld sessions=%lld "
			 "workers=%zu",
		json_is_true(at(a, "draining")) ? "draining " : "",
		status_number(a, "tunnels"), status_number(a, "clients"),
		status_number(a, "sessions"),
		json_array_size(at(a, "workers")));
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
			table_duration(status_number(answer, "uptime_s"),
				uptime, sizeof(uptime));
		text = answer ? details[i](answer) : xstrdup(answers->error[i]);
		table_cell(table, "%s", status_daemons[i]);
		table_cell(table, answer ? "running" : "away");
		table_member(table, answer, "pid");
		table_cell(table, "%s", uptime);
		table_cell(table, "%s", text);
		free(text);
	}
	table_fit(table, 5, NAME_MAX_SHOWN);
	table_print(table);
	table_free(table);
}

/* "12s ago: text" */
static void error_cell(struct table *table, const json_t *peer)
{
	const char *error = status_text(peer, "last_error");
	char age[32];

	if (*error == '-' || !at(peer, "last_error_age_s")) {
		table_cell(table, "%s", error);
		return;
	}
	table_duration(
		status_number(peer, "last_error_age_s"), age, sizeof(age));
	table_cell(table, "%s ago: %s", age, error);
}

static void peer_row(struct table *table, const json_t *peer)
{
	double ms = json_real_value(at(peer, "latency_ms"));
	char time[32];

	table_duration(status_number(peer, "since_s"), time, sizeof(time));
	table_member(table, peer, "hostname");
	table_member(table, peer, "state");
	if (ms > 0)
		table_cell(table, "%.1f", ms);
	else
		table_cell(table, "-");
	table_member(table, peer, "streams");
	table_cell(table, "%s", at(peer, "since_s") ? time : "-");
	table_cell(table, "%.8s", status_text(peer, "id"));
	error_cell(table, peer);
	table_member(table, peer, "since");
	table_member(table, peer, "addr");
	table_member(table, peer, "bytes_sent");
	table_member(table, peer, "bytes_received");
	table_member(table, peer, "id");
}

static void print_peers(const json_t *peers)
{
	/* The first seven are for 80 columns. */
	static const char *const headings[] = {"PEER", "STATE", "MS", "STREAMS",
		"FOR", "UUID", "LAST ERROR", "SINCE", "ADDRESS", "SENT",
		"RECEIVED", "ID", NULL};
	struct table *table = table_new(headings);
	json_t *sorted = status_sorted(peers);
	const json_t *peer;
	size_t i;

	json_array_foreach(sorted, i, peer) peer_row(table, peer);
	json_decref(sorted);
	table_fit(table, 7, NAME_MAX_SHOWN);
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
			seen) if (status_number(seen, "worker") ==
				  status_number(worker, "worker")) match = seen;
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

/* What matters first; if the line is too long, the uuid is cut. */
static void print_top(const struct answers *answers)
{
	const json_t *peerd = answers->of[PEERD];
	const json_t *host = peerd ? peerd : answers->of[ROUTED];
	char *summary = status_summary(at(peerd, "peers"));

	if (host)
		table_line("1", "%s, seen by %s proxy %s",
			peerd ? summary : "no peerd",
			status_text(host, "cluster"),
			status_text(host, "proxy_id"));
	else
		table_line("1", "auth host of %s",
			status_text(answers->of[AUTHD], "cluster"));
	free(summary);
}

static void print_problems(const struct answers *answers)
{
	json_t *problems = status_problems(answers, time(NULL));
	const json_t *problem;
	size_t i;

	json_array_foreach(problems, i, problem)
		table_line("31", "! %s", json_string_value(problem));
	json_decref(problems);
}

void status_print(const struct answers *answers)
{
	print_top(answers);
	print_problems(answers);
	putchar('\n');
	print_daemons(answers);
	print_peers(at(answers->of[PEERD], "peers"));
	print_workers(at(answers->of[PROXY], "workers"),
		at(answers->of[PEERD], "workers"));
}
