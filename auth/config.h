/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The record pub/config: what authd decides for all, out of its configuration
 * file and its CAs. Several authd share it: of settings that a file makes,
 * those of the one that was started last are in force, and one whose file says
 * otherwise knows it.
 */

#include "auth/authd.h"

/* What of this file is put into force. */
enum config_part {
	CONFIG_NOTHING = 0,
	CONFIG_STRATEGY = 1,
	CONFIG_KEEP_ALIVE = 2,
	CONFIG_ALL = 3,
};

/* Writes it, unless the store has it so already. Those parts of this file's
 * settings are put into force; of others, and where the file has none, the
 * stored ones stay. done: OK or why not. */
void config_store(struct authd *auth, enum config_part of_file,
	void (*done)(void *arg, enum backend_status status), void *arg);

/* What the record says now: for status, and a warning when it is not what this
 * file says. NULL: nothing. */
void config_seen(struct authd *auth, const uint8_t *value, size_t len);
