/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the survey page by page, see survey.h. Owns it until done. What a
 * newcomer gets wrong: keys come in order, so the ids of live proxies and
 * agents are sorted as they arrive and can be searched for.
 */
#include <stdlib.h>
#include <string.h>

#include "auth/survey.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* A tunnel record is at most RECORDS_SIZE_MAX. */
#define PAGE 100

struct ids {
	char (*items)[37];
	size_t count;
	size_t room;
};

struct taking {
	struct authd *auth;
	struct survey *survey;
	size_t host_room;
	struct ids live[2]; /* proxies, agents */
	size_t step;
	char after[BACKEND_KEY_MAX + 1];
	void (*done)(void *arg, struct survey *survey, const char *error);
	void *arg;
};

static void read_page(struct taking *taking);

void survey_free(struct survey *survey)
{
	if (!survey)
		return;
	free(survey->hosts);
	free(survey->users.items);
	free(survey->holders.items);
	free(survey);
}

int64_t survey_last(const struct survey_list *list, const char *ca)
{
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i].ca, ca))
			return list->items[i].last;
	return 0;
}

/* ---- steps ---- */

/* Appends, unless it is the last one. */
static void ids_add(struct ids *ids, const char *uuid)
{
	if (strnlen(uuid, 37) < 36 ||
		(ids->count && !strncmp(ids->items[ids->count - 1], uuid, 36)))
		return;
	if (ids->count == ids->room) {
		ids->room = ids->room ? 2 * ids->room : 64;
		ids->items =
			xrealloc(ids->items, ids->room * sizeof(*ids->items));
	}
	memcpy(ids->items[ids->count], uuid, 36);
	ids->items[ids->count++][36] = '\0';
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(a, b);
}

static bool ids_have(const struct ids *ids, const char *uuid)
{
	return ids->count && bsearch(uuid, ids->items, ids->count,
				     sizeof(*ids->items), compare_ids);
}

static void take_proxy(
	struct taking *taking, const char *rest, const struct backend_kv *kv)
{
	ids_add(&taking->live[0], rest);
}

static void take_tunnel(
	struct taking *taking, const char *rest, const struct backend_kv *kv)
{
	ids_add(&taking->live[1], rest);
}

static void take_host(
	struct taking *taking, const char *rest, const struct backend_kv *kv)
{
	struct survey *survey = taking->survey;
	struct survey_host *out;
	struct host host;

	if (host_decode(kv->value, kv->len, &host) < 0) {
		log_warn("host cannot be read: key=%s", kv->key);
		return;
	}
	if (survey->host_count == taking->host_room) {
		taking->host_room =
			taking->host_room ? 2 * taking->host_room : 64;
		survey->hosts = xrealloc(survey->hosts,
			taking->host_room * sizeof(*survey->hosts));
	}
	out = &survey->hosts[survey->host_count++];
	*out = (struct survey_host){
		.role = host.role, .not_after = host.not_after};
	strcpy(out->uuid, host.uuid);
	strcpy(out->name, host.agent_name);
	strcpy(out->ca, host.ca);
	out->online =
		ids_have(&taking->live[host.role == IDENTITY_NODE], host.uuid);
	host_deinit(&host);
}

static void list_add(
	struct survey_list *list, const char *ca, const struct backend_kv *kv)
{
	struct survey_users *users;
	char text[24];

	if (kv->len >= sizeof(text) || strlen(ca) >= sizeof(users->ca))
		return;
	memcpy(text, kv->value, kv->len);
	text[kv->len] = '\0';
	list->items =
		xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
	users = &list->items[list->count++];
	strcpy(users->ca, ca);
	users->last = strtoll(text, NULL, 10);
}

static void take_users(
	struct taking *taking, const char *rest, const struct backend_kv *kv)
{
	list_add(&taking->survey->users, rest, kv);
}

static void take_holders(
	struct taking *taking, const char *rest, const struct backend_kv *kv)
{
	list_add(&taking->survey->holders, rest, kv);
}

/* Hosts after those who say which of them are there. */
static const struct {
	const char *prefix;
	void (*take)(struct taking *taking, const char *rest,
		const struct backend_kv *kv);
} steps[] = {
	{"pub/proxy/", take_proxy},
	{"pub/tunnel/", take_tunnel},
	{"secret/host/proxy/", take_host},
	{"secret/host/node/", take_host},
	{SURVEY_USERS_PREFIX, take_users},
	{SURVEY_HOLDERS_PREFIX, take_holders},
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

/* ---- pages ---- */

static void finish(struct taking *taking, const char *error)
{
	struct survey *survey = taking->survey;

	if (error) {
		survey_free(survey);
		survey = NULL;
	}
	taking->done(taking->arg, survey, error);
	free(taking->live[0].items);
	free(taking->live[1].items);
	free(taking);
}

static void on_page(void *arg, const struct backend_range_result *result)
{
	struct taking *taking = arg;
	const char *prefix = steps[taking->step].prefix;

	if (result->status != BACKEND_OK) {
		finish(taking, backend_status_text(result->status));
		return;
	}
	for (size_t i = 0; i < result->count; i++)
		steps[taking->step].take(taking,
			result->kvs[i].key + strlen(prefix), &result->kvs[i]);
	if (result->more) {
		snprintf(taking->after, sizeof(taking->after), "%s",
			result->kvs[result->count - 1].key);
	} else {
		taking->after[0] = '\0';
		taking->step++;
	}
	if (taking->step < STEPS)
		read_page(taking);
	else
		finish(taking, NULL);
}

static void read_page(struct taking *taking)
{
	struct backend_range range = {.prefix = steps[taking->step].prefix,
		.after = taking->after[0] ? taking->after : NULL,
		.limit = PAGE};

	backend_range(taking->auth->backend, &range, on_page, taking);
}

void survey_take(struct authd *auth,
	void (*done)(void *arg, struct survey *survey, const char *error),
	void *arg)
{
	struct taking *taking = xcalloc(1, sizeof(*taking));

	taking->auth = auth;
	taking->survey = xcalloc(1, sizeof(*taking->survey));
	taking->done = done;
	taking->arg = arg;
	read_page(taking);
}
