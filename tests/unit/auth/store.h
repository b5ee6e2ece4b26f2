/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The stores behind auth/backend.h, as tests know them: how to begin one, open
 * it again, let time pass for it. */

#include "tests/unit/test.h"

#include <stdint.h>

#include "auth/backend.h"
#include "shared/loop.h"
#include "shared/rpc.h"

struct watcher;

struct store {
	const struct store_kind *kind;
	struct loop *loop;
	struct rpc_cq *cq;
	struct backend *backend;
	char dir[64];
	uint64_t max_bytes; /* 0: the default; for the next open */
	uint64_t answered;  /* the last revision that a call told */
	struct watcher *watchers[16];
	size_t watcher_count;

	int64_t clock; /* sqlite */
	int port;      /* etcd */
	int peer_port;
	int pid;
	uint64_t quota; /* that it was started with */
};

struct store_kind {
	void (*begin)(struct store *s); /* once the directory is there */
	void (*open)(struct store *s);
	/* Time passes: while the store runs; while nobody uses it; while this
	 * process stands still. */
	void (*wait)(struct store *s, int64_t ms);
	void (*pass)(struct store *s, int64_t ms);
	void (*stall)(struct store *s, int64_t ms);
	void (*end)(struct store *s);
	int64_t late_ms; /* a lease may outlive its TTL by */
};

extern const struct store_kind store_sqlite;
extern const struct store_kind store_etcd;

/* Another user of the same etcd; backend_free(). */
struct backend *store_etcd_open_second(struct store *s);
/* kill -9, and again on the same data. */
void store_etcd_kill(struct store *s);
void store_etcd_start(struct store *s);
