/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asynchronous part of starting:
 *
 *   CAs --> cluster config stored --> own certificate --> 3025, authd.sock
 *
 * and the renewal of authd's own certificate, also when the CAs change. What a
 * newcomer gets wrong: that certificate and its key are made anew at each start
 * and never touch a file; the CA's key, which could always make another, is all
 * that is worth keeping.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "auth/authd.h"
#include "auth/config.h"
#include "auth/control.h"
#include "auth/follow.h"
#include "auth/issue.h"
#include "auth/service.h"
#include "shared/alloc.h"
#include "shared/conf_change.h"
#include "shared/daemon.h"
#include "shared/log.h"
#include "shared/pki.h"
#include "shared/sock.h"

#define RENEWAL_CHECK_MS (3600 * 1000)
#define STORE_RETRY_MS 1000

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
			auth->cas->host.bundle, auth->cas->user.bundle,
			error_out);
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
	cert = key ? issue_host(&auth->cas->host.active,
			     auth->conf->cluster_name, &host, key, authd_time(),
			     error_out)
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
	timer_free(auth->renewal);
	auth->renewal = timer_new(auth->loop, on_renewal, auth);
	timer_set(auth->renewal, RENEWAL_CHECK_MS);
	if (!service_start(auth, &error))
		die("cannot start: auth_service.listen_addr: %s", error);
	if (!control_start(auth, &error))
		die("cannot start: %s", error);
	auth->follow = follow_new(auth);
	backend_info(auth->backend, &info);
	if (info.put_back)
		auth->snapshots_from =
			loop_now(auth->loop) + auth->conf->auth.lease_ttl;
	log_info("ready: cluster=%s port=%d pin=%s store=%s revision=%" PRIu64,
		auth->conf->cluster_name, rpc_server_port(auth->server),
		auth->cas->host.active.pin, info.store_id, info.revision);
	daemon_notify("READY=1");
}

static void on_store_due(void *arg)
{
	authd_start(arg);
}

/* A store that is away comes back; anything else is for a person to mend. */
static void wait_for_store(struct authd *auth, const char *error)
{
	struct backend_info info;

	backend_info(auth->backend, &info);
	if (!info.failing)
		die("cannot start: %s", error);
	if (!auth->renewal) {
		log_warn("waiting for the store: %s", error);
		auth->renewal = timer_new(auth->loop, on_store_due, auth);
	}
	timer_set(auth->renewal, STORE_RETRY_MS);
}

static void on_config_stored(void *arg, enum backend_status status)
{
	if (status == BACKEND_OK)
		listen_all(arg);
	else
		wait_for_store(arg, backend_status_text(status));
}

static void use_cas(struct authd *auth, struct ca_pair *cas)
{
	ca_pair_free(auth->cas);
	auth->cas = cas;
	metric_set(&auth->metrics, METRIC_HOST_CA_ROTATING,
		cas->host.state.phase != CA_STANDBY);
	metric_set(&auth->metrics, METRIC_USER_CA_ROTATING,
		cas->user.state.phase != CA_STANDBY);
}

static void on_cas(void *arg, struct ca_pair *cas, const char *error)
{
	struct authd *auth = arg;

	if (auth->stopping) {
		ca_pair_free(cas);
		return;
	}
	if (!cas) {
		wait_for_store(auth, error);
		return;
	}
	use_cas(auth, cas);
	config_store(auth, CONFIG_ALL, on_config_stored, auth);
}

void authd_use_cas(struct authd *auth, struct ca_pair *cas,
	void (*done)(void *arg, enum backend_status status), void *arg)
{
	use_cas(auth, cas);
	renew_own(auth);
	config_store(auth, CONFIG_NOTHING, done, arg);
}

static void on_keep_alive_stored(void *arg, enum backend_status status)
{
	if (status != BACKEND_OK)
		log_warn("keep_alive not stored, restart authd to try again: "
			 "%s",
			backend_status_text(status));
}

void authd_apply(struct authd *auth, const struct conf_changes *changes)
{
	/* before that, the start is still to read all of it */
	if (!auth->server)
		return;
	if (conf_taken(changes, "auth_service.public_addr"))
		renew_own(auth);
	if (conf_taken(changes, "auth_service.keep_alive_"))
		config_store(
			auth, CONFIG_KEEP_ALIVE, on_keep_alive_stored, auth);
}

void authd_start(struct authd *auth)
{
	ca_load(&auth->ca_store, on_cas, auth);
}
