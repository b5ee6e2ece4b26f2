/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the store's interface that does not depend on what is behind it:
 * bounds, texts, and passing calls on to the implementation.
 */
#include <string.h>

#include "auth/backend_ops.h"

const char *backend_status_text(enum backend_status status)
{
	static const char *const texts[] = {
		[BACKEND_OK] = "ok",
		[BACKEND_COMPARE_FAILED] = "a record has changed meanwhile",
		[BACKEND_NO_LEASE] = "the lease has ended",
		[BACKEND_COMPACTED] = "the revision has been compacted",
		[BACKEND_FUTURE] = "the revision is in the future",
		[BACKEND_FULL] = "the store is full",
		[BACKEND_INVALID] = "the request is out of bounds",
		[BACKEND_UNAVAILABLE] = "the store cannot be used",
	};

	return texts[status];
}

static bool key_is_valid(const char *key, size_t min)
{
	size_t len = strnlen(key, BACKEND_KEY_MAX + 1);

	if (len < min || len > BACKEND_KEY_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (key[i] <= ' ' || key[i] >= 0x7f)
			return false;
	return true;
}

bool backend_range_is_valid(const struct backend_range *range)
{
	return key_is_valid(range->prefix, range->exact ? 1 : 0) &&
	       (!range->after || key_is_valid(range->after, 1)) &&
	       range->limit >= 1 && range->limit <= BACKEND_RANGE_MAX;
}

static bool has_duplicate_keys(const struct backend_txn *txn)
{
	for (size_t i = 0; i < txn->op_count; i++)
		for (size_t j = 0; j < i; j++)
			if (!strcmp(txn->ops[i].key, txn->ops[j].key))
				return true;
	return false;
}

bool backend_txn_is_valid(const struct backend_txn *txn)
{
	size_t bytes = 0;

	if (txn->op_count > BACKEND_OPS_MAX ||
		txn->compare_count > BACKEND_OPS_MAX)
		return false;
	for (size_t i = 0; i < txn->compare_count; i++) {
		if (!key_is_valid(txn->compares[i].key, 1))
			return false;
		bytes += strlen(txn->compares[i].key) + txn->compares[i].len;
	}
	for (size_t i = 0; i < txn->op_count; i++) {
		if (!key_is_valid(txn->ops[i].key, 1))
			return false;
		bytes += strlen(txn->ops[i].key) + txn->ops[i].len;
	}
	return bytes <= BACKEND_TXN_MAX && !has_duplicate_keys(txn);
}

bool backend_ttl_is_valid(uint32_t ttl_ms)
{
	return ttl_ms >= BACKEND_TTL_MIN_MS && ttl_ms <= BACKEND_TTL_MAX_MS;
}

void backend_range(struct backend *backend, const struct backend_range *range,
	backend_range_done *done, void *arg)
{
	backend->ops->range(backend, range, done, arg);
}

void backend_txn(struct backend *backend, const struct backend_txn *txn,
	backend_txn_done *done, void *arg)
{
	backend->ops->txn(backend, txn, done, arg);
}

void backend_lease_grant(struct backend *backend, uint32_t ttl_ms,
	backend_lease_done *done, void *arg)
{
	backend->ops->lease_grant(backend, ttl_ms, done, arg);
}

void backend_lease_keepalive(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg)
{
	backend->ops->lease_keepalive(backend, lease, done, arg);
}

void backend_lease_revoke(struct backend *backend, uint64_t lease,
	backend_lease_done *done, void *arg)
{
	backend->ops->lease_revoke(backend, lease, done, arg);
}

struct backend_watch *backend_watch(struct backend *backend, const char *prefix,
	uint64_t from, const struct backend_watch_ops *ops, void *arg)
{
	return backend->ops->watch(backend, prefix, from, ops, arg);
}

void backend_watch_pause(struct backend_watch *watch, bool paused)
{
	watch->backend->ops->watch_pause(watch, paused);
}

void backend_watch_cancel(struct backend_watch *watch)
{
	if (watch)
		watch->backend->ops->watch_cancel(watch);
}

void backend_compact(struct backend *backend, uint64_t revision,
	backend_txn_done *done, void *arg)
{
	backend->ops->compact(backend, revision, done, arg);
}

void backend_info(const struct backend *backend, struct backend_info *out)
{
	backend->ops->info(backend, out);
}

enum backend_backup backend_backup(struct backend *backend, const char *path,
	backend_backup_done *done, void *arg)
{
	if (!backend->ops->backup)
		return BACKEND_BACKUP_OTHER;
	return backend->ops->backup(backend, path, done, arg)
		       ? BACKEND_BACKUP_BEGUN
		       : BACKEND_BACKUP_BUSY;
}

void backend_backup_progress(
	const struct backend *backend, uint64_t *done_out, uint64_t *of_out)
{
	*done_out = 0;
	*of_out = 0;
	if (backend->ops->backup_progress)
		backend->ops->backup_progress(backend, done_out, of_out);
}

void backend_free(struct backend *backend)
{
	if (backend)
		backend->ops->free(backend);
}
