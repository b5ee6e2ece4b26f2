/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The other proxies, as the cache's records have them: one channel to each that
 * takes part in peering. A record that goes or changes its address retires the
 * channel; streams on it go on until they end by themselves.
 *
 * Every peer is pinged (health.h). States: connecting, ready, degraded (answers
 * with errors or slowly), draining (its record says so), unreachable (not
 * connected, or silent).
 */

#include <jansson.h>
#include <stdio.h>

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
/* Whom a hostname, a uuid, or a beginning of one that only one has means: the
 * uuid, borrowed; or NULL and *error_out (gives). */
const char *peers_named(
	const struct peers *peers, const char *name, char **error_out);
/* Empty when it is no peer. */
const char *peers_hostname(const struct peers *peers, const char *proxy_id);
struct candidate_rank peers_rank(
	const struct peers *peers, const char *proxy_id);

/* Prometheus text, a series for each peer; the reference's names where it has
 * them (peering-reference 13). */
void peers_metrics(const struct peers *peers, FILE *out);
/* The list for `peerctl status`. Gives. */
json_t *peers_json(const struct peers *peers);
/* Addresses that more than one proxy advertises, ours among them:
 * [{"addr", "proxies": [{"id", "hostname"}]}]. */
json_t *peers_duplicates_json(const struct peers *peers);
