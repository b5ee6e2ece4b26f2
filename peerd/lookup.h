/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who holds an agent, by authd's word, for dials whose cache did not help. All
 * dials of one agent share one question, and its answer, also that nobody holds
 * it or that authd is away, serves for LOOKUP_FRESH_MS: however many dials
 * there are, authd is asked about an agent at most once in that time.
 *
 *   ASKED --answer, LOOKUP_LIMIT_MS--> FRESH --LOOKUP_FRESH_MS--> .
 */

#include "peerd/candidates.h"
#include "peerd/peerd.h"

#define LOOKUP_FRESH_MS 1000
#define LOOKUP_LIMIT_MS 3000
/* Agents asked about or remembered at once; further questions fail. */
#define LOOKUP_AGENTS_MAX 4096

struct lookups;

struct lookup_answer {
	const char *error; /* NULL: answered */
	size_t count;	   /* of those who hold it, at most CANDIDATES_MAX */
	const char (*proxy_ids)[37];
};

struct lookups *lookups_new(struct peerd *peerd);
/* Nobody may be waiting any more. Before routed_link_free(). */
void lookups_free(struct lookups *lookups);

/* on_answer(arg) once, in a later turn; the answer is borrowed for the call.
 * Gives an id, never 0. */
uint64_t lookups_ask(struct lookups *lookups, const char *agent_id,
	void (*on_answer)(void *arg, const struct lookup_answer *answer),
	void *arg);
/* No answer follows. */
void lookups_cancel(struct lookups *lookups, uint64_t id);
