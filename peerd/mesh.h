/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A question to another proxy's peerd, peerway.Mesh/Ask: what peerctl's verbs
 * answer there. A peer of the reference says UNIMPLEMENTED.
 */

#include <jansson.h>

#include "peerd/unary.h"

/* Bounds of the two messages. */
#define MESH_REQUEST_MAX 16384
#define MESH_REPLY_MAX (4 << 20)
#define MESH_LIMIT_MS 5000

/* As unary_start(); args is borrowed. NULL: the question is too long. */
struct unary *mesh_ask(struct channel *channel, const char *verb,
	const json_t *args,
	void (*on_answer)(void *arg, const struct unary_answer *answer),
	void *arg);
/* The answer of one (gives), or NULL and *why_out, borrowed from answer or
 * static. */
json_t *mesh_answer(const struct unary_answer *answer, const char **why_out);
