/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What every main does the same way: options, configuration, log, limits,
 * the ready notice.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/conf.h"
#include "shared/loop.h"

struct daemon_options {
	const char
		*config_path; /* -c FILE, default /etc/peerway/peerway.yaml */
	bool check_only;      /* --check-config */
	int worker;	      /* --worker N, proxy's own use; -1: none */
};

/*
 * Parses options (--help, --version, -c, --check-config; --worker where
 * allowed), loads the configuration, starts the log. Exits with 0 after --help,
 * --version and a good --check-config, 1 with one line for a bad file, 2 for
 * wrong usage. Gives conf.
 */
struct conf *daemon_start(int argc, char **argv, const char *name,
	const char *summary, bool has_workers,
	struct daemon_options *options_out);

/* Raises the descriptor limit to the hard one; returns it. */
long daemon_raise_fd_limit(void);

/* sd_notify protocol to $NOTIFY_SOCKET, if any: "READY=1". */
void daemon_notify(const char *state);

/* Tells the service manager that we end, in within_ms at most: it waits as long
 * and 15 s more, however short its own patience. */
void daemon_stopping(int64_t within_ms);

/* loop_run(); when the service manager watches this process ($WATCHDOG_USEC,
 * $WATCHDOG_PID), the loop tells it twice in that time that it turns. */
void daemon_run(struct loop *loop);
