/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking a proxy for the fleet. The answer is believed as far as its sender's
 * certificate goes: a proxy of our cluster.
 */
#include "agent/find.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

struct find {
	struct loop *loop;
	struct https *https;
	const char *cluster;
	find_fn *fn;
	void *arg;
};

void find_free(struct find *find)
{
	if (!find)
		return;
	https_free(find->https);
	loop_free_later(find->loop, free, find);
}

static void on_answer(void *arg, const struct https_result *result)
{
	struct find *find = arg;
	struct discovery *discovery = NULL;
	char *error = NULL;

	find->https = NULL;
	if (!result->status)
		error = xstrdup(result->why);
	else if (result->status != 200)
		error = xasprintf("status %d: %.*s", result->status,
			(int)(result->len < 200 ? result->len : 200),
			result->body);
	else
		discovery =
			discovery_from_json(result->body, result->len, &error);
	if (discovery && strcmp(discovery->cluster_name, find->cluster) != 0) {
		error = xasprintf("cluster is %s", discovery->cluster_name);
		discovery_free(discovery);
		discovery = NULL;
	}
	find_free(find);
	find->fn(find->arg, discovery, error);
	discovery_free(discovery);
	free(error);
}

struct find *find_new(struct loop *loop, struct resolver *resolver,
	const struct connect_request *to, find_fn *fn, void *arg)
{
	struct find *find = xcalloc(1, sizeof(*find));
	const struct https_request request = {
		.to = *to, .method = "GET", .path = "/webapi/find"};

	find->loop = loop;
	find->cluster = to->cluster;
	find->fn = fn;
	find->arg = arg;
	find->https = https_new(loop, resolver, &request, on_answer, find);
	return find;
}
