/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The parent: opens every worker's sockets and keeps them across its death,
 * starts workers and starts them again (child.h), answers proxy.sock and the
 * diagnostic address for all of them (status.h). It touches no client's byte.
 *
 *   RUNNING --SIGTERM, SIGINT--> stopping: workers drain, then all end
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/child.h"
#include "proxy/metrics.h"
#include "shared/conf.h"
#include "shared/loop.h"

struct diag;
struct ipc_server;

struct parent {
	const struct conf *conf;
	struct loop *loop;
	int config_fd;
	int metrics_fd;
	struct metrics metrics;
	void *metrics_memory;
	size_t metrics_bytes;
	struct ipc_server *server;
	struct diag *diag;
	struct child *children; /* conf's workers */
	bool ready;		/* has been told to the service manager */
	bool stopping;
	struct timer *kill;
};

/* Runs until told to end; the exit status. Borrows both. */
int parent_run(const struct conf *conf, const char *config_path);
/* A worker has said HELLO. */
void parent_worker_is_up(struct parent *parent);
