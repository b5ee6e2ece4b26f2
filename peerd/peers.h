/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The other proxies, as the cache's records have them: one channel to each that
 * takes part in peering. A record that goes or changes its address retires the
 * channel; streams on it go on until they end by themselves.
 */

#include <jansson.h>

#include "peerd/candidates.h"
#include "peerd/channel.h"
#include "peerd/peerd.h"

/* Proxies beyond this are not connected to; logged once. */
#define PEERS_MAX 1000

struct peers;

struct peers *peers_new(struct peerd *peerd);
/* Retires every channel. */
void peers_free(struct peers *peers);

/* Reads the proxy records of the cache again. Without identity or cache
 * nothing happens yet. */
void peers_refresh(struct peers *peers);
/* We have a new certificate: new channels for new dials. */
void peers_renew(struct peers *peers);

/* NULL when it is unknown or takes no part in peering. */
struct channel *peers_channel(const struct peers *peers, const char *proxy_id);
enum candidate_health peers_health(
	const struct peers *peers, const char *proxy_id);

/* The list for `peerctl status`. Gives. */
json_t *peers_json(const struct peers *peers);
