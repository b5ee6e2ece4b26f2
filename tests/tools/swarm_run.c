/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agents of one process. Owns them, and the loop, resolver, hub and metrics
 * that they share.
 */
#include "tests/tools/swarm.h"

#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/agent.h"
#include "agent/connect.h"
#include "agent/series.h"
#include "shared/alloc.h"
#include "shared/daemon.h"
#include "shared/identity.h"
#include "shared/log.h"
#include "shared/pki.h"
#include "shared/sock.h"

#define COUNT_MS 100
#define LIFE_S (7 * 86400)

struct swarm {
	const struct swarm_options *options;
	struct swarm_counts *counts;
	struct loop *loop;
	struct resolver *resolver;
	struct tunnel_hub *hub;
	struct metrics metrics;
	struct timer *count;
	X509 *ca;
	EVP_PKEY *ca_key;
	char *ca_pem;
	struct agent **agents;
	unsigned agent_count;
	unsigned stopped;
};

static const struct tunnel_settings settings = {
	.max_streams = 10000,
	.ping_interval_ms = 15000,
	.ping_count_max = 2,
	.stream_buffer_max = 4u << 20,
	.buffer_max = 64u << 20,
};

/* ---- certificates ---- */

static void read_ca(struct swarm *swarm)
{
	FILE *cert = fopen(swarm->options->ca, "r");
	FILE *key = fopen(swarm->options->ca_key, "r");

	if (!cert || !key)
		die("cannot read the CA's files: %m");
	swarm->ca = PEM_read_X509(cert, NULL, NULL, NULL);
	swarm->ca_key = PEM_read_PrivateKey(key, NULL, NULL, NULL);
	if (!swarm->ca || !swarm->ca_key)
		die("the CA's files are not PEM");
	swarm->ca_pem = pki_cert_to_pem(swarm->ca);
	fclose(cert);
	fclose(key);
}

static char *issue(
	struct swarm *swarm, EVP_PKEY *key, const char *uuid, const char *name)
{
	static const char *const roles[] = {"Node", NULL};
	char *cn = xasprintf("%s.%s", uuid, swarm->options->cluster);
	char *uri = xasprintf("peerway://agent/%s", name);
	const struct pki_template template = {
		.common_name = cn,
		.organizations = roles,
		.uri = uri,
		.not_before = time(NULL) - 60,
		.not_after = time(NULL) + LIFE_S,
	};
	char *error = NULL, *pem;
	X509 *cert =
		pki_issue(&template, key, swarm->ca, swarm->ca_key, &error);

	if (!cert)
		die("cannot issue a certificate: %s", error);
	pem = pki_cert_to_pem(cert);
	X509_free(cert);
	free(cn);
	free(uri);
	return pem;
}

static struct tls_identity *make_identity(
	struct swarm *swarm, const char *uuid, const char *name)
{
	EVP_PKEY *key = pki_key_new();
	char *cert_pem = issue(swarm, key, uuid, name);
	char *key_pem = pki_key_to_pem(key);
	char *error = NULL;
	struct tls_identity *identity = tls_identity_from_pem(
		cert_pem, key_pem, swarm->ca_pem, NULL, &error);

	if (!identity)
		die("own certificate: %s", error);
	free(cert_pem);
	free(key_pem);
	EVP_PKEY_free(key);
	return identity;
}

/* ---- agents ---- */

static struct registration *make_registration(
	const char *uuid, const char *name, uint16_t port)
{
	struct registration *registration = xcalloc(1, sizeof(*registration));

	snprintf(registration->agent_id, sizeof(registration->agent_id), "%s",
		uuid);
	snprintf(registration->name, sizeof(registration->name), "%s", name);
	registration->services = xcalloc(1, sizeof(registration->services[0]));
	registration->service_count = 1;
	strcpy(registration->services[0].name, "echo");
	strcpy(registration->services[0].type, "app");
	registration->services[0].port = port;
	return registration;
}

