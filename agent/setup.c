/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From configuration to registration. conf_load() has checked every name and
 * address; what is cut here was too long for that.
 */
#include "agent/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/https_proxy.h"
#include "shared/log.h"
#include "shared/sock.h"

/* Until a proxy has said what the cluster wants. */
#define PING_INTERVAL_MS 15000
#define PING_COUNT_MAX 2
/* Bytes held for services that do not read. */
#define STREAM_BUFFER_MAX (4u << 20)
#define BUFFER_MAX (64u << 20)

static void set_labels(
	struct registration *registration, const struct conf_agent *conf)
{
	registration->labels = xcalloc(
		conf->labels_count + 1, sizeof(registration->labels[0]));
	registration->label_count = conf->labels_count;
	for (unsigned i = 0; i < conf->labels_count; i++) {
		struct registration_label *label = &registration->labels[i];

		snprintf(label->name, sizeof(label->name), "%s",
			conf->labels[i].name);
		snprintf(label->value, sizeof(label->value), "%s",
			conf->labels[i].value);
	}
}

static void set_services(
	struct registration *registration, const struct conf_agent *conf)
{
	registration->services = xcalloc(
		conf->services_count + 1, sizeof(registration->services[0]));
	registration->service_count = conf->services_count;
	for (unsigned i = 0; i < conf->services_count; i++) {
		struct registration_service *service =
			&registration->services[i];
		char host[256];

		snprintf(service->name, sizeof(service->name), "%s",
			conf->services[i].name);
		snprintf(service->type, sizeof(service->type), "%s",
			conf->services[i].type);
		if (sock_split(conf->services[i].addr, 0, host, sizeof(host),
			    &service->port) < 0)
			service->port = 0;
	}
}

struct registration *setup_registration(
	const struct conf_agent *conf, const char *agent_id)
{
	struct registration *registration = xcalloc(1, sizeof(*registration));

	snprintf(registration->agent_id, sizeof(registration->agent_id), "%s",
		agent_id);
	snprintf(registration->name, sizeof(registration->name), "%s",
		conf->name);
	set_labels(registration, conf);
	set_services(registration, conf);
	return registration;
}

const char **setup_addrs(const struct conf_agent *conf)
{
	const char **addrs = xcalloc(conf->services_count + 1, sizeof(char *));

	for (unsigned i = 0; i < conf->services_count; i++)
		addrs[i] = conf->services[i].addr;
	return addrs;
}

int setup_own_identity(const struct conf *conf,
	struct tls_identity **identity_out, char **error_out)
{
	*identity_out = NULL;
	if (!*conf->identity.cert)
		return 0;
	*identity_out = tls_identity_load_files(conf->identity.cert,
		conf->identity.key, conf->identity.ca, NULL, error_out);
	return *identity_out ? 0 : -1;
}

static struct agent *new_agent(const struct conf *conf,
	struct agent_config *config, const char *uuid, char **error_out)
{
	char *directory = xasprintf("%s/agent", conf->data_dir);
	const char **addrs = setup_addrs(&conf->agent);
	struct agent *agent;

	config->resolver = resolver_new(config->loop);
	config->hub = tunnel_hub_new(config->loop, &config->tunnel);
	config->registration = setup_registration(&conf->agent, uuid);
	config->service_addrs = addrs;
	config->directory = directory;
	agent = agent_new(config, error_out);
	free(addrs);
	free(directory);
	return agent;
}

/* The first that is set and not empty; NULL: none. */
static const char *environment(const char *upper, const char *lower)
{
	const char *value = getenv(upper);

	if (!value || !*value)
		value = getenv(lower);
	return value && *value ? value : NULL;
}

/* The HTTP proxy to go through, as long as the process lives; NULL: none. */
static int make_https_proxy(const struct conf_agent *conf,
	const struct https_proxy **proxy_out, char **error_out)
{
	const char *url = *conf->https_proxy
				  ? conf->https_proxy
				  : environment("HTTPS_PROXY", "https_proxy");
	const char *what = url ? https_proxy_check(url) : NULL;

	*proxy_out = NULL;
	if (what) {
		*error_out =
			xasprintf("HTTPS_PROXY in the environment: %s", what);
		return -1;
	}
	if (!url)
		return 0;
	*proxy_out = https_proxy_new(url, environment("NO_PROXY", "no_proxy"));
	log_info("proxies are reached through the HTTP proxy %s",
		https_proxy_addr(*proxy_out));
	return 0;
}

struct agent *setup_agent(const struct conf *conf, struct loop *loop,
	struct metrics *metrics, char **error_out)
{
	struct agent_config config = {
		.loop = loop,
		.tunnel = {conf->agent.max_streams, PING_INTERVAL_MS,
			PING_COUNT_MAX, STREAM_BUFFER_MAX, BUFFER_MAX},
		.place = {conf->agent.region, conf->agent.zone},
		.surplus_timeout_ms = conf->agent.surplus_timeout,
		.metrics = metrics,
		.cluster = conf->cluster_name,
		.servers = (const char *const *)conf->agent.proxy_server,
		.server_count = conf->agent.proxy_server_count,
		.reconnect_max_ms = conf->agent.reconnect_max_interval,
		.token_file = conf->join.token_file,
		.ca_pin = conf->join.ca_pin,
	};
	char uuid[CONF_UUID_SIZE];
	struct agent *agent;
	int ret = conf_host_uuid(conf, uuid);

	if (ret < 0) {
		*error_out = xasprintf("the host's uuid cannot be kept in %s: "
				       "%s",
			conf->data_dir, strerror(-ret));
		return NULL;
	}
	if (make_https_proxy(&conf->agent, &config.https_proxy, error_out) < 0)
		return NULL;
	if (setup_own_identity(conf, &config.identity, error_out) < 0)
		return NULL;
	agent = new_agent(conf, &config, uuid, error_out);
	tls_identity_unref(config.identity);
	return agent;
}
