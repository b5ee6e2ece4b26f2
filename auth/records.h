/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who may write what, and how records lie in the store. Pure.
 *
 *   pub/config                            ClusterConfig
 *   pub/proxy/<proxy>                     ProxyRecord    } on the proxy's
 *   pub/tunnel/<agent>/<proxy>            TunnelRecord   } lease
 *   secret/epoch/<proxy>                  number, counts the lives of its lease
 *   secret/lease/<proxy>/<lease>          a lease of the proxy's; on that lease
 *
 * A proxy writes its own ProxyRecord and the TunnelRecords of its own tunnels;
 * an agent writes nothing. Every write compares epoch and owner of the lease in
 * the same transaction, so a proxy's earlier life cannot undo what its present
 * one wrote.
 */

#include "auth.pb-c.h"
#include "auth/backend.h"

#define RECORDS_PUBLIC "pub/"
#define RECORDS_CONFIG "pub/config"
#define RECORDS_KEY_MAX 128
/* Packed. Bounds what a proxy can make everybody's cache hold for one tunnel;
 * the largest registration that an agent may make fits. */
#define RECORDS_SIZE_MAX 49152
/* Puts and removals of one Publish: a transaction's operations less the proxy
 * record's. */
#define RECORDS_BATCH_MAX (BACKEND_OPS_MAX - 1)

typedef char records_key[RECORDS_KEY_MAX];
void records_proxy_key(const char *proxy, records_key out);
void records_tunnel_key(const char *agent, const char *proxy, records_key out);
/* Of all tunnels of one agent: a prefix. */
void records_agent_prefix(const char *agent, records_key out);
void records_epoch_key(const char *proxy, records_key out);
void records_lease_key(const char *proxy, uint64_t lease, records_key out);
/* Of all leases of a proxy: a prefix. */
void records_leases_prefix(const char *proxy, records_key out);
/* The value of an epoch key. */
void records_epoch_text(uint64_t epoch, char out[24]);
uint64_t records_epoch_parse(const uint8_t *text, size_t len);

/* A batch as a transaction; its memory belongs to the struct. */
struct records_batch {
	struct backend_txn txn;
	struct backend_compare compares[2]; /* owner, epoch */
	struct backend_op ops[BACKEND_OPS_MAX];
	records_key keys[BACKEND_OPS_MAX + 2];
	char epoch[24];
	size_t count;
};

/* Whether all records of a request are of the proxy with this uuid. */
bool records_are_own(
	const Peerway__Auth__PublishRequest *request, const char *proxy);
/* Checks a request of the proxy whose certificate has this uuid. Gives, or NULL
 * with a static text: what is wrong with it. */
struct records_batch *records_batch_new(
	const Peerway__Auth__PublishRequest *request, const char *proxy,
	const char **reason_out);
void records_batch_free(struct records_batch *batch);

/* What a key's new value (NULL: deleted) means to a watcher. False for what is
 * none of its business or cannot be read. out is filled with given messages and
 * texts: records_change_deinit(). */
bool records_change(const char *key, const uint8_t *value, size_t len,
	uint64_t revision, Peerway__Auth__Change *out);
void records_change_deinit(Peerway__Auth__Change *change);
