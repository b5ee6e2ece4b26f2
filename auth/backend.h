/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The store behind authd: ordered text keys with byte values, one revision
 * counter for all, leases, watches. Shaped so that an embedded file and an
 * etcd cluster can both stand behind it; tests/unit/auth/test_backend.c says in
 * code what any implementation must do.
 *
 *   revision   counts transactions that changed something. A kv knows the one
 *              that wrote it last; a reader may ask for the state as of any
 *              revision that has not been compacted.
 *   lease      keys may hang on one; when it ends they go, all of them with
 *              one revision. A lease ends by revocation or when nobody has kept
 *              it alive for its TTL. Its clock is the store's own monotonic
 *              one, and stands still while the store does not run: after a
 *              restart or a stall every lease has a full TTL.
 *
 * Every call completes by its callback, exactly once, on the loop and never
 * before the call itself has returned. Calls complete in the order in which
 * they were made, each sees the effects of those before it, and what a callback
 * reports has been written durably. Callbacks may call anything here but
 * backend_free().
 *
 * All pointers given to a call are borrowed until it returns; all pointers
 * given to a callback until that returns.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backend;

enum backend_status {
	BACKEND_OK,
	BACKEND_COMPARE_FAILED, /* nothing was changed */
	BACKEND_NO_LEASE,    /* it has ended, or never was; nothing changed */
	BACKEND_COMPACTED,   /* the revision asked for is gone */
	BACKEND_FUTURE,	     /* ... or has not been yet */
	BACKEND_FULL,	     /* no more leases, or no more room */
	BACKEND_INVALID,     /* breaks a bound below */
	BACKEND_UNAVAILABLE, /* try again later */
};
const char *backend_status_text(enum backend_status status);

/* Keys: printable ASCII without spaces. */
#define BACKEND_KEY_MAX 256
#define BACKEND_OPS_MAX 128
#define BACKEND_TXN_MAX (1440 * 1024) /* bytes of all keys and values */
#define BACKEND_RANGE_MAX 1000
#define BACKEND_LEASES_MAX 4096
#define BACKEND_TTL_MIN_MS 2000
#define BACKEND_TTL_MAX_MS 3600000

struct backend_kv {
	const char *key;
	const uint8_t *value;
	size_t len;
	uint64_t mod_revision;
	uint64_t lease; /* 0: none */
};

/* ---- reading ---- */

struct backend_range {
	const char *prefix;
	bool exact;	      /* prefix is the whole key */
	const char *after;    /* only keys behind this one; NULL: all */
	size_t limit;	      /* 1 to BACKEND_RANGE_MAX */
	uint64_t at_revision; /* 0: now */
};

struct backend_range_result {
	enum backend_status status;
	uint64_t revision;	      /* of the state that was read */
	const struct backend_kv *kvs; /* in order of key */
	size_t count;
	bool more; /* there are keys behind the last one */
};

typedef void backend_range_done(
	void *arg, const struct backend_range_result *result);

/* OK, COMPACTED, FUTURE, INVALID or UNAVAILABLE. */
void backend_range(struct backend *backend, const struct backend_range *range,
	backend_range_done *done, void *arg);

/* ---- writing ---- */

struct backend_compare {
	enum {
		BACKEND_ABSENT,
		BACKEND_MOD_REVISION,
		BACKEND_VALUE,
	} kind;
	const char *key;
	uint64_t mod_revision;
	const void *value;
	size_t len;
};

struct backend_op {
	enum {
		BACKEND_PUT,
		BACKEND_DELETE, /* of an absent key: no change */
	} kind;
	const char *key;
	const void *value;
	size_t len;
	uint64_t lease; /* of a put; 0: none */
};

/* When all compares hold, all ops happen with one revision. No key may stand in
 * two ops. */
struct backend_txn {
	const struct backend_compare *compares;
	size_t compare_count;
	const struct backend_op *ops;
	size_t op_count;
};

