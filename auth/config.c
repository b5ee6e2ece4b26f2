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

struct storing {
	struct authd *auth;
	void (*done)(void *arg, enum backend_status status);
	void *arg;
};

static void finish(struct storing *storing, enum backend_status status)
{
	storing->done(storing->arg, status);
	free(storing);
}

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

static void fill(const struct conf *conf,
	Peerway__Record__ClusterConfig *config,
	Peerway__Record__TunnelStrategy *strategy)
{
	peerway__record__cluster_config__init(config);
	peerway__record__tunnel_strategy__init(strategy);
	strategy->type = conf->auth.tunnel_strategy.type == CONF_PROXY_PEERING
				 ? PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING
				 : PEERWAY__RECORD__STRATEGY_TYPE__AGENT_MESH;
	strategy->agent_connection_count =
		conf->auth.tunnel_strategy.agent_connection_count;
	config->cluster_name = conf->cluster_name;
	config->strategy = strategy;
	config->keep_alive_interval_ms = conf->auth.keep_alive_interval;
	config->keep_alive_count_max = conf->auth.keep_alive_count_max;
}

/* The record of now; gives. */
static uint8_t *pack(const struct authd *auth, size_t *len_out)
{
	Peerway__Record__ClusterConfig config;
	Peerway__Record__TunnelStrategy strategy;
	uint8_t *packed;

	fill(auth->conf, &config, &strategy);
	fill_cas(auth->cas, &config);
	packed = xcalloc(
		1, peerway__record__cluster_config__get_packed_size(&config));
	*len_out = peerway__record__cluster_config__pack(&config, packed);
	return packed;
}

static void on_stored(void *arg, enum backend_status status, uint64_t revision)
{
	finish(arg, status);
}

static void on_read(void *arg, const struct backend_range_result *result)
{
	struct storing *storing = arg;
	struct backend_op op = {.kind = BACKEND_PUT, .key = RECORDS_CONFIG};
	struct backend_txn txn = {.ops = &op, .op_count = 1};
	uint8_t *packed;

	if (result->status != BACKEND_OK) {
		finish(storing, result->status);
		return;
	}
	packed = pack(storing->auth, &op.len);
	op.value = packed;
	if (result->count && result->kvs[0].len == op.len &&
		!memcmp(result->kvs[0].value, packed, op.len)) {
		finish(storing, BACKEND_OK);
	} else {
		log_info("cluster config stored: strategy=%s count=%u "
			 "host_ca=%s user_ca=%s",
			storing->auth->conf->auth.tunnel_strategy.type ==
					CONF_PROXY_PEERING
				? "proxy_peering"
				: "agent_mesh",
			storing->auth->conf->auth.tunnel_strategy
				.agent_connection_count,
			ca_phase_text(storing->auth->cas->host.state.phase),
			ca_phase_text(storing->auth->cas->user.state.phase));
		backend_txn(storing->auth->backend, &txn, on_stored, storing);
	}
	free(packed);
}

void config_store(struct authd *auth,
	void (*done)(void *arg, enum backend_status status), void *arg)
{
	struct backend_range range = {
		.prefix = RECORDS_CONFIG, .exact = true, .limit = 1};
	struct storing *storing = xcalloc(1, sizeof(*storing));

	storing->auth = auth;
	storing->done = done;
	storing->arg = arg;
	backend_range(auth->backend, &range, on_read, storing);
}
