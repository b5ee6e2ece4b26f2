/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's identity, and what hangs on it. membership.h gets the certificate
 * and renews it; the pool is given a TLS context made of it.
 *
 * What one gets wrong: a new certificate does not touch tunnels that stand.
 * They were authenticated when they were opened.
 */
#include "agent/agent.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/candidates.h"
#include "agent/keystore.h"
#include "agent/membership.h"
#include "agent/outage.h"
#include "agent/series.h"
#include "shared/alloc.h"
#include "shared/log.h"

struct agent {
	struct loop *loop;
	struct resolver *resolver;
	struct tunnel_hub *hub;
	struct tunnel_settings tunnel;
	char *region;
	char *zone;
	uint32_t surplus_timeout_ms;
	struct metrics *metrics;
	char *cluster;
	char **servers;
	size_t server_count;
	uint32_t reconnect_max_ms;
	const struct https_proxy *https_proxy;
	struct registration *registration;
	char agent_id[37];  /* of the certificate, as the pool has it */
	char *announcement; /* registration as JSON */
	char *directory;    /* NULL: the identity is not ours to renew */
	char *token_file;
	char *ca_pin;

	struct tls_identity *identity; /* NULL: not joined yet */
	struct serve *serve;
	struct pool *pool; /* NULL: no identity yet */
	struct outage *outage;
	struct membership *membership; /* NULL: not ours to renew */
};

static char **copy_texts(const char *const *texts, size_t count)
{
	char **copy = xcalloc(count + 1, sizeof(char *));

	for (size_t i = 0; i < count; i++)
		copy[i] = xstrdup(texts[i]);
	return copy;
}

static void free_texts(char **texts, size_t count)
{
	for (size_t i = 0; texts && i < count; i++)
		free(texts[i]);
	free(texts);
}

/* The name and uuid that the certificate proves are what is announced. */
static int adopt_identity(struct agent *agent,
	const struct tls_identity *identity, char **error_out)
{
	struct registration *registration = agent->registration;
	struct host_identity host;
	const char *why;

	if (identity_of_host(identity->leaf, agent->cluster, &host, &why) < 0) {
		*error_out = xasprintf("own certificate: %s", why);
		return -1;
	}
	if (!(host.roles & IDENTITY_NODE)) {
		*error_out = xstrdup("own certificate: role is not Node");
		return -1;
	}
	strcpy(registration->agent_id, host.uuid);
	if (host.agent_name[0] &&
		strcmp(host.agent_name, registration->name) != 0) {
		log_warn("agent_service.name is %s, but the certificate was "
			 "issued for %s, which is used: to change it, join "
			 "again with a new token",
			registration->name, host.agent_name);
		strcpy(registration->name, host.agent_name);
	}
	return 0;
}

static void on_discovery(void *arg, const struct discovery *discovery)
{
	struct agent *agent = arg;

	/* Own files: whom to trust is then their keeper's business. */
	if (agent->membership)
		membership_hear(agent->membership, discovery);
}

static void start_pool(struct agent *agent)
{
	struct pool_config config = {
		.loop = agent->loop,
		.resolver = agent->resolver,
		.hub = agent->hub,
		.serve = agent->serve,
		.metrics = agent->metrics,
		.cluster = agent->cluster,
		.agent_id = agent->agent_id,
		.servers = (const char *const *)agent->servers,
		.server_count = agent->server_count,
		.reconnect_max_ms = agent->reconnect_max_ms,
		.place = {agent->region, agent->zone},
		.surplus_timeout_ms = agent->surplus_timeout_ms,
		.https_proxy = agent->https_proxy,
		.outage = agent->outage,
		.tunnel = agent->tunnel,
		.on_discovery = on_discovery,
		.arg = agent,
	};

	strcpy(agent->agent_id, agent->registration->agent_id);
	agent->announcement = registration_to_json(agent->registration);
	config.registration = agent->announcement;
	agent->pool = pool_new(&config);
}

/* Takes a reference to identity and puts it to use. */
static int use_identity(
	struct agent *agent, struct tls_identity *identity, char **error_out)
{
	SSL_CTX *ctx;

