/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Objects by id: what an answer names is looked up here, so that nothing
 * asynchronous holds a pointer. Ids are given once and never again. Pure.
 */

#include <stddef.h>
#include <stdint.h>

struct idmap;

struct idmap *idmap_new(void);
/* Must be empty. */
void idmap_free(struct idmap *map);

/* Gives the object, borrowed, a new id, from 1 on. */
uint64_t idmap_add(struct idmap *map, void *object);
/* NULL when it has gone. */
void *idmap_find(const struct idmap *map, uint64_t id);
void idmap_remove(struct idmap *map, uint64_t id);
size_t idmap_count(const struct idmap *map);
/* Calls fn for each; fn may remove any but add none. */
void idmap_each(
	struct idmap *map, void (*fn)(void *arg, void *object), void *arg);