typedef void backend_txn_done(
	void *arg, enum backend_status status, uint64_t revision);

/* OK with the store's revision afterwards, COMPARE_FAILED, NO_LEASE, FULL,
 * INVALID or UNAVAILABLE. */
void backend_txn(struct backend *backend, const struct backend_txn *txn,
	backend_txn_done *done, void *arg);

/* ---- leases ---- */

typedef void backend_lease_done(
	void *arg, enum backend_status status, uint64_t lease, uint32_t ttl_ms);

/* OK with a new id below 2^63, FULL, INVALID or UNAVAILABLE. */
void backend_lease_grant(struct backend *backend, uint32_t ttl_ms,
	backend_lease_done *done, void *arg);
/* OK: it has its whole TTL again. Costs no write. NO_LEASE, UNAVAILABLE. */
void backend_lease_keepalive(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg);
/* OK: it and its keys are gone. NO_LEASE, UNAVAILABLE. */
void backend_lease_revoke(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg);

/* ---- watching ---- */

struct backend_event {
	const char *key;
	const uint8_t *value; /* NULL: deleted */
	size_t len;
};

struct backend_watch_ops {
	/* All changes below the prefix of one revision, revisions in order.
	 * count 0: nothing of the prefix has changed up to revision. */
	void (*on_changes)(void *arg, uint64_t revision,
		const struct backend_event *events, size_t count);
	/* COMPACTED: from was, or while paused came to be; FUTURE: from is
	 * beyond the next revision; UNAVAILABLE. The watch is gone. */
	void (*on_end)(void *arg, enum backend_status why);
};

struct backend_watch;
/* Everything that changes from revision from (at least 1) on; never NULL.
 * Borrows ops and arg. */
struct backend_watch *backend_watch(struct backend *backend, const char *prefix,
	uint64_t from, const struct backend_watch_ops *ops, void *arg);
/* Paused: nothing is reported, and nothing held in memory for it. */
void backend_watch_pause(struct backend_watch *watch, bool paused);
/* Nothing is reported any more, from this moment; not after on_end. */
void backend_watch_cancel(struct backend_watch *watch);

/* ---- the store ---- */

/* Forgets how revisions up to this one came about: a watch can no longer start
 * from one of them, nor can the state before it be read. OK, FUTURE or
 * UNAVAILABLE; revision is the one reached. */
void backend_compact(struct backend *backend, uint64_t revision,
	backend_txn_done *done, void *arg);

struct backend_info {
	char store_id[64]; /* another one: another history of revisions, also
			      after an older copy was put back */
	uint64_t revision;
	uint64_t log_bytes; /* what is kept to resume watches from */
	uint64_t writes;    /* since this process began: what was made durable,
			       however many calls were in it */
	unsigned leases;
	bool failing;	       /* it cannot be used now, or not be written to */
	char problem[200];     /* why; empty unless failing */
	int64_t failing_since; /* loop_now() */
	bool put_back;	       /* an older copy, noticed when it was opened */
	size_t page; /* the limit by which a long range is read best */
};
void backend_info(const struct backend *backend, struct backend_info *out);

/* NULL: the copy is there; else why there is none. */
typedef void backend_backup_done(void *arg, const char *error);
enum backend_backup {
	BACKEND_BACKUP_BEGUN,
	BACKEND_BACKUP_BUSY,  /* another is under way */
	BACKEND_BACKUP_OTHER, /* this kind of store has tools of its own */
};
/* Copies the whole store, consistent, into a new file at path (mode 0600),
 * while it goes on serving; done only when BEGUN. */
enum backend_backup backend_backup(struct backend *backend, const char *path,
	backend_backup_done *done, void *arg);
/* How much of the one under way; in parts of any size. */
void backend_backup_progress(
	const struct backend *backend, uint64_t *done_out, uint64_t *of_out);

/* Completes all calls that are under way, ends watches without a word. NULL is
 * fine. */
void backend_free(struct backend *backend);