	/* Once announced, a name stays. */
	if (!agent->pool && adopt_identity(agent, identity, error_out) < 0)
		return -1;
	ctx = tls_client_ctx(identity, error_out);
	if (!ctx)
		return -1;
	if (!agent->pool)
		start_pool(agent);
	pool_set_ctx(agent->pool, ctx);
	SSL_CTX_free(ctx);
	tls_identity_unref(agent->identity);
	agent->identity = tls_identity_ref(identity);
	metric_set(agent->metrics, SERIES_NOT_AFTER,
		tls_identity_not_after(identity));
	return 0;
}

/* What is in the keystore, into use. */
static int load(void *arg, char **error_out)
{
	struct agent *agent = arg;
	struct tls_identity *identity =
		tls_identity_load(agent->directory, error_out);
	int ret;

	if (!identity)
		return -1;
	ret = use_identity(agent, identity, error_out);
	tls_identity_unref(identity);
	return ret;
}

/* The identity there is at the start, if any; gives. */
static int first_identity(const struct agent_config *config,
	struct tls_identity **identity_out, char **error_out)
{
	*identity_out = NULL;
	if (config->identity) {
		*identity_out = tls_identity_ref(config->identity);
		return 0;
	}
	if (keystore_has_certificate(config->directory)) {
		*identity_out = tls_identity_load(config->directory, error_out);
		return *identity_out ? 0 : -1;
	}
	if (config->token_file && *config->token_file && config->ca_pin &&
		*config->ca_pin)
		return 0;
	*error_out = xstrdup("no certificate yet, and no way to get one: set "
			     "join.token_file and join.ca_pin, or identity");
	return -1;
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static struct agent *copy_config(const struct agent_config *config)
{
	struct agent *agent = xcalloc(1, sizeof(*agent));

	*agent = (struct agent){
		.loop = config->loop,
		.resolver = config->resolver,
		.hub = config->hub,
		.tunnel = config->tunnel,
		.region = xstrdup(or_empty(config->place.region)),
		.zone = xstrdup(or_empty(config->place.zone)),
		.surplus_timeout_ms = config->surplus_timeout_ms,
		.metrics = config->metrics,
		.cluster = xstrdup(config->cluster),
		.servers = copy_texts(config->servers, config->server_count),
		.server_count = config->server_count,
		.reconnect_max_ms = config->reconnect_max_ms
					    ? config->reconnect_max_ms
					    : CANDIDATES_MAX_MS,
		.https_proxy = config->https_proxy,
		.registration = config->registration,
		.outage = outage_new(),
	};
	if (!config->identity) {
		agent->directory = xstrdup(config->directory);
		agent->token_file = xstrdup(or_empty(config->token_file));
		agent->ca_pin = xstrdup(or_empty(config->ca_pin));
	}
	return agent;
}

static struct tls_identity *identity_of(void *arg)
{
	const struct agent *agent = arg;

	return agent->identity;
}

static const struct registration *registration_of(void *arg)
{
	const struct agent *agent = arg;

	return agent->registration;
}

static struct membership *make_membership(struct agent *agent)
{
	return membership_new(&(struct membership_config){
		.loop = agent->loop,
		.resolver = agent->resolver,
		.outage = agent->outage,
		.cluster = agent->cluster,
		.servers = (const char *const *)agent->servers,
		.server_count = agent->server_count,
		.https_proxy = agent->https_proxy,
		.reconnect_max_ms = agent->reconnect_max_ms,
		.directory = agent->directory,
		.token_file = agent->token_file,
		.ca_pin = agent->ca_pin,
		.identity = identity_of,
		.registration = registration_of,
		.load = load,
		.arg = agent,
	});
}

struct agent *agent_new(const struct agent_config *config, char **error_out)
{
	struct agent *agent = copy_config(config);
	struct tls_identity *identity = NULL;

