/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps pub/config true, see config.h. What a newcomer gets wrong: the CAs
 * below secret/ are what counts, and this record only tells of them. It is made
 * anew after each change and at each start, so that an authd that was killed
 * between the two has lost nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "auth/config.h"
#include "auth/records.h"
#include "record.pb-c.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define ATTEMPTS 5

struct storing {
	struct authd *auth;
	enum config_part of_file;
	unsigned attempts;
	void (*done)(void *arg, enum backend_status status);
	void *arg;
};

static void read_config(struct storing *storing);

static void finish(struct storing *storing, enum backend_status status)
{
	storing->done(storing->arg, status);
	free(storing);
}

/* ---- what is in force ---- */

static const char *type_text(unsigned type)
{
	return type == PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING
		       ? "proxy_peering"
		       : "agent_mesh";
}

static unsigned type_of(const struct conf_tunnel_strategy *strategy)
{
	return strategy->type == CONF_PROXY_PEERING
		       ? PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING
		       : PEERWAY__RECORD__STRATEGY_TYPE__AGENT_MESH;
}

/* NULL, or what of this file is not in force; gives. */
static char *find_disagreement(const struct conf_auth *conf,
	const Peerway__Record__TunnelStrategy *stored)
{
	const struct conf_tunnel_strategy *own = &conf->tunnel_strategy;
	unsigned type = type_of(own);

	if (!conf->tunnel_strategy_set ||
		(type == stored->type &&
			(type == PEERWAY__RECORD__STRATEGY_TYPE__AGENT_MESH ||
				own->agent_connection_count ==
					stored->agent_connection_count)))
		return NULL;
	return xasprintf("the strategy in force is not that of this auth "
			 "server's file: in_force=%s/%u file=%s/%u; an auth "
			 "server with another file was started later",
		type_text(stored->type), stored->agent_connection_count,
		type_text(type), own->agent_connection_count);
}

void config_seen(struct authd *auth, const uint8_t *value, size_t len)
{
	Peerway__Record__ClusterConfig *config =
		value ? peerway__record__cluster_config__unpack(
				NULL, len, value)
		      : NULL;
	char *disagreement = NULL;

	if (!config)
		return;
	if (config->strategy) {
		disagreement =
			find_disagreement(&auth->conf->auth, config->strategy);
		auth->strategy_type = type_text(config->strategy->type);
		auth->strategy_count = config->strategy->agent_connection_count;
	}
	if (disagreement && (!auth->disagreement ||
				    strcmp(disagreement, auth->disagreement)))
		log_warn("%s", disagreement);
	free(auth->disagreement);
	auth->disagreement = disagreement;
	peerway__record__cluster_config__free_unpacked(config, NULL);
}

/* ---- the record ---- */

static void fill_cas(
	const struct ca_pair *cas, Peerway__Record__ClusterConfig *config)
{
	const struct ca_set *host = &cas->host;

	config->host_ca = host->bundle;
	config->host_ca_id = (char *)host->active.pin;
	config->host_cross = host->cross ? host->cross : (char *)"";
	config->user_ca = cas->user.bundle;
	config->user_ca_id = (char *)cas->user.active.pin;
	config->renew_spread_ms = host->state.spread_ms;
}

/* stored may be NULL: there is nothing yet. */
static void fill_settings(const struct storing *storing,
	const Peerway__Record__ClusterConfig *stored,
	Peerway__Record__ClusterConfig *config,
	Peerway__Record__TunnelStrategy *strategy)
{
	const struct conf_auth *conf = &storing->auth->conf->auth;
	bool of_file = !stored || !stored->strategy ||
		       ((storing->of_file & CONFIG_STRATEGY) &&
			       conf->tunnel_strategy_set);
	bool alive_of_file =
		!stored || ((storing->of_file & CONFIG_KEEP_ALIVE) &&
				   conf->keep_alive_set);

	strategy->type = of_file ? type_of(&conf->tunnel_strategy)
				 : stored->strategy->type;
	strategy->agent_connection_count =
		of_file ? conf->tunnel_strategy.agent_connection_count
			: stored->strategy->agent_connection_count;
	config->strategy = strategy;
	config->keep_alive_interval_ms =
		alive_of_file ? conf->keep_alive_interval
			      : stored->keep_alive_interval_ms;
	config->keep_alive_count_max = alive_of_file
					       ? conf->keep_alive_count_max
					       : stored->keep_alive_count_max;
}

