/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML bytes to a tree with lines, on libyaml's events.
 *
 * libcyaml loads the values (conf.c), but its errors have no exact line, it
 * takes an empty file for a good one and `010` for 8. So the same bytes are
 * read here first, and whatever this file refuses never reaches it.
 *
 * Owns the nodes. A newcomer might miss that libyaml ends its input at a NUL
 * byte without a word: the rest of the file would silently not count, so NUL
 * bytes are looked for beforehand.
 */
#include "shared/conf_tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "shared/alloc.h"

#define NO_ALIASES "anchors and aliases are not accepted"

struct builder {
	yaml_parser_t parser;
	struct conf_error *error;
	struct conf_node *root;
	struct conf_node *current; /* the open container; NULL: none */
	char *key;		   /* read, its value not yet */
	unsigned key_line;
	unsigned depth;
	unsigned nodes;
	bool ended; /* the document's end has come */
};

static void make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
}

static bool error_vset(struct conf_error *error, unsigned line, const char *key,
	const char *format, va_list ap)
{
	char *what;

	if (error->text)
		return false;
	what = xvasprintf(format, ap);
	error->text = xasprintf("%s:%u: %s: %s", error->file, line, key, what);
	free(what);
	make_printable(error->text);
	return false;
}

bool conf_error_set(struct conf_error *error, unsigned line, const char *key,
	const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	error_vset(error, line, key, format, ap);
	va_end(ap);
	return false;
}

bool conf_error_at(struct conf_error *error, const struct conf_node *node,
	const char *format, ...)
{
	char path[CONF_TREE_PATH_MAX];
	va_list ap;

	conf_tree_path(node, path, sizeof(path));
	va_start(ap, format);
	error_vset(error, node->line, path, format, ap);
	va_end(ap);
	return false;
}

void conf_tree_path(const struct conf_node *node, char *path, size_t size)
{
	const struct conf_node *chain[CONF_TREE_DEPTH + 1];
	size_t used = 0;
	int n = 0;

	for (; node->parent && n <= CONF_TREE_DEPTH; node = node->parent)
		chain[n++] = node;
	snprintf(path, size, "%s", n ? "" : "yaml");
	while (n-- > 0 && used < size) {
		if (chain[n]->key)
			used += snprintf(path + used, size - used, "%s%.64s",
				used ? "." : "", chain[n]->key);
		else
			used += snprintf(path + used, size - used, "[%u]",
				chain[n]->index);
	}
}

const struct conf_node *conf_tree_child(
	const struct conf_node *node, const char *key, size_t len)
{
	const struct conf_node *child;

	TAILQ_FOREACH (child, &node->children, entry)
		if (child->key && strlen(child->key) == len &&
			!memcmp(child->key, key, len))
			return child;
	return NULL;
}

/* Follows path as far as it goes; *whole_out: to its end. */
static const struct conf_node *walk(
	const struct conf_node *root, const char *path, bool *whole_out)
{
	const struct conf_node *node = root;

	while (*path) {
		size_t len = strcspn(path, ".");
		const struct conf_node *child =
			conf_tree_child(node, path, len);

		if (!child)
			break;
		node = child;
		path += len + (path[len] == '.');
	}
	*whole_out = !*path;
	return node;
}

const struct conf_node *conf_tree_find(
	const struct conf_node *root, const char *path)
{
	bool whole;
	const struct conf_node *node = walk(root, path, &whole);

	return whole ? node : NULL;
}

const struct conf_node *conf_tree_nearest(
	const struct conf_node *root, const char *path)
{
	bool whole;

	return walk(root, path, &whole);
}

void conf_tree_free(struct conf_node *node)
{
	struct conf_node *child;

	if (!node)
		return;
	/* Depth is bounded, so is this recursion. */
	while ((child = TAILQ_FIRST(&node->children))) {
		TAILQ_REMOVE(&node->children, child, entry);
		conf_tree_free(child);
	}
	free(node->key);
	free(node->text);
	free(node);
}

/* Makes a node below the open container, with the key that was read. */
static struct conf_node *add_node(
	struct builder *b, enum conf_kind kind, const yaml_event_t *event)
{
	struct conf_node *node = xcalloc(1, sizeof(*node));

	TAILQ_INIT(&node->children);
	node->kind = kind;
	node->parent = b->current;
	node->key = b->key;
	node->line = b->key ? b->key_line : event->start_mark.line + 1;
	b->key = NULL;
	b->nodes++;
	if (b->current) {
		node->index = b->current->count++;
		TAILQ_INSERT_TAIL(&b->current->children, node, entry);
	} else {
		b->root = node;
	}
	return node;
}

static bool take_key(struct builder *b, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;
	const struct conf_node *before;
	unsigned line = event->start_mark.line + 1;

	if (event->data.scalar.anchor || event->data.scalar.tag)
		return conf_error_set(
			b->error, line, "yaml", "a key must be a plain word");
	before = conf_tree_child(b->current, text, len);
	if (before) {
		char path[CONF_TREE_PATH_MAX];

		conf_tree_path(before, path, sizeof(path));
		return conf_error_set(b->error, line, path,
			"duplicate key, first on line %u", before->line);
	}
	b->key = xstrndup(text, len);
	b->key_line = line;
	return true;
}

