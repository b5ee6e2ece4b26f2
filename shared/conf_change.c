/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two configurations side by side, along the schema. What the schema does not
 * know (numbers with a unit, proxy_server, labels, whether a group was there)
 * is found by the tables below.
 *
 * What a newcomer gets wrong: values are exchanged, never copied, so each of
 * the two still owns what it holds, and reading a file a thousand times leaves
 * nothing behind.
 */
#include "shared/conf_change.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "shared/conf_number.h"
#include "shared/conf_schema.h"

enum kind { BYTES, TEXT, TEXTS, LABELS };

/* A value within its struct; count: how many of an array, unsigned. */
struct slot {
	enum kind kind;
	size_t offset;
	size_t size;
	size_t count_offset;
};

struct walk {
	struct conf *conf;
	struct conf *next;
	enum conf_daemon daemon;
	bool identity_appears; /* or goes */
	struct conf_changes *changes;
};

/* --- where values are --- */

#define ARRAY(kind, member)                                    \
	{                                                      \
		kind, offsetof(struct conf, member),           \
			sizeof(((struct conf *)NULL)->member), \
			offsetof(struct conf, member##_count)  \
	}

static const struct {
	const char *path;
	struct slot slot;
} arrays_of_tree[] = {
	{"agent_service.proxy_server", ARRAY(TEXTS, agent.proxy_server)},
	{"agent_service.labels", ARRAY(LABELS, agent.labels)},
};

/* What load_said() of conf.c found, as a part of these keys. */
static const struct {
	const char *path;
	size_t offset;
} said[] = {
	{"auth_service.tunnel_strategy.type",
		offsetof(struct conf, auth.tunnel_strategy_set)},
	{"auth_service.keep_alive_interval",
		offsetof(struct conf, auth.keep_alive_set)},
	{"auth_service.storage.tls.ca",
		offsetof(struct conf, auth.storage.tls.enabled)},
};

/* Of a field that the schema leaves to the tree: from the start of the struct
 * conf. */
static struct slot slot_of_tree(const char *path)
{
	for (size_t i = 0; i < conf_number_count; i++)
		if (!strcmp(conf_numbers[i].path, path))
			return (struct slot){BYTES, conf_numbers[i].offset,
				conf_numbers[i].size, 0};
	for (size_t i = 0;
		i < sizeof(arrays_of_tree) / sizeof(arrays_of_tree[0]); i++)
		if (!strcmp(arrays_of_tree[i].path, path))
			return arrays_of_tree[i].slot;
	assert(!"a key that is neither in the schema nor a number");
	return (struct slot){0};
}

static struct slot slot_of_field(const struct cyaml_schema_field *field)
{
	struct slot slot = {.offset = field->data_offset};

	switch (field->value.type) {
	case CYAML_STRING:
		slot.kind = TEXT;
		slot.size = sizeof(char *);
		break;
	case CYAML_SEQUENCE:
		slot.kind = TEXTS;
		slot.size = sizeof(char **);
		slot.count_offset = field->count_offset;
		break;
	default:
		slot.kind = BYTES;
		slot.size = field->value.data_size;
	}
	return slot;
}

/* --- comparing and exchanging one value --- */

static unsigned count_at(const char *base, const struct slot *slot)
{
	return *(const unsigned *)(base + slot->count_offset);
}

static bool texts_differ(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") != 0;
}

static bool arrays_differ(
	const char *now, const char *next, const struct slot *slot)
{
	unsigned count = count_at(now, slot);
	const void *const *a = (const void *const *)(now + slot->offset);
	const void *const *b = (const void *const *)(next + slot->offset);

	if (count != count_at(next, slot))
		return true;
	for (unsigned i = 0; i < count; i++) {
		const struct conf_label *label = *a;
		const struct conf_label *other = *b;

		if (slot->kind == TEXTS
				? texts_differ(((char *const *)*a)[i],
					  ((char *const *)*b)[i])
				: texts_differ(label[i].name, other[i].name) ||
					  texts_differ(label[i].value,
						  other[i].value))
			return true;
	}
	return false;
}

static bool differs(const char *now, const char *next, const struct slot *slot)
{
	switch (slot->kind) {
	case BYTES:
		return memcmp(now + slot->offset, next + slot->offset,
			       slot->size) != 0;
	case TEXT:
		return texts_differ(*(char *const *)(now + slot->offset),
			*(char *const *)(next + slot->offset));
	default:
		return arrays_differ(now, next, slot);
	}
}

static void exchange_bytes(char *a, char *b, size_t size)
{
	char kept[16];

	assert(size <= sizeof(kept));
	memcpy(kept, a, size);
	memcpy(a, b, size);
	memcpy(b, kept, size);
}

static void exchange(char *now, char *next, const struct slot *slot)
{
	exchange_bytes(now + slot->offset, next + slot->offset, slot->size);
	if (slot->count_offset)
		exchange_bytes(now + slot->count_offset,
			next + slot->count_offset, sizeof(unsigned));
}

/* --- what to do about a difference --- */

static void note(const char **list, unsigned *count, const char *path)
{
	for (unsigned i = 0; i < *count; i++)
		if (list[i] == path)
			return;
	assert(*count < CONF_CHANGES_MAX);
	list[(*count)++] = path;
}

static bool is_live(const struct walk *walk, const struct conf_use *use)
{
	static const char identity[] = "peerway.identity.";

	return use->live &&
	       !(walk->identity_appears &&
		       !strncmp(use->path, identity, strlen(identity)));
}

/* Writes the difference down; whether the daemon takes it up. */
static bool decide(const struct walk *walk, const char *path)
{
	const struct conf_use *use = conf_use_find(path);
	struct conf_changes *changes = walk->changes;

	assert(use);
	if (!(use->readers & walk->daemon))
		return false;
	if (!is_live(walk, use)) {
		note(changes->left, &changes->left_count, use->path);
		return false;
	}
	note(changes->taken, &changes->taken_count, use->path);
	return true;
}

/* --- lists of groups --- */

struct list {
	const struct cyaml_schema_field *field;
	const struct cyaml_schema_field *fields; /* of an entry */
	size_t size;				 /* of an entry */
	char *now;				 /* arrays */
	char *next;
	unsigned count; /* of now; 0: the counts differ */
	bool same_count;
};

static bool entries_differ(
	const struct list *list, const struct cyaml_schema_field *field)
{
	struct slot slot = slot_of_field(field);

	for (unsigned i = 0; i < list->count; i++)
		if (differs(list->now + i * list->size,
			    list->next + i * list->size, &slot))
			return true;
	return !list->same_count;
}

static const struct conf_use *use_below(
	const char *path, const struct cyaml_schema_field *field)
{
	char below[2 * CONF_TREE_PATH_MAX];
	const struct conf_use *use;

	snprintf(below, sizeof(below), "%s[].%s", path, field->key);
	use = conf_use_find(below);
	assert(use);
	return use;
}

/* Whole when every key of an entry is live; else nothing that needs a restart
 * may differ. */
static void walk_entries(const struct walk *walk, const struct list *list,
	const char *path, char *now, char *next)
{
	struct slot whole = slot_of_field(list->field);
	const struct cyaml_schema_field *field;
	bool all_live = true;
	bool fixed = false; /* something differs that is not live */
	bool any = false;

	for (field = list->fields; field->key; field++) {
		bool live = use_below(path, field)->live;

		all_live = all_live && live;
		fixed = fixed || (!live && entries_differ(list, field));
	}
	for (field = list->fields; field->key; field++) {
		const struct conf_use *use = use_below(path, field);
		struct slot slot = slot_of_field(field);

		if (!(use->readers & walk->daemon) ||
			!entries_differ(list, field))
			continue;
		any = true;
		if (fixed) {
			note(walk->changes->left, &walk->changes->left_count,
				use->path);
			continue;
		}
		decide(walk, use->path);
		for (unsigned i = 0; !all_live && i < list->count; i++)
			exchange(list->now + i * list->size,
				list->next + i * list->size, &slot);
	}
	if (all_live && any)
		exchange(now, next, &whole);
}

static void walk_list(const struct walk *walk,
	const struct cyaml_schema_field *field, const char *path, char *now,
	char *next)
{
	const struct cyaml_schema_value *entry = field->value.sequence.entry;
	struct slot whole = slot_of_field(field);
	struct list list = {
		.field = field,
		.fields = entry->mapping.fields,
		.size = entry->data_size,
		.now = *(char **)(now + whole.offset),
		.next = *(char **)(next + whole.offset),
		.same_count = count_at(now, &whole) == count_at(next, &whole),
	};

	if (list.same_count)
		list.count = count_at(now, &whole);
	walk_entries(walk, &list, path, now, next);
}

/* --- the whole --- */

static void walk_leaf(const struct walk *walk,
	const struct cyaml_schema_field *field, const char *path, char *now,
	char *next)
{
	bool of_tree = field->value.type == CYAML_IGNORE;
	struct slot slot = of_tree ? slot_of_tree(path) : slot_of_field(field);
	char *a = of_tree ? (char *)walk->conf : now;
	char *b = of_tree ? (char *)walk->next : next;

	if (differs(a, b, &slot) && decide(walk, path))
		exchange(a, b, &slot);
}

static void walk_group(const struct walk *walk,
	const struct cyaml_schema_field *fields, const char *path, char *now,
	char *next)
{
	for (const struct cyaml_schema_field *f = fields; f->key; f++) {
		char below[CONF_TREE_PATH_MAX];

		snprintf(below, sizeof(below), "%s%s%s", path, *path ? "." : "",
			f->key);
		if (f->value.type == CYAML_MAPPING)
			walk_group(walk, f->value.mapping.fields, below,
				now + f->data_offset, next + f->data_offset);
		else if (f->value.type == CYAML_SEQUENCE &&
			 f->value.sequence.entry->type == CYAML_MAPPING)
			walk_list(walk, f, below, now, next);
		else
			walk_leaf(walk, f, below, now, next);
	}
}

void conf_take(struct conf *conf, struct conf *next, enum conf_daemon daemon,
	struct conf_changes *changes_out)
{
	const struct walk walk = {
		.conf = conf,
		.next = next,
		.daemon = daemon,
		.identity_appears =
			!*conf->identity.cert != !*next->identity.cert,
		.changes = changes_out,
	};

	*changes_out = (struct conf_changes){0};
	walk_group(&walk, conf_schema.mapping.fields, "", (char *)conf,
		(char *)next);
	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
		const struct slot slot = {
			BYTES, said[i].offset, sizeof(bool), 0};

		if (differs((char *)conf, (char *)next, &slot) &&
			decide(&walk, said[i].path))
			exchange((char *)conf, (char *)next, &slot);
	}
}

bool conf_taken(const struct conf_changes *changes, const char *path)
{
	for (unsigned i = 0; i < changes->taken_count; i++)
		if (!strncmp(changes->taken[i], path, strlen(path)))
			return true;
	return false;
}
