/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash of chains from ids to objects. Ids count up, so the id itself is a
 * perfect hash until the table wraps; it doubles when it is full and stays that
 * large.
 */
#include "peerd/idmap.h"

#include <assert.h>
#include <stdlib.h>

#include "shared/alloc.h"

#define BUCKETS_MIN 64

struct entry {
	struct entry *next;
	uint64_t id;
	void *object;
};

struct idmap {
	struct entry **buckets;
	size_t bucket_count; /* a power of two */
	size_t count;
	uint64_t last_id;
};

struct idmap *idmap_new(void)
{
	struct idmap *map = xcalloc(1, sizeof(*map));

	map->bucket_count = BUCKETS_MIN;
	map->buckets = xcalloc(map->bucket_count, sizeof(*map->buckets));
	return map;
}

void idmap_free(struct idmap *map)
{
	if (!map)
		return;
	assert(map->count == 0);
	free(map->buckets);
	free(map);
}

static struct entry **bucket_of(const struct idmap *map, uint64_t id)
{
	return &map->buckets[id & (map->bucket_count - 1)];
}

static void grow(struct idmap *map)
{
	struct entry **old = map->buckets;
	size_t old_count = map->bucket_count;

	map->bucket_count *= 2;
	map->buckets = xcalloc(map->bucket_count, sizeof(*map->buckets));
	for (size_t i = 0; i < old_count; i++) {
		while (old[i]) {
			struct entry *entry = old[i];
			struct entry **bucket = bucket_of(map, entry->id);

			old[i] = entry->next;
			entry->next = *bucket;
			*bucket = entry;
		}
	}
	free(old);
}

uint64_t idmap_add(struct idmap *map, void *object)
{
	struct entry *entry = xcalloc(1, sizeof(*entry));
	struct entry **bucket;

	if (map->count >= map->bucket_count)
		grow(map);
	entry->id = ++map->last_id;
	entry->object = object;
	bucket = bucket_of(map, entry->id);
	entry->next = *bucket;
	*bucket = entry;
	map->count++;
	return entry->id;
}

void *idmap_find(const struct idmap *map, uint64_t id)
{
	struct entry *entry = *bucket_of(map, id);

	while (entry && entry->id != id)
		entry = entry->next;
	return entry ? entry->object : NULL;
}

void idmap_remove(struct idmap *map, uint64_t id)
{
	struct entry **at = bucket_of(map, id);
	struct entry *entry;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	entry = *at;
	if (!entry)
		return;
	*at = entry->next;
	map->count--;
	free(entry);
}

size_t idmap_count(const struct idmap *map)
{
	return map->count;
}

void idmap_each(
	struct idmap *map, void (*fn)(void *arg, void *object), void *arg)
{
	uint64_t *ids;
	size_t n = 0;

	if (map->count == 0)
		return;
	ids = xcalloc(map->count, sizeof(*ids));
	for (size_t i = 0; i < map->bucket_count; i++) {
		for (struct entry *e = map->buckets[i]; e; e = e->next)
			ids[n++] = e->id;
	}
	for (size_t i = 0; i < n; i++) {
		void *object = idmap_find(map, ids[i]);

		if (object)
			fn(arg, object);
	}
	free(ids);
}
