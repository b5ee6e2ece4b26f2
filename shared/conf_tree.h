/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A YAML document as a tree that knows its lines, and the one error a bad file
 * gets. Part of conf.c; besides, peerctl prints one without secrets. Pure.
 *
 * The tree takes less than YAML allows: one document, a mapping at the top,
 * keys that are plain scalars, no duplicate keys, anchors, aliases or tags,
 * at most CONF_TREE_DEPTH levels and CONF_TREE_NODES nodes.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define CONF_TREE_DEPTH 8
#define CONF_TREE_NODES 10000
#define CONF_TREE_PATH_MAX 256

enum conf_kind { CONF_SCALAR, CONF_MAPPING, CONF_SEQUENCE };

struct conf_node {
	TAILQ_ENTRY(conf_node) entry;
	TAILQ_HEAD(conf_nodes, conf_node) children; /* in the file's order */
	unsigned count;				    /* of children */
	struct conf_node *parent;		    /* NULL: the root */
	enum conf_kind kind;
	unsigned line;	/* of the key, or of the value when it has none */
	char *key;	/* NULL: the root, or a sequence's entry */
	unsigned index; /* in a sequence */
	char *text;	/* scalars only */
	bool plain;	/* scalar without quotes */
};

/* The first error wins; text is one line, printable. */
struct conf_error {
	const char *file; /* borrowed */
	char *text;	  /* gives, to free(); NULL: none yet */
};

/* Both return false, for the caller to pass on. line 0: the file itself. */
bool conf_error_set(struct conf_error *error, unsigned line, const char *key,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
bool conf_error_at(struct conf_error *error, const struct conf_node *node,
	const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Gives the root, or NULL and the error. */
struct conf_node *conf_tree_parse(
	const uint8_t *text, size_t len, struct conf_error *error);
void conf_tree_free(struct conf_node *root);

/* "section.key"; NULL when absent. The nearest ancestor that exists: to have a
 * line for what is missing. */
const struct conf_node *conf_tree_find(
	const struct conf_node *root, const char *path);
const struct conf_node *conf_tree_nearest(
	const struct conf_node *root, const char *path);
const struct conf_node *conf_tree_child(
	const struct conf_node *node, const char *key, size_t len);
/* "section.list[2].key" */
void conf_tree_path(const struct conf_node *node, char *path, size_t size);
