/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One worker as its parent sees it: sockets that outlive it, its process, the
 * link that tells each side of the other's death, and when to try again.
 *
 *   WAITING --child_start()--> RUNNING --HELLO--> UP --died--> WAITING
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct ipc_link;
struct parent;
struct timer;

struct child {
	struct parent *parent;
	uint32_t number;
	int *sockets; /* in the order of inherit.h, kept for its life */
	size_t socket_count;
	pid_t pid; /* 0: not running */
	struct ipc_link *link;
	bool up; /* has said HELLO */
	unsigned restarts;
	uint64_t beats;	  /* that its loop had turned when last looked at */
	unsigned still_s; /* since it last had */
	int64_t started;  /* loop_now() */
	time_t up_since;
	int64_t backoff_ms;
	struct timer *respawn; /* set: waiting to be started again */
};

/* handshake_timeout is another: who says nothing so long waits in the kernel.
 */
void child_defer_accept(struct child *child);
/* Opens the sockets (ends the process if one is taken); starts nothing. */
void child_init(struct child *child, struct parent *parent, uint32_t number);
/* The process is not waited for. */
void child_deinit(struct child *child);

/* When that fails it is tried again later. */
void child_start(struct child *child);
/* Takes note if its process has ended; starts it again unless stopping. */
void child_reap(struct child *child);
/* Once a second: kills a worker whose loop has stood still for half a minute,
 * as the service manager's watchdog does to the parent. */
void child_watch(struct child *child);
/* Sends signal, if it runs; it is not started any more. */
void child_end(struct child *child, int signal);
void child_close_sockets(struct child *child);
