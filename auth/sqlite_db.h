/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The SQL of the embedded store: one SQLite file in WAL mode, synchronous
 * calls, one transaction open at a time. backend_sqlite.c puts the asynchronous
 * interface, leases' clocks and watches on top.
 *
 *   meta    store id, revision, compacted, schema
 *   kv      the state now
 *   change  one row for each key a revision changed, with the key's state
 *           before it; so both the changes since a revision and the state at
 *           one can be read, for every revision that is not compacted
 *   lease   ids and TTLs; keepalives are not written
 *
 * int results: 0, or -EIO (sqlite_db_error() says what), unless said otherwise.
 */

#include "auth/backend.h"

struct sqlite_db;

/* Creates the file (mode 0600) when there is none; it does not grow beyond
 * max_bytes. NULL and *error_out (gives). */
struct sqlite_db *sqlite_db_open(
	const char *path, uint64_t max_bytes, char **error_out);
void sqlite_db_close(struct sqlite_db *db);
const char *sqlite_db_error(const struct sqlite_db *db);
/* The last error was want of room. */
bool sqlite_db_is_full(const struct sqlite_db *db);

/* Commit writes the revision reached; rollback goes back to the last one. */
int sqlite_db_begin(struct sqlite_db *db);
int sqlite_db_commit(struct sqlite_db *db);
void sqlite_db_rollback(struct sqlite_db *db);

const char *sqlite_db_store_id(const struct sqlite_db *db);
/* It was an older copy when it was opened, and has a new store id. */
bool sqlite_db_put_back(const struct sqlite_db *db);
/* With what the open transaction has added, and without. */
uint64_t sqlite_db_revision(const struct sqlite_db *db);
uint64_t sqlite_db_committed(const struct sqlite_db *db);
uint64_t sqlite_db_compacted(const struct sqlite_db *db);
uint64_t sqlite_db_log_bytes(const struct sqlite_db *db);

/* Of one row; value is NULL for a key that is not there. Borrowed until the
 * callback returns. Not 0: stop. */
typedef int sqlite_row_fn(
	void *arg, uint64_t revision, const struct backend_kv *kv);

/* Rows of the range in order, at most limit + 1, at a revision that is neither
 * compacted nor to come. */
int sqlite_db_range(struct sqlite_db *db, const struct backend_range *range,
	sqlite_row_fn *fn, void *arg);
/* 1: *mod_revision_out says which; 0: absent. equal_out (NULL is fine): whether
 * the value is this one. */
int sqlite_db_get(struct sqlite_db *db, const char *key,
	uint64_t *mod_revision_out, const void *value, size_t len,
	bool *equal_out);

/* The next revision, which puts and deletes until the next call get. */
void sqlite_db_advance(struct sqlite_db *db);
int sqlite_db_put(struct sqlite_db *db, const struct backend_op *op);
/* 1: it was there. */
int sqlite_db_delete(struct sqlite_db *db, const char *key);

/* Committed changes from revision from on, in order of revision and key. */
int sqlite_db_changes(struct sqlite_db *db, const char *prefix, uint64_t from,
	sqlite_row_fn *fn, void *arg);

int sqlite_db_lease_add(struct sqlite_db *db, uint64_t lease, uint32_t ttl_ms);
int sqlite_db_lease_remove(struct sqlite_db *db, uint64_t lease);
int sqlite_db_leases(struct sqlite_db *db,
	void (*fn)(void *arg, uint64_t lease, uint32_t ttl_ms), void *arg);
/* Deletes a lease's keys with one revision, if there are any. */
int sqlite_db_lease_clear(struct sqlite_db *db, uint64_t lease);

/* Forgets changes up to revision, of at most max rows and then a few; the
 * compacted revision says how far it came. */
int sqlite_db_compact(struct sqlite_db *db, uint64_t revision, unsigned max);
/* The newest revision that a log bounded by age (Unix ms) and bytes may
 * forget; 0: none. */
uint64_t sqlite_db_expendable(
	struct sqlite_db *db, int64_t older_than, uint64_t keep_bytes);

/*
 * A copy of all of it in a new file (mode 0600), made in steps between
 * transactions; changes meanwhile are in it. To be ended before the database is
 * closed; one that is ended before it is whole is removed.
 */
struct sqlite_copy;
/* NULL and *error_out (gives): also when the file is there already. */
struct sqlite_copy *sqlite_copy_begin(
	struct sqlite_db *db, const char *path, char **error_out);
/* At most so many pages. 1: whole, 0: more to come, -EIO: sqlite_copy_error().
 */
int sqlite_copy_step(struct sqlite_copy *copy, unsigned pages);
const char *sqlite_copy_error(const struct sqlite_copy *copy);
/* In pages; a lower bound until the first step. */
void sqlite_copy_progress(
	const struct sqlite_copy *copy, uint64_t *done_out, uint64_t *of_out);
void sqlite_copy_end(struct sqlite_copy *copy);
