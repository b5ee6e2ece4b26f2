/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the backend_sqlite*.c files share among themselves. */

#include <sys/queue.h>

#include "auth/backend_ops.h"
#include "auth/backend_sqlite.h"
#include "auth/sqlite_db.h"

struct completion;
struct copying;
struct lease;
struct sqlite_watch;

struct sqlite_backend {
	struct backend base;
	struct loop *loop;
	struct sqlite_db *db;
	int64_t (*now)(void *arg);
	void *now_arg;

	/* Calls of this turn; their effects are in the open transaction. */
	STAILQ_HEAD(, completion) calls;
	bool open;	       /* a transaction is */
	bool failed;	       /* and it cannot be committed */
	bool failing;	       /* the last one could not be */
	int64_t failing_since; /* loop_now() */
	char problem[200];
	bool full;	 /* for want of room */
	uint64_t writes; /* transactions committed */
	struct loop_task end_of_turn;

	TAILQ_HEAD(, lease) leases;
	unsigned lease_count;
	struct timer *tick;
	int64_t last_tick;

	TAILQ_HEAD(, sqlite_watch) watches;
	uint64_t watch_id;

	struct timer *compact;
	int64_t log_age_ms;
	uint64_t log_bytes;

	struct copying *copying; /* NULL: no backup is under way */
};

/* ---- backend_sqlite.c ---- */

/* Opens this turn's transaction unless it is open; false when the turn has
 * failed. */
bool sqlite_backend_write(struct sqlite_backend *b);
/* What a call met while it ran: takes it for the whole turn when it is an
 * error. True when ret is none. */
bool sqlite_backend_check(struct sqlite_backend *b, int ret);
/* Ends the turn at its end. */
void sqlite_backend_wake(struct sqlite_backend *b);

/* ---- backend_sqlite_txn.c ---- */

/* In this turn's transaction. */
enum backend_status sqlite_txn_run(
	struct sqlite_backend *b, const struct backend_txn *txn);

/* ---- backend_sqlite_lease.c ---- */

/* From the file, each with a full TTL. */
int sqlite_leases_load(struct sqlite_backend *b);
void sqlite_leases_free(struct sqlite_backend *b);
bool sqlite_lease_exists(struct sqlite_backend *b, uint64_t id);
enum backend_status sqlite_lease_grant(
	struct sqlite_backend *b, uint32_t ttl_ms, uint64_t *id_out);
enum backend_status sqlite_lease_keepalive(
	struct sqlite_backend *b, uint64_t id, uint32_t *ttl_ms_out);
enum backend_status sqlite_lease_revoke(struct sqlite_backend *b, uint64_t id);
/* Ends those that are due. */
void sqlite_leases_expire(struct sqlite_backend *b);

/* ---- backend_sqlite_watch.c ---- */

struct backend_watch *sqlite_watch_new(struct backend *backend,
	const char *prefix, uint64_t from, const struct backend_watch_ops *ops,
	void *arg);
void sqlite_watch_pause(struct backend_watch *watch, bool paused);
void sqlite_watch_cancel(struct backend_watch *watch);
/* Reports what has been committed, a bounded amount to each watch. */
void sqlite_watches_pump(struct sqlite_backend *b);
void sqlite_watches_free(struct sqlite_backend *b);

/* ---- backend_sqlite_copy.c ---- */

bool sqlite_backup(struct backend *backend, const char *path,
	backend_backup_done *done, void *arg);
void sqlite_backup_progress(
	const struct backend *backend, uint64_t *done_out, uint64_t *of_out);
/* At the end of a turn, when no transaction is open. */
void sqlite_copying_turn(struct sqlite_backend *b);
void sqlite_copying_free(struct sqlite_backend *b);
