/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The states of one authority while its CA is replaced, and what each verb of
 * `peerctl ca rotate` does in each of them. Pure.
 *
 *                 start: a second CA is made
 *   STANDBY ----------------------------------> ROTATING --finish--> STANDBY
 *      ^                                        |      ^   first withdrawn
 *      |                               rollback v      | start
 *      +------finish, second dropped------- ROLLING_BACK
 *
 *   ROTATING      the second CA signs, both are trusted
 *   ROLLING_BACK  the first CA signs, both are trusted
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ca_phase { CA_STANDBY, CA_ROTATING, CA_ROLLING_BACK, CA_PHASES };
enum ca_verb { CA_START, CA_FINISH, CA_ROLLBACK, CA_VERBS };

enum ca_action {
	CA_NOTHING,	/* it is so already */
	CA_MAKE,	/* a second CA, which signs from now on */
	CA_USE_SECOND,	/* the second signs */
	CA_USE_FIRST,	/* the first signs */
	CA_DROP_FIRST,	/* the second takes the first one's place */
	CA_DROP_SECOND, /* ... goes */
	CA_REFUSED,	/* there is nothing to do it to */
};

enum ca_action ca_phase_next(enum ca_phase phase, enum ca_verb verb);
/* "standby", "rotating", "rolling back" */
const char *ca_phase_text(enum ca_phase phase);

struct ca_state {
	enum ca_phase phase;
	int64_t since;	    /* Unix seconds; 0 in standby */
	uint32_t spread_ms; /* hosts renew within this */
};
/* As it is stored; gives. */
char *ca_state_encode(const struct ca_state *state);
/* 0 or -EBADMSG. */
int ca_state_decode(const void *text, size_t len, struct ca_state *out);
