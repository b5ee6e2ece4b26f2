/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which daemons read a key of peerway.yaml(5), and whether those take it up
 * when it changes while they run. Every key of conf_schema.c has its row; a
 * test compares them, and the man page with both.
 */

#include <stdbool.h>
#include <stddef.h>

enum conf_daemon {
	CONF_AUTHD = 1,
	CONF_PROXY = 2,
	CONF_PEERD = 4,
	CONF_ROUTED = 8,
	CONF_AGENT = 16,
};

struct conf_use {
	const char *path;
	unsigned readers; /* of enum conf_daemon */
	bool live;	  /* SIGHUP is enough for all of them */
};

extern const struct conf_use conf_uses[];
extern const size_t conf_use_count;

/* NULL: no such key. */
const struct conf_use *conf_use_find(const char *path);
