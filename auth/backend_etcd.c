/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store in etcd, see backend_etcd.h: how its parts hang together. Owns the
 * client and all of them. History is compacted here: etcd keeps every change
 * for ever unless somebody tells it not to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/backend_etcd_impl.h"
#include "shared/alloc.h"

#define FINISH_MS 3000
#define LOG_BYTES (16 << 20)

static void on_ready(void *arg, uint64_t cluster_id, int64_t revision)
{
	etcd_open_start(arg, cluster_id, revision);
}

static void on_away(void *arg)
{
	struct etcd_backend *b = arg;

	timer_clear(b->reopen);
}

static const struct etcd_client_ops client_ops = {on_ready, on_away};

static void on_reopen(void *arg)
{
	struct etcd_backend *b = arg;

	if (etcd_client_is_ready(b->client))
		etcd_open_start(b, b->cluster_id, 0);
}

/* Each process does so; the second finds it done. */
static void on_compact(void *arg)
{
	struct etcd_backend *b = arg;
	uint64_t *oldest = &b->marks[b->mark];

	timer_set(b->compact, b->compact_ms / ETCD_MARKS);
	if (b->open && *oldest)
		etcd_compact(&b->base, *oldest, NULL, NULL);
	*oldest = b->seen;
	b->mark = (b->mark + 1) % ETCD_MARKS;
}

static void get_info(const struct backend *backend, struct backend_info *out)
{
	const struct etcd_backend *b = (const struct etcd_backend *)backend;

	*out = (struct backend_info){.revision = b->seen,
		.log_bytes = b->log ? change_log_bytes(b->log) : 0,
		.leases = b->lease_count,
		.writes = b->writes,
		/* etcd counts what is behind a page as often as there is one */
		.page = BACKEND_RANGE_MAX,
		.failing = !b->open || !etcd_client_is_ready(b->client)};
	memcpy(out->store_id, b->store_id, sizeof(out->store_id));
	if (!out->failing)
		return;
	out->failing_since = etcd_client_since(b->client);
	snprintf(out->problem, sizeof(out->problem), "%s",
		etcd_client_is_ready(b->client)
			? "etcd answers, and is being looked at"
			: etcd_client_error(b->client));
}

static void etcd_free(struct backend *backend)
{
	struct etcd_backend *b = (struct etcd_backend *)backend;

	etcd_calls_finish(b, FINISH_MS);
	b->ending = true;
	etcd_follow_stop(b);
	etcd_watches_free(b);
	etcd_client_free(b->client);
	etcd_calls_end(b);
	etcd_leases_free(b);
	timer_free(b->reopen);
	timer_free(b->compact);
	free(b->gathered);
	free(b);
}

static const struct backend_ops backend_etcd_ops = {
	.range = etcd_range,
	.txn = etcd_txn,
	.lease_grant = etcd_lease_grant,
	.lease_keepalive = etcd_lease_keepalive,
	.lease_revoke = etcd_lease_revoke,
	.watch = etcd_watch_new,
	.watch_pause = etcd_watch_pause,
	.watch_cancel = etcd_watch_cancel,
	.compact = etcd_compact,
	.info = get_info,
	.free = etcd_free,
};

struct backend *backend_etcd_new(struct loop *loop, struct rpc_cq *cq,
	const struct backend_etcd_options *options, char **error_out)
{
	struct etcd_backend *b = xcalloc(1, sizeof(*b));
	struct etcd_options etcd = options->etcd;
	etcd_key key;

	b->base.ops = &backend_etcd_ops;
	b->loop = loop;
	b->log_bytes = options->log_bytes ? options->log_bytes : LOG_BYTES;
	b->compact_ms = options->compact_ms;
	snprintf(b->root, sizeof(b->root), "%s/", options->prefix);
	etcd_store_key(b->root, key);
	etcd.probe_key = key;
	b->client = etcd_client_new(loop, cq, &etcd, &client_ops, b, error_out);
	if (!b->client) {
		free(b);
		return NULL;
	}
	etcd_calls_init(b);
	etcd_leases_init(b);
	etcd_watches_init(b);
	b->reopen = timer_new(loop, on_reopen, b);
	b->compact = timer_new(loop, on_compact, b);
	if (b->compact_ms)
		timer_set(b->compact, b->compact_ms / ETCD_MARKS);
	return &b->base;
}
