/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a client may write as its target (docs/protocol.md "Names"), pure:
 *   <agent> | <service>.<agent> | <agent uuid>, either with .<cluster> behind,
 *   with or without :port.
 */

#include <stdint.h>

#include "shared/identity.h"

struct target {
	char agent[IDENTITY_NAME_MAX];	 /* name, or */
	char agent_id[37];		 /* uuid; exactly one is set */
	char service[IDENTITY_NAME_MAX]; /* empty: not named */
	uint16_t port;			 /* 0: not given */
};

/* 0, or -EINVAL and *reason_out, a static text. */
int target_parse(const char *text, const char *cluster, struct target *out,
	const char **reason_out);

/* One service a target could mean. */
struct target_match {
	char agent_id[37];
	char agent[IDENTITY_NAME_MAX];
	char service[IDENTITY_NAME_MAX];
	char type[32];
	uint16_t port;
};

/* Joins to the own matches at the front of list, of which there are own, those
 * of cached that are of other agents: what is known at first hand counts. The
 * new count, at most max. */
size_t target_unite(struct target_match *list, size_t own, size_t max,
	const struct target_match *cached, size_t cached_count);

enum target_result { TARGET_ONE, TARGET_NONE, TARGET_AMBIGUOUS };

/*
 * Chooses among the services of the agents that bear the target's name: the
 * service of the name given; else the only one, whatever the port (HTTP
 * libraries always write one); else the only one that has the port.
 * TARGET_ONE writes *index_out. text gets the reason otherwise, naming the
 * candidates (at most 8).
 */
enum target_result target_choose(const struct target *target,
	const struct target_match *matches, size_t count, size_t *index_out,
	char *text, size_t size);
