/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people want to know of the table of peers: whom a name means, and which
 * proxies advertise one address. Reads peers.c's table; owns the list of
 * duplicates in it.
 */
#include <string.h>

#include "peerd/duplicates.h"
#include "peerd/peers_private.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* ---- names ---- */

static bool is_called(const struct peer *peer, const char *name, bool exactly)
{
	size_t len = strlen(name);

	if (exactly)
		return !strcasecmp(peer->hostname, name) ||
		       !strcasecmp(peer->id, name);
	return !strncasecmp(peer->hostname, name, len) ||
	       !strncasecmp(peer->id, name, len);
}

/* How many bear the name, one of them in *out. */
static unsigned count_called(const struct peers *peers, const char *name,
	bool exactly, const struct peer **out)
{
	const struct peer *peer;
	unsigned count = 0;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		if (!is_called(peer, name, exactly))
			continue;
		*out = peer;
		count++;
	}
	return count;
}

static char *list_names(const struct peers *peers)
{
	const struct peer *peer;
	char *list = xstrdup("");
	unsigned count = 0;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		char *longer = xasprintf("%s%s%.60s (%.8s)", list,
			count ? ", " : "", peer->hostname, peer->id);

		free(list);
		list = longer;
		if (++count == 8)
			break;
	}
	return list;
}

const char *peers_named(
	const struct peers *peers, const char *name, char **error_out)
{
	const struct peer *peer = NULL;
	unsigned count = count_called(peers, name, true, &peer);
	char *list;

	if (!count && *name)
		count = count_called(peers, name, false, &peer);
	if (count == 1)
		return peer->id;
	list = list_names(peers);
	*error_out = count ? xasprintf("%u peers are called \"%.64s\": give "
				       "more of the uuid (peers: %s)",
				     count, name, list)
			   : xasprintf("no peer is called \"%.64s\" (peers: "
				       "%s)",
				     name, *list ? list : "none");
	free(list);
	return NULL;
}

const char *peers_hostname(const struct peers *peers, const char *proxy_id)
{
	const struct peer *peer;

	TAILQ_FOREACH (peer, &peers->list, entry) {
		if (strcmp(peer->id, proxy_id) == 0)
			return peer->hostname;
	}
	return "";
}

/* ---- duplicates ---- */

static json_t *text_json(const char *text)
{
	json_t *json = json_string(text);

	return json ? json : json_string("?");
}

static void add_group(void *arg, const struct advert *group, size_t count)
{
	json_t *proxies = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(proxies,
			json_pack("{s:o, s:o}", "id", text_json(group[i].id),
				"hostname", text_json(group[i].hostname)));
	json_array_append_new(
		arg, json_pack("{s:o, s:o}", "addr", text_json(group[0].addr),
			     "proxies", proxies));
}

static bool is_listed(const json_t *list, const json_t *group)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		if (json_equal(one, group))
			return true;
	}
	return false;
}

static void log_group(const json_t *group)
{
	const json_t *proxies = json_object_get(group, "proxies");
	const json_t *one;
	char *names = xstrdup("");
	size_t i;

	json_array_foreach(proxies, i, one)
	{
		char *longer = xasprintf("%s%s%s (%s)", names, i ? ", " : "",
			json_string_value(json_object_get(one, "hostname")),
			json_string_value(json_object_get(one, "id")));

		free(names);
		names = longer;
	}
	log_error("one peer address, several proxies: addr=%s proxies=%s; "
		  "peer_public_addr must be unique, correct it on all but one",
		json_string_value(json_object_get(group, "addr")), names);
	free(names);
}

void peers_note_duplicates(
	struct peers *peers, struct advert *adverts, size_t count)
{
	json_t *list = json_array();
	const json_t *group;
	size_t i;

	duplicates_find(adverts, count, add_group, list);
	json_array_foreach(list, i, group)
	{
		if (!is_listed(peers->duplicates, group))
			log_group(group);
	}
	if (json_array_size(peers->duplicates) && !json_array_size(list))
		log_info("peer addresses are unique again");
	json_decref(peers->duplicates);
	peers->duplicates = list;
}

json_t *peers_duplicates_json(const struct peers *peers)
{
	return peers->duplicates ? json_incref(peers->duplicates)
				 : json_array();
}
