/* SPDX-License-Identifier: Apache-2.0 */
/* Host records as JSON and their keys, see host.h. Pure. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/host.h"
#include "shared/alloc.h"

static const struct {
	enum identity_role role;
	const char *text;
	const char *path;
} roles[] = {
	{IDENTITY_PROXY, "Proxy", "proxy"},
	{IDENTITY_AUTH, "Auth", "auth"},
	{IDENTITY_NODE, "Node", "node"},
};
#define ROLES (sizeof(roles) / sizeof(roles[0]))

const char *host_role_text(enum identity_role role)
{
	for (size_t i = 0; i < ROLES; i++)
		if (roles[i].role == role)
			return roles[i].text;
	return "none";
}

void host_key(enum identity_role role, const char *uuid, char out[HOST_KEY_MAX])
{
	const char *path = "none";

	for (size_t i = 0; i < ROLES; i++)
		if (roles[i].role == role)
			path = roles[i].path;
	snprintf(out, HOST_KEY_MAX, "secret/host/%s/%s", path, uuid);
}

char *host_encode(const struct host *host)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:I}", "uuid",
		host->uuid, "role", host_role_text(host->role), "agent_name",
		host->agent_name, "pin", host->pin, "names",
		names_to_json(&host->names), "ca", host->ca, "not_after",
		(json_int_t)host->not_after);
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

/* Copies a text that must fit. */
static int take(char *out, size_t size, const char *text)
{
	if (strlen(text) >= size)
		return -EBADMSG;
	strcpy(out, text);
	return 0;
}

static int fill(const json_t *json, struct host *host)
{
	const char *uuid, *role, *agent_name, *pin, *ca = "";
	json_int_t not_after = 0;
	json_t *names;

	/* ca and not_after are younger than the rest */
	if (json_unpack((json_t *)json, "{s:s, s:s, s:s, s:s, s:o, s?s, s?I}",
		    "uuid", &uuid, "role", &role, "agent_name", &agent_name,
		    "pin", &pin, "names", &names, "ca", &ca, "not_after",
		    &not_after) < 0)
		return -EBADMSG;
	host->not_after = not_after;
	for (size_t i = 0; i < ROLES; i++)
		if (!strcmp(roles[i].text, role))
			host->role = roles[i].role;
	if (!host->role || !identity_uuid_is_valid(uuid) ||
		take(host->uuid, sizeof(host->uuid), uuid) < 0 ||
		take(host->agent_name, sizeof(host->agent_name), agent_name) <
			0 ||
		take(host->pin, sizeof(host->pin), pin) < 0 ||
		take(host->ca, sizeof(host->ca), ca) < 0 ||
		names_from_json(names, &host->names) < 0)
		return -EBADMSG;
	return 0;
}

int host_decode(const uint8_t *text, size_t len, struct host *out)
{
	json_t *json = json_loadb((const char *)text, len, 0, NULL);
	struct host host = {0};
	int ret = json ? fill(json, &host) : -EBADMSG;

	json_decref(json);
	if (ret < 0)
		host_deinit(&host);
	else
		*out = host;
	return ret;
}

void host_deinit(struct host *host)
{
	names_deinit(&host->names);
}
