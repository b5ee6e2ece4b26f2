/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The parent: opens every worker's sockets and keeps them across its death,
 * starts workers and starts them again, also those that stand still (child.h),
 * answers proxy.sock and the diagnostic address for all of them (status.h). It
 * touches no client's byte.
 *
 *   RUNNING --SIGTERM, SIGINT--> stopping: workers drain, then all end
 *
 * `drain` and `undrain` are orders of peerctl's to all workers, also to those
 * that are started meanwhile; they do not outlive this process.
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
	struct conf *conf;
	const char *config_path;
	struct loop *loop;
	int config_fd; /* as at the start */
	int reload_fd; /* as last read again; -1: not yet */
	int metrics_fd;
	struct metrics metrics;
	void *metrics_memory;
	size_t metrics_bytes;
	struct ipc_server *server;
	struct diag *diag;
	struct child *children; /* conf's workers */
	bool ready;		/* has been told to the service manager */
	bool warm;		/* all workers were, once */
	bool stopping;
	bool draining;	     /* by order; stopping comes on top */
	int64_t drain_until; /* loop_now() */
	struct timer *kill;
	struct timer *watch;
};

/* Runs until told to end; the exit status. Borrows both; SIGHUP changes conf.
 */
int parent_run(struct conf *conf, const char *config_path);
/* A worker has said HELLO. */
void parent_worker_is_up(struct parent *parent, struct child *child);
/* By order, or because it stops. */
bool parent_is_draining(const struct parent *parent);
