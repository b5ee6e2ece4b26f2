/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The link to this host's routed: where the cache is and that it changed,
 * which certificate to use, and questions to authd that peerd has no link to.
 * routed may be away at any time; then what is on disk serves.
 */

#include "peerd/peerd.h"
#include "ipc.pb-c.h"

struct routed_link;

struct routed_link_ops {
	/* peerd->cache is another file, or proxies or strategy changed. */
	void (*on_cache)(void *arg);
	/* Takes identity. */
	void (*on_identity)(void *arg, struct tls_identity *identity);
};

/* Borrows ops and arg. */
struct routed_link *routed_link_new(
	struct peerd *peerd, const struct routed_link_ops *ops, void *arg);
void routed_link_free(struct routed_link *routed);

/*
 * Asks authd who holds the agent. Gives an id, or 0 when routed is away. Then
 * on_reply(arg) once, in a later turn; its error says so when nothing came in
 * deadline_ms.
 */
uint64_t routed_link_lookup(struct routed_link *routed, const char *agent_id,
	uint32_t deadline_ms,
	void (*on_reply)(void *arg, const Peerway__Ipc__LookupReply *reply),
	void *arg);
/* No reply follows. */
void routed_link_cancel(struct routed_link *routed, uint64_t id);

/* Why the identity that routed last told of is not in use; empty: it is. */
const char *routed_link_identity_error(const struct routed_link *routed);
bool routed_link_is_up(const struct routed_link *routed);
