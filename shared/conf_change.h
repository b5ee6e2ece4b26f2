/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a file that was read again says otherwise, and taking up of it what one
 * daemon can while it runs. Pure.
 */

#include <stdbool.h>

#include "shared/conf.h"
#include "shared/conf_use.h"

/* More than there are keys; a test compares. */
#define CONF_CHANGES_MAX 128

struct conf_changes {
	/* keys, as in conf_uses[] and borrowed from there */
	const char *taken[CONF_CHANGES_MAX];
	unsigned taken_count;
	const char *left[CONF_CHANGES_MAX]; /* need a restart */
	unsigned left_count;
};

/*
 * Exchanges, between conf and next, every value that differs and that this
 * daemon takes up; of all others that it reads conf keeps its own. Whoever
 * frees next afterwards frees the old texts: see conf_use.c. Of a list of
 * groups (tcp_listeners[]) nothing is taken while what needs a restart differs
 * in it; of identity, while one has it and the other has not.
 */
void conf_take(struct conf *conf, struct conf *next, enum conf_daemon daemon,
	struct conf_changes *changes_out);

/* Whether a key was taken that is this one or begins with it. */
bool conf_taken(const struct conf_changes *changes, const char *path);