	agent->serve = serve_new(config->loop, config->resolver,
		agent->registration, config->service_addrs, config->metrics);
	if (agent->directory)
		agent->membership = make_membership(agent);
	outage_begin(agent->outage, loop_now(config->loop));
	if (first_identity(config, &identity, error_out) < 0)
		goto fail;
	if (identity && use_identity(agent, identity, error_out) < 0)
		goto fail;
	tls_identity_unref(identity);
	if (agent->membership)
		membership_start(agent->membership);
	return agent;

fail:
	tls_identity_unref(identity);
	agent_free(agent);
	return NULL;
}

bool agent_announce(struct agent *agent, struct registration *registration,
	const char *const *service_addrs)
{
	char *old = agent->announcement;

	strcpy(registration->agent_id, agent->registration->agent_id);
	strcpy(registration->name, agent->registration->name);
	registration_free(agent->registration);
	agent->registration = registration;
	serve_change(agent->serve, registration, service_addrs);
	if (!agent->pool)
		return false; /* announced when there is a certificate */
	agent->announcement = registration_to_json(registration);
	if (strcmp(old, agent->announcement) == 0) {
		free(agent->announcement);
		agent->announcement = old;
		return false;
	}
	pool_announce(agent->pool, agent->announcement);
	free(old);
	return true;
}

void agent_set_limits(struct agent *agent, const struct agent_limits *limits)
{
	char *token_file = agent->token_file;
	char *ca_pin = agent->ca_pin;

	agent->reconnect_max_ms = limits->reconnect_max_ms;
	agent->surplus_timeout_ms = limits->surplus_timeout_ms;
	if (agent->pool)
		pool_set_limits(agent->pool, agent->reconnect_max_ms,
			agent->surplus_timeout_ms);
	if (!agent->membership)
		return;
	agent->token_file = xstrdup(limits->token_file);
	agent->ca_pin = xstrdup(limits->ca_pin);
	membership_set_join(agent->membership, agent->reconnect_max_ms,
		agent->token_file, agent->ca_pin);
	free(token_file);
	free(ca_pin);
}

int agent_replace_identity(
	struct agent *agent, struct tls_identity *identity, char **error_out)
{
	struct host_identity host;
	const char *why;

	if (identity_of_host(identity->leaf, agent->cluster, &host, &why) < 0 ||
		strcmp(host.uuid, agent->agent_id)) {
		*error_out = xstrdup("the certificate is not this agent's");
		return -1;
	}
	return use_identity(agent, identity, error_out);
}

void agent_reconnect(struct agent *agent)
{
	if (agent->pool)
		pool_reconnect(agent->pool);
	else
		resolver_forget(agent->resolver);
	if (agent->membership)
		membership_reconnect(agent->membership);
}

void agent_stop(struct agent *agent, uint32_t linger_ms, void (*fn)(void *arg),
	void *arg)
{
	if (agent->membership)
		membership_stop(agent->membership);
	if (agent->pool)
		pool_stop(agent->pool, linger_ms, fn, arg);
	else
		fn(arg);
}

void agent_free(struct agent *agent)
{
	if (!agent)
		return;
	membership_free(agent->membership);
	pool_free(agent->pool);
	outage_free(agent->outage);
	serve_free(agent->serve);
	tls_identity_unref(agent->identity);
	free_texts(agent->servers, agent->server_count);
	free(agent->cluster);
	free(agent->region);
	free(agent->zone);
	registration_free(agent->registration);
	free(agent->announcement);
	free(agent->directory);
	free(agent->token_file);
	free(agent->ca_pin);
	loop_free_later(agent->loop, free, agent);
}

unsigned agent_tunnels(const struct agent *agent)
{
	return agent->pool ? pool_ready(agent->pool) : 0;
}

static char *missing(const struct agent *agent, const char *what)
{
	char *why = outage_text(agent->outage, loop_now(agent->loop));
	char *text =
		xasprintf("%s%s%s\n", what, why ? ": " : "", why ? why : "");

	free(why);
	return text;
}

char *agent_missing(const struct agent *agent)
{
	if (!agent->identity)
		return missing(agent, "certificate: not joined yet");
	if (tls_identity_not_after(agent->identity) <= time(NULL))
		return xstrdup("certificate: expired\n");
	if (!pool_ready(agent->pool))
		return missing(agent, "tunnel: none stands");
	return NULL;
}
