/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * While an agent reaches no proxy at all: what is wrong with each address, in
 * one line, said when all have failed, then once a minute or when a reason
 * changes. Pure: the caller logs, and gives the time in ms.
 */

#include <stdbool.h>
#include <stdint.h>

/* How long addresses that hang may keep the first line back. */
#define OUTAGE_GATHER_MS 10000
/* Between two lines: of other reasons, of the same. */
#define OUTAGE_CHANGE_MS 10000
#define OUTAGE_REPEAT_MS 60000
/* Addresses that are kept, and that a line names. */
#define OUTAGE_ADDRS_MAX 32
#define OUTAGE_NAMED_MAX 8

struct outage;
struct outage *outage_new(void);
void outage_free(struct outage *outage);

/* There is no tunnel, from now on; again: no news. */
void outage_begin(struct outage *outage, int64_t now);
/* addr ("host:port", as written) could not be used; it is tried again at next.
 * busy: it asked for that itself. */
void outage_failed(struct outage *outage, const char *addr, const char *why,
	bool busy, int64_t now, int64_t next);
/* The line that is due (gives), or NULL. complete: nothing is under way that
 * has not failed before. */
char *outage_say(struct outage *outage, bool complete, int64_t now);
/* All that failed are just busy. */
bool outage_is_busy(const struct outage *outage);
/* The line as it is now (gives); NULL: nothing has failed. */
char *outage_text(const struct outage *outage, int64_t now);
/* There is a tunnel. How long there was none, if a line was said; else 0. */
int64_t outage_end(struct outage *outage, int64_t now);
