/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the daemons of a host answered to `status`, for status.c (asking),
 * status_table.c (showing), status_problems.c (judging), doctor and diag.
 */

#include <jansson.h>
#include <stdint.h>

struct options;

enum { AUTHD, ROUTED, PEERD, PROXY, DAEMON_COUNT };

extern const char *const status_daemons[DAEMON_COUNT];

struct answers {
	const char *on;		   /* --on; NULL: this host */
	json_t *of[DAEMON_COUNT];  /* NULL: away, or not expected */
	char *error[DAEMON_COUNT]; /* NULL: answered, or not expected */
	unsigned count;		   /* answered */
};

/* The member's text, "-" when there is none; its number, 0 likewise. */
const char *status_text(const json_t *object, const char *key);
long long status_number(const json_t *object, const char *key);
/* Seconds from now (Unix time) to the RFC 3339 text, 0 when it is none. */
int64_t status_until(const char *text, int64_t now);

/* ---- status_problems.c, pure ---- */

/* "3 peers: 2 ready, 1 unreachable"; gives. */
char *status_summary(const json_t *peers);
/* What an operator should look at, worst first: {"about": one of daemon, authd,
 * store, strategy, routed, drain, certificate, duplicate, peer; "text"}; gives.
 */
json_t *status_findings(const struct answers *answers, int64_t now);
/* The texts alone; gives. */
json_t *status_problems(const struct answers *answers, int64_t now);
/* A new list of the same peers: those in trouble first, then by name. */
json_t *status_sorted(const json_t *peers);

/* ---- status.c ---- */

/* Asks every daemon that there should be on this host. */
void status_ask_all(struct options *options, struct answers *answers);
void status_answers_deinit(struct answers *answers);
/* {"peerd": its answer, "routed": {"error": why it is away}, ...}; gives. */
json_t *status_as_json(const struct answers *answers);

/* ---- status_table.c ---- */

void status_print(const struct answers *answers);
