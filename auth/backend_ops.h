/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an implementation of backend.h provides, and what all of them share. */

#include "auth/backend.h"
#include "shared/loop.h"

struct backend_ops {
	void (*range)(struct backend *, const struct backend_range *,
		backend_range_done *, void *);
	void (*txn)(struct backend *, const struct backend_txn *,
		backend_txn_done *, void *);
	void (*lease_grant)(
		struct backend *, uint32_t, backend_lease_done *, void *);
	void (*lease_keepalive)(
		struct backend *, uint64_t, backend_lease_done *, void *);
	void (*lease_revoke)(
		struct backend *, uint64_t, backend_lease_done *, void *);
	struct backend_watch *(*watch)(struct backend *, const char *, uint64_t,
		const struct backend_watch_ops *, void *);
	void (*watch_pause)(struct backend_watch *, bool);
	void (*watch_cancel)(struct backend_watch *);
	void (*compact)(struct backend *, uint64_t, backend_txn_done *, void *);
	void (*info)(const struct backend *, struct backend_info *);
	/* NULL, both: not this store's affair */
	bool (*backup)(
		struct backend *, const char *, backend_backup_done *, void *);
	void (*backup_progress)(const struct backend *, uint64_t *, uint64_t *);
	void (*free)(struct backend *);
};

/* First member of every implementation's own struct. */
struct backend {
	const struct backend_ops *ops;
};

/* First member of every implementation's own watch. */
struct backend_watch {
	struct backend *backend;
};

/* Whether a request keeps the bounds of backend.h; when not, the
 * implementation completes it with BACKEND_INVALID. */
bool backend_range_is_valid(const struct backend_range *range);
bool backend_txn_is_valid(const struct backend_txn *txn);
bool backend_ttl_is_valid(uint32_t ttl_ms);
