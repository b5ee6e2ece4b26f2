/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The store in an etcd cluster: backend.h over etcd's v3 API. Any number of
 * processes may use it at once.
 *
 * What differs from the embedded store, all of it within backend.h:
 *   - Revisions count every change in that etcd, others' too.
 *   - A lease is an etcd lease that would live for a week: it is the processes
 *     using the store that end it, when for its TTL none of them has kept it
 *     alive. So a lease outlives a time in which none of them runs, and has a
 *     full TTL when one of them starts, or etcd answers again. It ends up to
 *     2 s late: etcd counts its age in seconds.
 *   - Calls that have nothing to do with each other are under way at once.
 */

#include "auth/backend.h"
#include "auth/etcd_client.h"

struct backend_etcd_options {
	struct etcd_options etcd; /* but probe_key */
	const char *prefix;	  /* as "/peerway" */
	/* History older than this is compacted, ms; 0: left to etcd. */
	int64_t compact_ms;
	/* Kept in memory for watches that lag. 0: 16 MiB. */
	size_t log_bytes;
};

/* Borrows loop and cq. NULL and *error_out (gives) for a file that cannot be
 * read. The store need not be there yet: calls wait for it up to ETCD_CALL_MS
 * and are then answered UNAVAILABLE. */
struct backend *backend_etcd_new(struct loop *loop, struct rpc_cq *cq,
	const struct backend_etcd_options *options, char **error_out);
