/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the daemons' answers for what is wrong, so that nobody has to search
 * the tables for it. Pure: answers and the time in, texts out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "peerctl/status.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

/* Certificates live 30 days and are renewed ten days before their end. */
#define CERTIFICATE_WARN_S (5 * 86400)

const char *status_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && *text ? text : "-";
}

long long status_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

int64_t status_until(const char *text, int64_t now)
{
	struct tm tm = {0};

	if (!strptime(text, "%Y-%m-%dT%H:%M:%S", &tm))
		return 0;
	return timegm(&tm) - now;
}

/* ---- peers ---- */

/* From what needs eyes to what does not. */
static const char *const states[] = {
	"unreachable", "degraded", "connecting", "draining", "ready"};

#define STATES (sizeof(states) / sizeof(states[0]))

static unsigned rank_of(const json_t *peer)
{
	unsigned rank = 0;

	while (rank < STATES &&
		strcmp(states[rank], status_text(peer, "state")))
		rank++;
	return rank;
}

char *status_summary(const json_t *peers)
{
	unsigned counts[STATES + 1] = {0};
	size_t count = json_array_size(peers);
	const char *glue = ":";
	const json_t *peer;
	char *text;
	size_t i;

	json_array_foreach(peers, i, peer) counts[rank_of(peer)]++;
	text = count ? xasprintf("%zu peer%s", count, count == 1 ? "" : "s")
		     : xstrdup("no peers");
	for (i = STATES; i-- > 0;) {
		char *longer;

		if (!counts[i])
			continue;
		longer = xasprintf(
			"%s%s %u %s", text, glue, counts[i], states[i]);
		free(text);
		text = longer;
		glue = ",";
	}
	return text;
}

static int compare(const void *a, const void *b)
{
	const json_t *left = *(json_t *const *)a, *right = *(json_t *const *)b;
	int order = (int)rank_of(left) - (int)rank_of(right);

	return order ? order
		     : strcmp(status_text(left, "hostname"),
			       status_text(right, "hostname"));
}

json_t *status_sorted(const json_t *peers)
{
	size_t count = json_array_size(peers);
	json_t **list = xcalloc(count + 1, sizeof(*list));
	json_t *sorted = json_array();

	for (size_t i = 0; i < count; i++)
		list[i] = json_array_get(peers, i);
	qsort(list, count, sizeof(*list), compare);
	for (size_t i = 0; i < count; i++)
		json_array_append(sorted, list[i]);
	free(list);
	return sorted;
}

/* ---- problems ---- */

static void add(json_t *problems, const char *about, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void add(json_t *problems, const char *about, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = xvasprintf(format, ap);
	va_end(ap);
	json_array_append_new(problems,
		json_pack("{s:s, s:s}", "about", about, "text", text));
	free(text);
}

static void judge_daemons(json_t *problems, const struct answers *answers)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		const char *name = status_daemons[i];
		const char *error = answers->error[i];

		if (error && !strncmp(error, name, strlen(name)))
			add(problems, "daemon", "%s", error);
		else if (error)
			add(problems, "daemon", "%s is away: %s", name, error);
	}
}

static void judge_routed(json_t *problems, const json_t *routed)
{
	const char *state = status_text(routed, "auth_state");
	const char *error = status_text(routed, "last_error");

	if (!routed)
		return;
	if (strcmp(state, "connected"))
		add(problems, "authd", "authd %s is %s: %s",
			status_text(routed, "auth_server"), state, error);
	else if (*error != '-')
		add(problems, "routed", "routed: %s", error);
}

static void judge_authd(json_t *problems, const json_t *authd)
{
	const json_t *store = json_object_get(authd, "store");
	const char *disagreement =
		status_text(json_object_get(authd, "strategy"), "disagreement");
	char time[32];

	if (json_is_true(json_object_get(store, "failing"))) {
		table_duration(
			status_number(store, "failing_s"), time, sizeof(time));
		add(problems, "store", "authd's store is away for %s: %s", time,
			status_text(store, "problem"));
	}
	if (*disagreement != '-')
		add(problems, "strategy", "tunnel_strategy: %s", disagreement);
}

