/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads what a client wrote as its target and picks the service it means. Pure:
 * the caller brings the candidates, from the cache and from its own tunnels.
 *
 * What a newcomer gets wrong: HTTP clients always write a port (a plain
 * http:// URL gives :80), so a port that no service has must not be an error
 * while the rest of the target leaves only one service.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shared/target.h"

/* <service label>.<agent label>.<cluster>:<port> */
#define TARGET_TEXT_MAX (2 * IDENTITY_NAME_MAX + 256 + 6)
#define TARGET_CANDIDATES_SHOWN 8

static int invalid(const char **reason_out, const char *reason)
{
	*reason_out = reason;
	return -EINVAL;
}

/* Cuts ":port" off host. */
static int split_port(char *host, uint16_t *port_out, const char **reason_out)
{
	char *colon = strchr(host, ':');
	unsigned long port = 0;
	size_t digits;

	*port_out = 0;
	if (!colon)
		return 0;
	*colon++ = '\0';
	digits = strspn(colon, "0123456789");
	if (digits < 1 || digits > 5 || colon[digits] || colon[0] == '0')
		return invalid(reason_out, "the port is not a number");
	for (size_t i = 0; i < digits; i++)
		port = port * 10 + (unsigned long)(colon[i] - '0');
	if (port > 65535)
		return invalid(reason_out, "the port is above 65535");
	*port_out = (uint16_t)port;
	return 0;
}

/* Cuts ".<cluster>" off host, if something stands before it. */
static void strip_cluster(char *host, const char *cluster)
{
	size_t host_len = strlen(host);
	size_t len = strlen(cluster);

	if (!len || host_len < len + 2)
		return;
	if (host[host_len - len - 1] == '.' &&
		!strcasecmp(host + host_len - len, cluster))
		host[host_len - len - 1] = '\0';
}

int target_parse(const char *text, const char *cluster, struct target *out,
	const char **reason_out)
{
	struct target target = {0};
	char host[TARGET_TEXT_MAX];
	char *agent = host;
	char *dot;
	int ret;

	if (!*text)
		return invalid(reason_out, "the target is empty");
	if (strlen(text) >= sizeof(host))
		return invalid(reason_out, "the target is too long");
	for (size_t i = 0; i <= strlen(text); i++)
		host[i] = (char)tolower((unsigned char)text[i]);

	ret = split_port(host, &target.port, reason_out);
	if (ret)
		return ret;
	strip_cluster(host, cluster);
	dot = strchr(host, '.');
	if (dot) {
		*dot = '\0';
		agent = dot + 1;
		if (!identity_name_is_valid(host))
			return invalid(reason_out, "the service is not a name "
						   "of [a-z0-9-]{1,63}");
		memcpy(target.service, host, strlen(host) + 1);
	}
	if (strchr(agent, '.'))
		return invalid(reason_out, "neither <agent> nor "
					   "<service>.<agent> of this cluster");
	if (!identity_name_is_valid(agent))
		return invalid(reason_out,
			"the agent is not a name of [a-z0-9-]{1,63}");
	if (identity_uuid_is_valid(agent))
		memcpy(target.agent_id, agent, sizeof(target.agent_id));
	else
		memcpy(target.agent, agent, strlen(agent) + 1);
	*out = target;
	return 0;
}

static bool has_agent(const struct target_match *list, size_t count,
	const struct target_match *match)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(list[i].agent_id, match->agent_id) == 0)
			return true;
	}
	return false;
}

size_t target_unite(struct target_match *list, size_t own, size_t max,
	const struct target_match *cached, size_t cached_count)
{
	size_t count = own;

	for (size_t i = 0; i < cached_count && count < max; i++) {
		if (!has_agent(list, own, &cached[i]))
			list[count++] = cached[i];
	}
	return count;
}

/* How many candidates there are, and the one if it is one. */
struct choice {
	size_t count;
	size_t index;
	bool many_agents;
};

static bool is_candidate(const struct target *target,
	const struct target_match *match, bool with_port)
{
	if (target->service[0] && strcmp(target->service, match->service) != 0)
		return false;
	return !with_port || match->port == target->port;
}

static struct choice choose(const struct target *target,
	const struct target_match *matches, size_t count, bool with_port)
{
	struct choice choice = {0};

	for (size_t i = 0; i < count; i++) {
		if (!is_candidate(target, &matches[i], with_port))
			continue;
		if (!choice.count++)
			choice.index = i;
		else if (strcmp(matches[i].agent_id,
				 matches[choice.index].agent_id) != 0)
			choice.many_agents = true;
	}
	return choice;
}

static const char *agent_text(const struct target *target)
{
	return target->agent[0] ? target->agent : target->agent_id;
}

/* Appends " service.agent (uuid):port" for each candidate. */
static void list_candidates(const struct target *target,
	const struct target_match *matches, size_t count, bool ids, char *text,
	size_t size)
{
	size_t used = strlen(text);
	size_t shown = 0;

	for (size_t i = 0; i < count && used < size; i++) {
		const struct target_match *m = &matches[i];

		if (!is_candidate(target, m, false))
			continue;
		if (shown++ == TARGET_CANDIDATES_SHOWN) {
			snprintf(text + used, size - used, ", ...");
			return;
		}
		used += (size_t)snprintf(text + used, size - used,
			"%s %s.%s (%s, port %u)", shown > 1 ? "," : "",
			m->service, ids ? m->agent_id : m->agent, m->type,
			(unsigned)m->port);
	}
}

/* lacks: what no service of the agent has, if it has any. */
static void explain_none(const struct target *target,
	const struct target_match *matches, size_t count, const char *lacks,
	char *text, size_t size)
{
	struct target any = *target;

	any.service[0] = '\0';
	if (!count) {
		snprintf(text, size, "no agent %s is online",
			agent_text(target));
		return;
	}
	snprintf(text, size,
		"agent %s has no service %s; it has:", agent_text(target),
		lacks);
	list_candidates(&any, matches, count, false, text, size);
}

enum target_result target_choose(const struct target *target,
	const struct target_match *matches, size_t count, size_t *index_out,
	char *text, size_t size)
{
	struct choice choice = choose(target, matches, count, false);
	char lacks[24];

	if (!choice.count) {
		explain_none(
			target, matches, count, target->service, text, size);
		return TARGET_NONE;
	}
	if (choice.count > 1 && !choice.many_agents && target->port) {
		choice = choose(target, matches, count, true);
		if (!choice.count) {
			snprintf(lacks, sizeof(lacks), "at port %u",
				(unsigned)target->port);
			explain_none(target, matches, count, lacks, text, size);
			return TARGET_NONE;
		}
	}
	if (choice.count == 1) {
		*index_out = choice.index;
		return TARGET_ONE;
	}
	snprintf(text, size,
		"%s is ambiguous, write one of:", agent_text(target));
	list_candidates(target, matches, count, choice.many_agents, text, size);
	return TARGET_AMBIGUOUS;
}