static struct agent *make_agent(struct swarm *swarm, unsigned number)
{
	const struct swarm_options *options = swarm->options;
	char uuid[37], name[IDENTITY_NAME_MAX], host[256], *error = NULL;
	struct agent_config config = {
		.loop = swarm->loop,
		.resolver = swarm->resolver,
		.hub = swarm->hub,
		.tunnel = settings,
		.place = {options->region, options->zone},
		.surplus_timeout_ms = 60000,
		.metrics = &swarm->metrics,
		.cluster = options->cluster,
		.servers = options->proxies,
		.server_count = options->proxy_count,
		.service_addrs = &options->service,
	};
	struct agent *agent;
	uint16_t port;

	snprintf(uuid, sizeof(uuid), "5aa7%04x-0000-4000-8000-%012x",
		(unsigned)options->prefix[0], number);
	snprintf(name, sizeof(name), "%s%u", options->prefix, number);
	if (sock_split(options->service, 0, host, sizeof(host), &port) < 0)
		die("--service: %s is not host:port", options->service);
	config.registration = make_registration(uuid, name, port);
	config.identity = make_identity(swarm, uuid, name);
	agent = agent_new(&config, &error);
	if (!agent)
		die("agent %s: %s", name, error);
	tls_identity_unref(config.identity);
	return agent;
}

static void on_count(void *arg)
{
	struct swarm *swarm = arg;
	struct swarm_counts *counts = swarm->counts;
	unsigned ready = 0, tunnels = 0;
	long failed = 0;

	for (unsigned i = 0; i < swarm->agent_count; i++) {
		unsigned count = agent_tunnels(swarm->agents[i]);

		ready += count > 0;
		tunnels += count;
	}
	for (int i = 0; i < CONNECT_FAILURES; i++)
		failed += metric_get(
			&swarm->metrics, SERIES_CONNECT_FAILURES + i);
	counts->agents = swarm->agent_count;
	counts->ready = ready;
	counts->tunnels = tunnels;
	counts->opened = metric_get(&swarm->metrics, SERIES_TUNNELS_OPENED);
	counts->failed = failed;
	counts->busy = metric_get(
		&swarm->metrics, SERIES_CONNECT_FAILURES + CONNECT_BUSY);
	timer_set(swarm->count, COUNT_MS);
}

static void on_stopped(void *arg)
{
	struct swarm *swarm = arg;

	if (++swarm->stopped == swarm->agent_count)
		loop_stop(swarm->loop);
}

static void on_signal(int signal, void *arg)
{
	struct swarm *swarm = arg;

	timer_clear(swarm->count);
	for (unsigned i = 0; i < swarm->agent_count; i++)
		agent_stop(swarm->agents[i], 0, on_stopped, swarm);
}

int swarm_run(const struct swarm_options *options, unsigned first,
	unsigned count, struct swarm_counts *counts)
{
	struct swarm swarm = {.options = options, .counts = counts};

	daemon_raise_fd_limit();
	swarm.loop = loop_new();
	swarm.resolver = resolver_new(swarm.loop);
	swarm.hub = tunnel_hub_new(swarm.loop, &settings);
	metrics_init(&swarm.metrics, series_table, SERIES_COUNT, 1, 0, NULL);
	swarm.count = timer_new(swarm.loop, on_count, &swarm);
	read_ca(&swarm);
	swarm.agents = xcalloc(count, sizeof(struct agent *));
	for (unsigned i = 0; i < count; i++)
		swarm.agents[swarm.agent_count++] =
			make_agent(&swarm, first + i);
	loop_on_signal(swarm.loop, SIGTERM, on_signal, &swarm);
	timer_set(swarm.count, 0);
	loop_run(swarm.loop);

	for (unsigned i = 0; i < count; i++)
		agent_free(swarm.agents[i]);
	free(swarm.agents);
	timer_free(swarm.count);
	loop_turn(swarm.loop, false);
	tunnel_hub_free(swarm.hub);
	resolver_free(swarm.resolver);
	metrics_deinit(&swarm.metrics);
	X509_free(swarm.ca);
	EVP_PKEY_free(swarm.ca_key);
	free(swarm.ca_pem);
	loop_free(swarm.loop);
	return 0;
}