static bool on_scalar(struct builder *b, const yaml_event_t *event)
{
	struct conf_node *node;

	/* As "\0" between quotes. */
	if (memchr(event->data.scalar.value, 0, event->data.scalar.length))
		return conf_error_set(b->error, event->start_mark.line + 1,
			b->key ? b->key : "yaml", "a NUL byte");
	if (b->current && b->current->kind == CONF_MAPPING && !b->key)
		return take_key(b, event);
	node = add_node(b, CONF_SCALAR, event);
	node->text = xstrndup((const char *)event->data.scalar.value,
		event->data.scalar.length);
	node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	if (event->data.scalar.anchor)
		return conf_error_at(b->error, node, NO_ALIASES);
	if (event->data.scalar.tag)
		return conf_error_at(b->error, node, "tags are not accepted");
	return true;
}

static bool on_container(struct builder *b, enum conf_kind kind,
	const yaml_event_t *event, bool anchor, bool tag)
{
	struct conf_node *node;

	if (b->current && b->current->kind == CONF_MAPPING && !b->key)
		return conf_error_set(b->error, event->start_mark.line + 1,
			"yaml", "a key must be a plain word");
	node = add_node(b, kind, event);
	if (anchor)
		return conf_error_at(b->error, node, NO_ALIASES);
	if (tag)
		return conf_error_at(b->error, node, "tags are not accepted");
	if (++b->depth > CONF_TREE_DEPTH)
		return conf_error_at(b->error, node, "more than %d levels deep",
			CONF_TREE_DEPTH);
	b->current = node;
	return true;
}

static bool on_event(struct builder *b, const yaml_event_t *event)
{
	unsigned line = event->start_mark.line + 1;

	if (b->nodes >= CONF_TREE_NODES)
		return conf_error_set(b->error, line, "yaml",
			"more than %d values", CONF_TREE_NODES);
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (b->ended)
			return conf_error_set(
				b->error, line, "yaml", "a second document");
		return true;
	case YAML_DOCUMENT_END_EVENT:
		b->ended = true;
		return true;
	case YAML_ALIAS_EVENT:
		return conf_error_at(
			b->error, add_node(b, CONF_SCALAR, event), NO_ALIASES);
	case YAML_SCALAR_EVENT:
		return on_scalar(b, event);
	case YAML_MAPPING_START_EVENT:
		return on_container(b, CONF_MAPPING, event,
			event->data.mapping_start.anchor,
			event->data.mapping_start.tag);
	case YAML_SEQUENCE_START_EVENT:
		return on_container(b, CONF_SEQUENCE, event,
			event->data.sequence_start.anchor,
			event->data.sequence_start.tag);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		b->current = b->current->parent;
		b->depth--;
		return true;
	default:
		return true;
	}
}

static unsigned line_of_offset(const uint8_t *text, size_t offset)
{
	unsigned line = 1;

	for (size_t i = 0; i < offset; i++)
		line += text[i] == '\n';
	return line;
}

/* A reader error (encoding) has an offset, all others have a mark. */
static bool parser_error(struct builder *b, const uint8_t *text, size_t len)
{
	const yaml_parser_t *p = &b->parser;
	unsigned line = p->problem_mark.line + 1;

	if (p->error == YAML_READER_ERROR)
		line = line_of_offset(text,
			p->problem_offset < len ? p->problem_offset : len);
	return conf_error_set(b->error, line, "yaml", "%s",
		p->problem ? p->problem : "cannot be read");
}

static bool build(struct builder *b, const uint8_t *text, size_t len)
{
	bool ok = true;
	bool done = false;

	while (ok && !done) {
		yaml_event_t event;

		if (!yaml_parser_parse(&b->parser, &event))
			return parser_error(b, text, len);
		done = event.type == YAML_STREAM_END_EVENT;
		ok = on_event(b, &event);
		yaml_event_delete(&event);
	}
	return ok;
}

static bool check_root(const struct conf_node *root, struct conf_error *error)
{
	if (!root || (root->kind == CONF_SCALAR && root->plain && !*root->text))
		return conf_error_set(error, 1, "yaml", "the file is empty");
	if (root->kind != CONF_MAPPING)
		return conf_error_set(error, root->line, "yaml",
			"must be sections: `peerway:`, `proxy_service:`, ...");
	return true;
}

struct conf_node *conf_tree_parse(
	const uint8_t *text, size_t len, struct conf_error *error)
{
	struct builder b = {.error = error};
	const uint8_t *nul = len ? memchr(text, 0, len) : NULL;
	bool ok;

	if (nul) {
		conf_error_set(error, line_of_offset(text, nul - text), "yaml",
			"a NUL byte");
		return NULL;
	}
	if (!yaml_parser_initialize(&b.parser)) {
		conf_error_set(error, 0, "file", "out of memory");
		return NULL;
	}
	yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b.parser, text, len);
	ok = build(&b, text, len) && check_root(b.root, error);
	yaml_parser_delete(&b.parser);
	free(b.key);
	if (ok)
		return b.root;
	conf_tree_free(b.root);
	return NULL;
}
