/* SPDX-License-Identifier: Apache-2.0 */
/* See change_log.h: an array whose front moves up and is closed now and then.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "auth/change_log.h"
#include "shared/alloc.h"

#define ENTRY_COST 64 /* bytes that an event costs besides its own */

struct change_log {
	struct change_log_entry *entries;
	size_t first; /* index of the oldest */
	size_t count;
	size_t room;
	size_t bytes;
	size_t max_bytes;
	uint64_t base;
};

struct change_log *change_log_new(uint64_t base, size_t max_bytes)
{
	struct change_log *log = xcalloc(1, sizeof(*log));

	log->base = base;
	log->max_bytes = max_bytes;
	return log;
}

static void entry_deinit(struct change_log_entry *entry)
{
	for (size_t i = 0; i < entry->count; i++) {
		free((char *)entry->events[i].key);
		free((uint8_t *)entry->events[i].value);
	}
	free(entry->events);
}

void change_log_free(struct change_log *log)
{
	if (!log)
		return;
	for (size_t i = 0; i < log->count; i++)
		entry_deinit(&log->entries[log->first + i]);
	free(log->entries);
	free(log);
}

static void forget_first(struct change_log *log)
{
	struct change_log_entry *entry = &log->entries[log->first];

	log->base = entry->revision;
	log->bytes -= entry->bytes;
	entry_deinit(entry);
	log->first++;
	log->count--;
}

static struct change_log_entry *make_room(struct change_log *log)
{
	if (log->first + log->count == log->room && log->first > log->count) {
		memmove(log->entries, log->entries + log->first,
			log->count * sizeof(*log->entries));
		log->first = 0;
	}
	if (log->first + log->count == log->room) {
		log->room = log->room ? 2 * log->room : 64;
		log->entries = xrealloc(
			log->entries, log->room * sizeof(*log->entries));
	}
	return &log->entries[log->first + log->count++];
}

void change_log_add(struct change_log *log, uint64_t revision,
	const struct backend_event *events, size_t count)
{
	struct change_log_entry *entry;

	assert(revision > change_log_last(log));
	entry = make_room(log);
	*entry = (struct change_log_entry){.revision = revision,
		.events = xcalloc(count + 1, sizeof(*events)),
		.count = count};
	for (size_t i = 0; i < count; i++) {
		struct backend_event *event = &entry->events[i];

		event->key = xstrdup(events[i].key);
		event->len = events[i].len;
		if (events[i].value) {
			uint8_t *copy = xcalloc(1, event->len + 1);

			memcpy(copy, events[i].value, event->len);
			event->value = copy;
		}
		entry->bytes += strlen(event->key) + event->len + ENTRY_COST;
	}
	log->bytes += entry->bytes;
	while (log->bytes > log->max_bytes && log->count > 1)
		forget_first(log);
}

void change_log_forget(struct change_log *log, uint64_t revision)
{
	while (log->count && log->entries[log->first].revision <= revision)
		forget_first(log);
	if (log->base < revision)
		log->base = revision;
}

uint64_t change_log_first(const struct change_log *log)
{
	return log->base + 1;
}

uint64_t change_log_last(const struct change_log *log)
{
	return log->count ? log->entries[log->first + log->count - 1].revision
			  : log->base;
}

size_t change_log_bytes(const struct change_log *log)
{
	return log->bytes;
}

const struct change_log_entry *change_log_from(
	const struct change_log *log, uint64_t from)
{
	size_t low = log->first;
	size_t high = log->first + log->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (log->entries[middle].revision < from)
			low = middle + 1;
		else
			high = middle;
	}
	return low < log->first + log->count ? &log->entries[low] : NULL;
}
