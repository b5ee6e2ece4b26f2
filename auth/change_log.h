/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The last changes of a store, in memory, so that any number of watches that
 * are not far behind cost its server one. Complete from its first revision on;
 * what does not fit is forgotten from the front. Pure.
 */

#include "auth/backend.h"

struct change_log;

struct change_log_entry {
	uint64_t revision;
	struct backend_event *events; /* in order of key; one for each */
	size_t count;
	size_t bytes;
};

/* Complete from base + 1 on; keeps at most max_bytes of keys and values, but
 * always the last entry. */
struct change_log *change_log_new(uint64_t base, size_t max_bytes);
void change_log_free(struct change_log *log);

/* revision must be above all before. Copies. */
void change_log_add(struct change_log *log, uint64_t revision,
	const struct backend_event *events, size_t count);

/* Revisions up to this one. */
void change_log_forget(struct change_log *log, uint64_t revision);

/* The first revision of which nothing is missing. */
uint64_t change_log_first(const struct change_log *log);
/* The last one that was added; base when none was. */
uint64_t change_log_last(const struct change_log *log);
size_t change_log_bytes(const struct change_log *log);

/* The first entry of revision from or later; NULL: none. Borrowed until the
 * next change_log_add(). */
const struct change_log_entry *change_log_from(
	const struct change_log *log, uint64_t from);
