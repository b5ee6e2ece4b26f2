/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asynchronous part of starting:
 *
 *   CAs --> cluster config stored --> own certificate --> 3025, authd.sock
 *
 * and the renewal of authd's own certificate. What a newcomer gets wrong: that
 * certificate and its key are made anew at each start and never touch a file;
 * the CA's key, which could always make another, is all that is worth keeping.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "auth/authd.h"
#include "auth/control.h"
#include "auth/issue.h"
#include "auth/records.h"
#include "auth/service.h"
#include "record.pb-c.h"
#include "shared/alloc.h"
#include "shared/daemon.h"
#include "shared/log.h"
#include "shared/pki.h"
#include "shared/sock.h"

#define RENEWAL_CHECK_MS (3600 * 1000)

/* ---- own certificate ---- */

static void own_names(const struct conf *conf, struct names *names)
{
	char host[256];
	uint16_t port;

	for (unsigned i = 0; i < conf->auth.public_addr_count; i++) {
		const char *addr = conf->auth.public_addr[i];

		if (sock_split(addr, 3025, host, sizeof(host), &port) < 0 ||
			names_add(names, host) < 0)
			log_warn("name not taken into the certificate: "
				 "neither address nor DNS name public_addr=%s",
				addr);
	}
}

/* Takes key and cert. */
static struct tls_identity *make_identity(
	struct authd *auth, EVP_PKEY *key, X509 *cert, char **error_out)
{
	char *chain = cert ? issue_chain(cert, &auth->cas->host) : NULL;
	char *pem = key ? pki_key_to_pem(key) : NULL;
	struct tls_identity *identity = NULL;

	if (chain && pem)
		identity = tls_identity_from_pem(chain, pem,
			auth->cas->host.pem, auth->cas->user.pem, error_out);
	if (pem)
		wipe(pem, strlen(pem));
	free(pem);
	free(chain);
	X509_free(cert);
	EVP_PKEY_free(key);
	return identity;
}

static struct tls_identity *issue_own(struct authd *auth, char **error_out)
{
	struct host host = {.role = IDENTITY_AUTH};
	EVP_PKEY *key = pki_key_new();
	X509 *cert;

	strcpy(host.uuid, auth->uuid);
	own_names(auth->conf, &host.names);
	cert = key ? issue_host(&auth->cas->host, auth->conf->cluster_name,
			     &host, key, authd_time(), error_out)
		   : NULL;
	host_deinit(&host);
	return make_identity(auth, key, cert, error_out);
}

static void renew_own(struct authd *auth)
{
	char *error = NULL;
	struct tls_identity *identity = issue_own(auth, &error);

	if (!identity) {
		log_error("own certificate not renewed: %s",
			error ? error : "out of memory");
		free(error);
		return;
	}
	if (auth->identity)
		rpc_identity_replace(auth->identity, identity);
	else
		auth->identity = rpc_identity_new(identity);
	auth->not_after = tls_identity_not_after(identity);
	tls_identity_unref(identity);
	log_info("own certificate issued: host=%s days=%d", auth->uuid,
		ISSUE_HOST_S / 86400);
}

static void on_renewal(void *arg)
{
	struct authd *auth = arg;

	timer_set(auth->renewal, RENEWAL_CHECK_MS);
	if (auth->not_after - authd_time() < ISSUE_HOST_S / 3)
		renew_own(auth);
}

/* ---- the cluster's settings ---- */

static void listen_all(struct authd *auth)
{
	struct backend_info info;
	char *error = NULL;

	if (auth->stopping)
		return;
	renew_own(auth);
	if (!auth->identity)
		die("cannot start: no certificate of its own");
	auth->renewal = timer_new(auth->loop, on_renewal, auth);
	timer_set(auth->renewal, RENEWAL_CHECK_MS);
	if (!service_start(auth, &error))
		die("cannot start: auth_service.listen_addr: %s", error);
	if (!control_start(auth, &error))
		die("cannot start: %s", error);
	backend_info(auth->backend, &info);
	log_info("ready: cluster=%s port=%d pin=%s store=%s revision=%" PRIu64,
		auth->conf->cluster_name, rpc_server_port(auth->server),
		auth->cas->host.pin, info.store_id, info.revision);
	daemon_notify("READY=1");
}

static void on_config_stored(
	void *arg, enum backend_status status, uint64_t revision)
{
	if (status != BACKEND_OK)
		die("cannot start: cluster config not stored: %s",
			backend_status_text(status));
	listen_all(arg);
}

static void fill_config(const struct conf *conf,
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

/* Writes the settings of the file, unless the store has them already: a
 * restart is no change to anybody. */
static void on_config(void *arg, const struct backend_range_result *result)
{
	struct authd *auth = arg;
	Peerway__Record__ClusterConfig config;
	Peerway__Record__TunnelStrategy strategy;
	uint8_t packed[1024];
	struct backend_op op = {
		.kind = BACKEND_PUT, .key = RECORDS_CONFIG, .value = packed};
	struct backend_txn txn = {.ops = &op, .op_count = 1};

	if (result->status != BACKEND_OK)
		die("cannot start: cluster config not read: %s",
			backend_status_text(result->status));
	fill_config(auth->conf, &config, &strategy);
	if (protobuf_c_message_get_packed_size(&config.base) > sizeof(packed))
		die("cannot start: cluster_name is too long");
	op.len = protobuf_c_message_pack(&config.base, packed);
	if (result->count && result->kvs[0].len == op.len &&
		!memcmp(result->kvs[0].value, packed, op.len)) {
		listen_all(auth);
		return;
	}
	log_info("cluster config stored: strategy=%s count=%u",
		strategy.type ? "proxy_peering" : "agent_mesh",
		strategy.agent_connection_count);
	backend_txn(auth->backend, &txn, on_config_stored, auth);
}

static void on_cas(void *arg, struct ca_pair *cas, const char *error)
{
	struct authd *auth = arg;
	struct backend_range range = {
		.prefix = RECORDS_CONFIG, .exact = true, .limit = 1};

	if (!cas)
		die("cannot start: %s", error);
	auth->cas = cas;
	backend_range(auth->backend, &range, on_config, auth);
}

void authd_start(struct authd *auth)
{
	ca_load(auth->backend, auth->conf->cluster_name, on_cas, auth);
}
