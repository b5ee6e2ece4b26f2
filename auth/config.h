/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The record pub/config: what authd decides for all, out of its configuration
 * file and its CAs. */

#include "auth/authd.h"

/* Writes it, unless the store has it so already. done: OK or why not. */
void config_store(struct authd *auth,
	void (*done)(void *arg, enum backend_status status), void *arg);