/* The record of now; gives. */
static uint8_t *pack(const struct storing *storing, const struct backend_kv *kv,
	size_t *len_out)
{
	Peerway__Record__ClusterConfig config =
		PEERWAY__RECORD__CLUSTER_CONFIG__INIT;
	Peerway__Record__TunnelStrategy strategy =
		PEERWAY__RECORD__TUNNEL_STRATEGY__INIT;
	Peerway__Record__ClusterConfig *stored =
		kv ? peerway__record__cluster_config__unpack(
			     NULL, kv->len, kv->value)
		   : NULL;
	uint8_t *packed;

	config.cluster_name = storing->auth->conf->cluster_name;
	fill_settings(storing, stored, &config, &strategy);
	fill_cas(storing->auth->cas, &config);
	packed = xcalloc(
		1, peerway__record__cluster_config__get_packed_size(&config));
	*len_out = peerway__record__cluster_config__pack(&config, packed);
	if (stored)
		peerway__record__cluster_config__free_unpacked(stored, NULL);
	return packed;
}

/* ---- storing ---- */

static void on_stored(void *arg, enum backend_status status, uint64_t revision)
{
	struct storing *storing = arg;
	struct authd *auth = storing->auth;

	if (status == BACKEND_COMPARE_FAILED && storing->attempts < ATTEMPTS) {
		read_config(storing);
		return;
	}
	if (status == BACKEND_OK)
		log_info("cluster config stored: strategy=%s count=%u "
			 "host_ca=%s user_ca=%s",
			auth->strategy_type, auth->strategy_count,
			ca_phase_text(auth->cas->host.state.phase),
			ca_phase_text(auth->cas->user.state.phase));
	finish(storing, status);
}

static void on_read(void *arg, const struct backend_range_result *result)
{
	struct storing *storing = arg;
	const struct backend_kv *kv = result->count ? &result->kvs[0] : NULL;
	struct backend_compare unchanged = {
		.kind = kv ? BACKEND_MOD_REVISION : BACKEND_ABSENT,
		.key = RECORDS_CONFIG,
		.mod_revision = kv ? kv->mod_revision : 0};
	struct backend_op op = {.kind = BACKEND_PUT, .key = RECORDS_CONFIG};
	struct backend_txn txn = {&unchanged, 1, &op, 1};
	uint8_t *packed;

	if (result->status != BACKEND_OK) {
		finish(storing, result->status);
		return;
	}
	packed = pack(storing, kv, &op.len);
	op.value = packed;
	config_seen(storing->auth, packed, op.len);
	if (kv && kv->len == op.len && !memcmp(kv->value, packed, op.len))
		finish(storing, BACKEND_OK);
	else
		backend_txn(storing->auth->backend, &txn, on_stored, storing);
	free(packed);
}

static void read_config(struct storing *storing)
{
	struct backend_range range = {
		.prefix = RECORDS_CONFIG, .exact = true, .limit = 1};

	storing->attempts++;
	backend_range(storing->auth->backend, &range, on_read, storing);
}

void config_store(struct authd *auth, enum config_part of_file,
	void (*done)(void *arg, enum backend_status status), void *arg)
{
	struct storing *storing = xcalloc(1, sizeof(*storing));

	storing->auth = auth;
	storing->of_file = of_file;
	storing->done = done;
	storing->arg = arg;
	read_config(storing);
}
