/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A survey and two authorities as JSON, and as the objection to a finish. Pure.
 * What a newcomer gets wrong: a host whose record names no CA got its
 * certificate before that was written down, so it is of the first one.
 */
#include <stdlib.h>
#include <string.h>

#include "auth/control.h"
#include "auth/rotate.h"
#include "shared/alloc.h"

/* Names in one answer, and in one line. */
#define REMAINING_MAX 100
#define NAMED_MAX 5

static json_t *time_json(int64_t seconds)
{
	char text[CONTROL_TIME_SIZE];

	if (!seconds)
		return json_null();
	control_time(seconds, text);
	return json_string(text);
}

static int64_t not_after(X509 *cert)
{
	struct tm tm;

	return ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1 ? timegm(&tm)
								   : 0;
}

static json_t *ca_json(const struct ca *ca)
{
	if (!ca->cert)
		return json_null();
	return json_pack("{s:s, s:o}", "pin", ca->pin, "not_after",
		time_json(not_after(ca->cert)));
}

static json_t *set_json(const struct ca_set *set)
{
	return json_pack("{s:s, s:o, s:o, s:o}", "phase",
		ca_phase_text(set->state.phase), "since",
		time_json(set->state.since), "active", ca_json(&set->active),
		"other", ca_json(&set->other));
}

static bool is_remaining(
	const struct ca_set *set, const struct survey_host *host)
{
	return set->other.cert && strcmp(host->ca, set->active.pin) != 0;
}

/* Who is away and whose certificate has ended joins again in any case. */
static bool is_gone(const struct survey_host *host, int64_t now)
{
	return !host->online && host->not_after && host->not_after <= now;
}

struct count {
	json_int_t total, reissued, online, online_reissued;
};

static json_t *count_json(const struct count *count)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "total", count->total,
		"reissued", count->reissued, "online", count->online,
		"online_reissued", count->online_reissued);
}

static json_t *host_json(const struct survey_host *host)
{
	return json_pack("{s:s, s:s, s:s, s:b, s:o}", "role",
		host->role == IDENTITY_NODE ? "node" : "proxy", "id",
		host->uuid, "name", host->name, "online", host->online,
		"not_after", time_json(host->not_after));
}

static void count_host(
	struct count *count, const struct survey_host *host, bool remaining)
{
	count->total++;
	count->reissued += !remaining;
	count->online += host->online;
	count->online_reissued += host->online && !remaining;
}

/* Those who are there first: they are what finish waits for. */
static void list_remaining(json_t *list, const struct ca_set *set,
	const struct survey *survey, bool online, int64_t now)
{
	for (size_t i = 0;
		i < survey->host_count && json_array_size(list) < REMAINING_MAX;
		i++) {
		const struct survey_host *host = &survey->hosts[i];

		if (host->online == online && is_remaining(set, host) &&
			!is_gone(host, now))
			json_array_append_new(list, host_json(host));
	}
}

static void add_hosts(json_t *json, const struct ca_set *set,
	const struct survey *survey, int64_t now)
{
	struct count counts[2] = {0}; /* proxies, agents */
	json_t *remaining = json_array();

	for (size_t i = 0; i < survey->host_count; i++)
		if (!is_gone(&survey->hosts[i], now))
			count_host(
				&counts[survey->hosts[i].role == IDENTITY_NODE],
				&survey->hosts[i],
				is_remaining(set, &survey->hosts[i]));
	list_remaining(remaining, set, survey, true, now);
	list_remaining(remaining, set, survey, false, now);
	json_object_set_new(json, "proxies", count_json(&counts[0]));
	json_object_set_new(json, "agents", count_json(&counts[1]));
	json_object_set_new(json, "remaining", remaining);
	json_object_set_new(json, "remaining_count",
		json_integer(counts[0].total - counts[0].reissued +
			     counts[1].total - counts[1].reissued));
}

/* Until when users have certificates that need the CA that goes: of the user
 * CA, those it signed; of the host CA, those that came with no other. */
static int64_t users_until(
	const struct ca_set *set, const struct survey_list *list)
{
	return set->other.cert ? survey_last(list, set->other.pin) : 0;
}

json_t *rotate_json(const struct authd *auth, const struct survey *survey)
{
	const struct ca_pair *cas = auth->cas;
	json_t *host = set_json(&cas->host);
	json_t *user = set_json(&cas->user);

	add_hosts(host, &cas->host, survey, authd_time());
	json_object_set_new(host, "users_until",
		time_json(users_until(&cas->host, &survey->holders)));
	json_object_set_new(user, "users_until",
		time_json(users_until(&cas->user, &survey->users)));
	return json_pack("{s:o, s:o}", "host", host, "user", user);
}

/* ---- the objection ---- */

static char *host_objection(
	const struct ca_set *set, const struct survey *survey)
{
	char *names = xstrdup("");
	unsigned count = 0;

	for (size_t i = 0; i < survey->host_count; i++) {
		const struct survey_host *host = &survey->hosts[i];
		char *more;

		if (!host->online || !is_remaining(set, host))
			continue;
		if (count++ >= NAMED_MAX)
			continue;
		more = xasprintf("%s%s%s %s", names, count > 1 ? ", " : "",
			host->role == IDENTITY_NODE ? "agent" : "proxy",
			host->name[0] ? host->name : host->uuid);
		free(names);
		names = more;
	}
	if (count) {
		char *text = xasprintf(
			"%u host%s not got a certificate of the CA that "
			"stays: %s%s",
			count, count > 1 ? "s have" : " has", names,
			count > NAMED_MAX ? ", ..." : "");

		free(names);
		return text;
	}
	free(names);
	return NULL;
}

static char *user_objection(const struct ca_set *set,
	const struct survey_list *list, int64_t now, const char *what)
{
	char text[CONTROL_TIME_SIZE];
	int64_t until = users_until(set, list);

	if (until <= now)
		return NULL;
	control_time(until, text);
	return xasprintf("%s, the last until %s", what, text);
}

/* Takes both, either may be NULL. */
static char *join_texts(char *a, char *b)
{
	char *both = a && b ? xasprintf("%s; %s", a, b) : NULL;

	if (!both)
		return a ? a : b;
	free(a);
	free(b);
	return both;
}

char *rotate_objection(const struct ca_pair *cas, const struct survey *survey,
	bool host, bool user, int64_t now)
{
	char *text = NULL;

	if (host) {
		text = host_objection(&cas->host, survey);
		text = join_texts(text,
			user_objection(&cas->host, &survey->holders, now,
				"users were issued identities that know only "
				"the host CA that goes"));
	}
	if (user)
		text = join_texts(text,
			user_objection(&cas->user, &survey->users, now,
				"users have certificates of the user CA that "
				"goes"));
	return text;
}
