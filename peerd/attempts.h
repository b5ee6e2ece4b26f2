/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a dial has tried, for the answer to whoever asked: each route, its
 * error and how long it took. Pure.
 */

#include <stddef.h>
#include <stdint.h>

#include "ipc.pb-c.h"
#include "peerd/candidates.h"

/* One for each candidate, the sibling before and the lookup between. */
#define ATTEMPTS_MAX (CANDIDATES_MAX + 2)
#define ATTEMPT_ERROR_MAX 256

struct attempts {
	Peerway__Ipc__Attempt list[ATTEMPTS_MAX];
	Peerway__Ipc__Attempt *pointers[ATTEMPTS_MAX]; /* for a message */
	int64_t started[ATTEMPTS_MAX];
	size_t count;
};

/* Texts are copied; now in milliseconds. Gives the attempt's number; over
 * ATTEMPTS_MAX it is forgotten. */
size_t attempts_begin(struct attempts *attempts, Peerway__Ipc__Route route,
	const char *proxy_id, const char *hostname, int64_t now);
/* NULL for success; else one line of it, cut at ATTEMPT_ERROR_MAX. */
void attempts_end(struct attempts *attempts, size_t number, const char *error,
	int64_t now);
void attempts_deinit(struct attempts *attempts);
