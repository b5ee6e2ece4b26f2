/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Accepting, with limits: a listener pauses when descriptors run short (said
 * once) or when admit says no, and goes on when a connection has ended or, at
 * the latest, with the worker's next tick.
 */

#include <stdbool.h>

#include "shared/sock.h"

struct listener;
struct worker;

struct listener_ops {
	/* Takes fd: a connection, non-blocking, perhaps gone already, when only
	 * from still tells whose it was. */
	void (*on_accept)(struct worker *worker, void *arg, int fd,
		const struct sock_addr *from);
	/* Whether one more may come. */
	bool (*admit)(const struct worker *worker);
	/* Frees arg when the listener ends; may be NULL. */
	void (*release)(void *arg);
};

/* Takes fd, a listening socket, and arg if ops releases it; borrows ops. Ends
 * with listener_stop_all(). */
void listener_start(struct worker *worker, int fd,
	const struct listener_ops *ops, void *arg);
/* Something ended: those that paused may try again. */
void listener_resume_all(struct worker *worker);
/* The same from time to time, and the end of a shortage is said. */
void listener_tick(struct worker *worker);
/* Closes all, for good. */
void listener_stop_all(struct worker *worker);
