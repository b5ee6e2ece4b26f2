/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the backend_etcd*.c files share among themselves. */

#include <sys/queue.h>

#include "auth/backend_etcd.h"
#include "auth/backend_ops.h"
#include "auth/change_log.h"
#include "auth/etcd_codec.h"

struct etcd_op;
struct etcd_lease;
struct etcd_watch;

/* History is compacted in steps of its age by this. */
#define ETCD_MARKS 8

struct etcd_backend {
	struct backend base;
	struct loop *loop;
	struct etcd_client *client;
	char root[ETCD_PREFIX_MAX + 2]; /* "<prefix>/" */

	/* backend_etcd_open.c */
	bool open; /* all of the following is known */
	bool ending;
	struct timer *reopen;
	char again_why[200]; /* it had to be looked at anew; empty: open */
	uint64_t cluster_id;
	char store_id[64];  /* "<cluster id>-<uuid>" */
	char uuid[37];	    /* what the store's key says */
	uint64_t seen;	    /* the last revision of ours that is known */
	uint64_t compacted; /* as far as we have been told */

	/* backend_etcd_call.c */
	TAILQ_HEAD(, etcd_op) ops; /* in the order in which they were made */
	uint64_t writes;	   /* made */
	unsigned waiting;	   /* of these, for others before them */
	struct loop_task flush;

	/* backend_etcd_lease.c */
	TAILQ_HEAD(, etcd_lease) leases;
	unsigned lease_count;
	unsigned granting;
	struct timer *tick;
	int64_t last_tick;
	int64_t steady_since; /* since when the store and we have been there */

	/* backend_etcd_watch.c */
	struct change_log *log;
	size_t log_bytes;
	struct etcd_stream *follower; /* of everything below root */
	struct etcd_events *gathered; /* a revision that is not whole yet */
	TAILQ_HEAD(, etcd_watch) watches;
	uint64_t watch_id;
	struct loop_task pump;

	/* backend_etcd.c */
	struct timer *compact;
	int64_t compact_ms;
	uint64_t marks[ETCD_MARKS]; /* what seen was, the oldest at mark */
	unsigned mark;
};

/* ---- backend_etcd_open.c ---- */

/* A member answers: looks at the store, or sees whether it is still the same.
 */
void etcd_open_start(
	struct etcd_backend *b, uint64_t cluster_id, int64_t revision);
/* What is known of the store cannot be relied on any more. */
void etcd_open_again(struct etcd_backend *b, const char *why);

/* ---- backend_etcd_call.c ---- */

void etcd_calls_init(struct etcd_backend *b);
void etcd_range(struct backend *backend, const struct backend_range *range,
	backend_range_done *done, void *arg);
void etcd_txn(struct backend *backend, const struct backend_txn *txn,
	backend_txn_done *done, void *arg);
void etcd_lease_grant(struct backend *backend, uint32_t ttl_ms,
	backend_lease_done *done, void *arg);
void etcd_lease_keepalive(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg);
void etcd_lease_revoke(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg);
void etcd_compact(struct backend *backend, uint64_t revision,
	backend_txn_done *done, void *arg);
/* Sends what waited for the store to be open, or for other calls. */
void etcd_calls_dispatch(struct etcd_backend *b);
/* Those that have waited too long for the store to be open. */
void etcd_calls_expire(struct etcd_backend *b);
/* Turns the loop until all have completed, and for ms at most. */
void etcd_calls_finish(struct etcd_backend *b, int64_t ms);
/* Those that the client has let go of, and those that wait. */
void etcd_calls_end(struct etcd_backend *b);

/* ---- backend_etcd_lease.c ---- */

void etcd_leases_init(struct etcd_backend *b);
void etcd_leases_free(struct etcd_backend *b);
void etcd_leases_forget(struct etcd_backend *b);
/* A lease of ours is there, or is no more. */
void etcd_lease_seen(struct etcd_backend *b, uint64_t id, uint32_t ttl_ms);
void etcd_lease_gone(struct etcd_backend *b, uint64_t id);
/* It has just been kept alive. Gives its TTL; 0: it is not known. */
uint32_t etcd_lease_kept(struct etcd_backend *b, uint64_t id);
/* The store, or this process, was not there for a while: full TTLs. */
void etcd_leases_steady(struct etcd_backend *b);

/* ---- backend_etcd_watch.c ---- */

void etcd_watches_init(struct etcd_backend *b);
struct backend_watch *etcd_watch_new(struct backend *backend,
	const char *prefix, uint64_t from, const struct backend_watch_ops *ops,
	void *arg);
void etcd_watch_pause(struct backend_watch *watch, bool paused);
void etcd_watch_cancel(struct backend_watch *watch);
/* Follows everything below root, of which all up to seen is known; the log
 * begins there unless it reaches to it already. */
void etcd_follow(struct etcd_backend *b);
/* With the member. */
void etcd_follow_stop(struct etcd_backend *b);
/* All end with why. */
void etcd_watches_end(struct etcd_backend *b, enum backend_status why);
void etcd_watches_free(struct etcd_backend *b);
