/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The embedded store: backend.h on one SQLite file. One process at a time. */

#include "auth/backend.h"
#include "shared/loop.h"

struct backend_sqlite_options {
	const char *path;
	/* The log to resume watches from keeps at least what is younger than
	 * this, up to this many bytes. 0: 30 min, 64 MiB. */
	int64_t log_age_ms;
	uint64_t log_bytes;
	/* The file does not grow beyond this; when it is reached writes are
	 * answered BACKEND_FULL and the log is forgotten. 0: 4 GiB. */
	uint64_t max_bytes;
	/* Milliseconds, never going back; NULL: the loop's. For tests. */
	int64_t (*now)(void *arg);
	void *now_arg;
};

/* Borrows loop and now_arg, copies path. NULL and *error_out (gives). */
struct backend *backend_sqlite_new(struct loop *loop,
	const struct backend_sqlite_options *options, char **error_out);

/* Looks at the clock: ends leases that are due. A timer does so every 500 ms;
 * tests that set the clock call it themselves. */
void backend_sqlite_tick(struct backend *backend);
