/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The parent: opens every worker's sockets and keeps them across its death,
 * starts workers and starts them again, answers proxy.sock and the diagnostic
 * address for all of them. It touches no client's byte.
 *
 * SIGTERM or SIGINT: workers drain, then all end.
 */

#include "shared/conf.h"

/* Runs until told to end; the exit status. Borrows both. */
int parent_run(const struct conf *conf, const char *config_path);
