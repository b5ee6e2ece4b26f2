/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds what authd, the cache, routed and peerd say of one host against each
 * other: see differences.h. routed has compared the cache with authd; this
 * compares tunnels, and words everything.
 */
#include "peerctl/differences.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* Takes text. */
static void add(
	json_t *list, json_t *difference, const char *between, char *text)
{
	json_object_set_new(difference, "between", json_string(between));
	json_object_set_new(difference, "text", json_string(text));
	json_array_append_new(list, difference);
	free(text);
}

/* ---- authd and the cache ---- */

/* "tunnel of db-1 (uuid) at proxy uuid"; gives. */
static char *name_record(const json_t *difference)
{
	const char *record = text_of(difference, "record");
	const char *proxy = text_of(difference, "proxy_id");

	if (!strcmp(record, "tunnel"))
		return xasprintf("the tunnel of %s (%s) at proxy %s",
			text_of(difference, "agent"),
			text_of(difference, "agent_id"), proxy);
	if (!strcmp(record, "proxy"))
		return xasprintf("proxy %s", proxy);
	return xstrdup("the cluster's configuration");
}

static void add_cached(json_t *list, const json_t *difference)
{
	const char *kind = text_of(difference, "kind");
	char *name = name_record(difference);
	char *text;

	if (!strcmp(kind, "missing"))
		text = xasprintf("the cache lacks %s, which authd has", name);
	else if (!strcmp(kind, "extra"))
		text = xasprintf("the cache has %s, which authd has not", name);
	else
		text = xasprintf("the cache has %s otherwise than authd", name);
	add(list, json_copy((json_t *)difference), "authd,cache", text);
	free(name);
}

/* ---- tunnels ---- */

/* Agent id -> name; gives. A host may have many thousand. */
static json_t *names_of(const json_t *tunnels)
{
	json_t *names = json_object();
	const json_t *tunnel;
	size_t i;

	json_array_foreach(tunnels, i, tunnel) json_object_set(names,
		text_of(tunnel, "agent_id"), json_object_get(tunnel, "name"));
	return names;
}

/* One agent's tunnel that is not the same with both. */
static void add_tunnel(json_t *list, const json_t *tunnel, const char *between,
	const char *kind, const char *format)
{
	char *name = xasprintf("%s (%s)", text_of(tunnel, "name"),
		text_of(tunnel, "agent_id"));
	char *text = xasprintf("%s %s", name, format);

	/* With its time: a tunnel that came after it is another one. */
	add(list,
		json_pack("{s:s, s:s, s:s, s:s, s:O*, s:O*}", "kind", kind,
			"record", "tunnel", "agent_id",
			text_of(tunnel, "agent_id"), "agent",
			text_of(tunnel, "name"), "since",
			json_object_get(tunnel, "since"), "since_ms",
			json_object_get(tunnel, "since_ms")),
		between, text);
	free(name);
}

struct sides {
	const char *between;
	const char *only_left;	/* what it means, behind the agent's name */
	const char *only_right; /* likewise */
	const char *renamed;
};

static void compare_tunnels(json_t *list, const json_t *left,
	const json_t *right, const struct sides *sides)
{
	json_t *left_names = names_of(left);
	json_t *right_names = names_of(right);
	const json_t *tunnel;
	size_t i;

	json_array_foreach(left, i, tunnel)
	{
		const json_t *name = json_object_get(
			right_names, text_of(tunnel, "agent_id"));

		if (!name)
			add_tunnel(list, tunnel, sides->between, "extra",
				sides->only_left);
		else if (!json_equal(name, json_object_get(tunnel, "name")))
			add_tunnel(list, tunnel, sides->between, "differs",
				sides->renamed);
	}
	json_array_foreach(right, i, tunnel)
	{
		if (!json_object_get(left_names, text_of(tunnel, "agent_id")))
			add_tunnel(list, tunnel, sides->between, "missing",
				sides->only_right);
	}
	json_decref(left_names);
	json_decref(right_names);
}

/* ---- which cache ---- */

static void compare_files(
	json_t *list, const json_t *routed, const json_t *peerd)
{
	const char *ours = text_of(routed, "path");
	const char *its = text_of(peerd, "path");

	if (!strcmp(ours, its))
		return;
	add(list, json_pack("{s:s, s:s}", "kind", "differs", "record", "file"),
		"cache,peerd",
		xasprintf("peerd reads the cache %s and routed writes %s",
			*its ? its : "(none)", ours));
}

/* ---- all of it ---- */

json_t *differences_of(
	const json_t *routed, const json_t *tunnels, const json_t *status)
{
	static const struct sides live = {
		"cache,peerd",
		"is in the cache as held by this host, and no worker has its "
		"tunnel",
		"has a tunnel to this host, and the cache does not know of it",
		"has another name in the cache than its tunnel",
	};
	static const struct sides told = {
		"routed,peerd",
		"has a tunnel that routed was told of and peerd was not",
		"has a tunnel that peerd was told of and routed was not",
		"was told to routed and to peerd under different names",
	};
	const json_t *own = json_object_get(routed, "tunnels");
	const json_t *peerd = json_object_get(tunnels, "tunnels");
	json_t *list = json_array();
	const json_t *difference;
	size_t i;

	json_array_foreach(json_object_get(routed, "differences"), i,
		difference) add_cached(list, difference);
	compare_tunnels(list, json_object_get(own, "cache"), peerd, &live);
	compare_tunnels(list, json_object_get(own, "routed"), peerd, &told);
	compare_files(list, json_object_get(routed, "cache"),
		json_object_get(status, "cache"));
	return list;
}

json_t *differences_lasting(const json_t *list, const json_t *other)
{
	json_t *lasting = json_array();
	json_t *difference;
	const json_t *one;
	size_t i;
	size_t j;

	json_array_foreach(list, i, difference)
	{
		bool found = false;

		json_array_foreach(other, j, one) found =
			found || json_equal(difference, one);
		if (found)
			json_array_append(lasting, difference);
	}
	return lasting;
}