static void judge_certificate(
	json_t *problems, const char *name, const json_t *answer, int64_t now)
{
	const char *text =
		status_text(json_object_get(answer, "identity"), "not_after");
	int64_t left = status_until(text, now);
	char time[32];

	if (*text == '-' || left >= CERTIFICATE_WARN_S)
		return;
	table_duration(left < 0 ? -left : left, time, sizeof(time));
	if (left <= 0)
		add(problems, "certificate",
			"the certificate of %s ended %s ago", name, time);
	else
		add(problems, "certificate", "the certificate of %s ends in %s",
			name, time);
}

static void judge_duplicates(json_t *problems, const json_t *groups)
{
	const json_t *group;
	const json_t *proxy;
	size_t i;
	size_t j;

	json_array_foreach(groups, i, group)
	{
		char *names = xstrdup("");

		json_array_foreach(json_object_get(group, "proxies"), j, proxy)
		{
			char *longer = xasprintf("%s%s%s (%.8s)", names,
				j ? ", " : "", status_text(proxy, "hostname"),
				status_text(proxy, "id"));

			free(names);
			names = longer;
		}
		add(problems, "duplicate",
			"%s is the peer address of %s: make "
			"peer_public_addr unique",
			status_text(group, "addr"), names);
		free(names);
	}
}

static void judge_drain(json_t *problems, const json_t *proxy)
{
	char left[32];

	if (!json_is_true(json_object_get(proxy, "draining")))
		return;
	table_duration(status_number(proxy, "drain_left_ms") / 1000, left,
		sizeof(left));
	add(problems, "drain",
		"this host drains: %lld tunnels, %lld sessions, %s left",
		status_number(proxy, "tunnels"),
		status_number(proxy, "sessions"), left);
}

static void judge_peers(json_t *problems, const json_t *peers)
{
	json_t *sorted = status_sorted(peers);
	const json_t *peer;
	size_t i;

	json_array_foreach(sorted, i, peer)
	{
		const char *state = status_text(peer, "state");
		const char *error = status_text(peer, "last_error");
		char time[32];

		/* A draining or a new peer is as it should be. */
		if (strcmp(state, "unreachable") && strcmp(state, "degraded"))
			continue;
		table_duration(
			status_number(peer, "since_s"), time, sizeof(time));
		add(problems, "peer", "peer %s (%.8s) is %s for %s: %s",
			status_text(peer, "hostname"), status_text(peer, "id"),
			state, time, *error == '-' ? "no reason known" : error);
	}
	json_decref(sorted);
}

json_t *status_findings(const struct answers *answers, int64_t now)
{
	const json_t *peerd = answers->of[PEERD];
	json_t *problems = json_array();

	judge_daemons(problems, answers);
	judge_authd(problems, answers->of[AUTHD]);
	judge_routed(problems, answers->of[ROUTED]);
	judge_drain(problems, answers->of[PROXY]);
	if (json_is_true(json_object_get(peerd, "draining")))
		add(problems, "drain", "peerd is draining: it will stop");
	if (peerd && json_is_false(json_object_get(peerd, "routed")))
		add(problems, "routed", "peerd has no link to routed");
	for (int i = 0; i < DAEMON_COUNT; i++)
		judge_certificate(
			problems, status_daemons[i], answers->of[i], now);
	judge_duplicates(
		problems, json_object_get(peerd, "duplicate_peer_addrs"));
	judge_peers(problems, json_object_get(peerd, "peers"));
	return problems;
}

json_t *status_problems(const struct answers *answers, int64_t now)
{
	json_t *findings = status_findings(answers, now);
	json_t *problems = json_array();
	const json_t *finding;
	size_t i;

	json_array_foreach(findings, i, finding)
		json_array_append(problems, json_object_get(finding, "text"));
	json_decref(findings);
	return problems;
}
