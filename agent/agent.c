/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's identity over time, and what hangs on it. Talks to join.h and
 * keystore.h for the certificate, gives the pool a TLS context made of it.
 *
 * What one gets wrong: a new certificate does not touch tunnels that stand.
 * They were authenticated when they were opened.
 */
#include "agent/agent.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/join.h"
#include "agent/keystore.h"
#include "agent/series.h"
#include "agent/trust.h"
#include "shared/alloc.h"
#include "shared/backoff.h"
#include "shared/log.h"

#define JOIN_STEP_MS 2000
#define JOIN_MAX_MS 60000
/* A clock may be set: the certificate's age is looked at so often. */
#define RENEW_LOOK_MS (60 * 60 * 1000)
/* At least, when the CA is another: not all agents of a proxy at once. */
#define SPREAD_MS 1000
#define CA_REST_MS 30000
/* Between two renewals, should our clock be far ahead of authd's. */
#define RENEW_REST_MS (10 * 60 * 1000)

struct agent {
	struct loop *loop;
	struct resolver *resolver;
	struct tunnel_hub *hub;
	struct tunnel_settings tunnel;
	struct metrics *metrics;
	char *cluster;
	char **servers;
	size_t server_count;
	struct registration *registration;
	char agent_id[37];  /* of the certificate, as the pool has it */
	char *announcement; /* registration as JSON */
	char *directory;    /* NULL: the identity is not ours to renew */
	char *token_file;
	char *ca_pin;

	struct tls_identity *identity; /* NULL: not joined yet */
	struct serve *serve;
	struct pool *pool; /* NULL: no identity yet */

	/* what is pending; NULL = not pending */
	struct join *join;
	struct timer *timer; /* the next join, renewal or look at the clock */
	struct backoff backoff;
	unsigned turn; /* which server is asked next */

	struct discovery *cas; /* what was last said of the CAs; the rest: 0 */
	bool withdrawn;	       /* ours was issued by one that is gone */
};

static void set_timer(struct agent *agent, int64_t rest_ms);

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

/* Milliseconds until two thirds of the certificate's life are over. */
static int64_t renewal_due_ms(const struct tls_identity *identity)
{
	int64_t now = time(NULL);
	int64_t end = tls_identity_not_after(identity);
	struct tm tm;
	int64_t begin;

	if (ASN1_TIME_to_tm(X509_get0_notBefore(identity->leaf), &tm) != 1)
		return 0;
	begin = timegm(&tm);
	return (begin + (end - begin) * 2 / 3 - now) * 1000;
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

static void on_discovery(void *arg, const struct discovery *discovery);

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
static int load(struct agent *agent, char **error_out)
{
	struct tls_identity *identity =
		tls_identity_load(agent->directory, error_out);
	int ret;

	if (!identity)
		return -1;
	ret = use_identity(agent, identity, error_out);
	tls_identity_unref(identity);
	return ret;
}

/* ---- the CAs ---- */

/* A number below the limit. */
static uint32_t chance(uint32_t limit)
{
	uint32_t bits = 0;

	RAND_bytes((unsigned char *)&bits, sizeof(bits));
	return bits % limit;
}

static bool wants_renewal(const struct agent *agent)
{
	return renewal_due_ms(agent->identity) <= 0 ||
	       !trust_is_active(agent->cas->host_ca_id, agent->identity);
}

static void say_withdrawn(struct agent *agent)
{
	if (!agent->withdrawn)
		log_error("the certificate was issued by a CA that has been "
			  "withdrawn: remove %s and join again with a new "
			  "token",
			agent->directory);
	agent->withdrawn = true;
}

/* Writes other CAs beside the certificate there is, and uses them. */
static void trust_other(struct agent *agent, const char *host_ca)
{
	char *error = NULL;

	if (keystore_save_cas(agent->directory, host_ca, &error) == 0 &&
		load(agent, &error) == 0)
		log_info("trusted CAs are others now: host=%d",
			sk_X509_num(agent->identity->host_ca));
	else
		log_error("trusted CAs stay as they were: %s", error);
	free(error);
}

/* Acts on the last word of the CAs; again after a renewal, whose answer may be
 * older. */
static void follow_cas(struct agent *agent)
{
	char *host_ca = NULL;
	enum trust_step step =
		trust_next(agent->cas, agent->identity, &host_ca);

	if (step == TRUST_WITHDRAWN)
		say_withdrawn(agent);
	else if (step == TRUST_REFUSED)
		log_warn("trusted CAs stay as they were: what the proxy names "
			 "cannot be read");
	else if (step == TRUST_OTHER)
		trust_other(agent, host_ca);
	free(host_ca);
}

/* Takes a copy of what is said of CAs; true when it is anything new. */
static bool hear_cas(struct agent *agent, const struct discovery *discovery)
{
	struct discovery *cas = agent->cas;

	if (!discovery->host_ca ||
		(cas->host_ca && !strcmp(cas->host_ca, discovery->host_ca) &&
			!strcmp(cas->host_ca_id, discovery->host_ca_id)))
		return false;
	free(cas->host_ca);
	cas->host_ca = xstrdup(discovery->host_ca);
	strcpy(cas->host_ca_id, discovery->host_ca_id);
	cas->renew_spread_ms = discovery->renew_spread_ms;
	return true;
}

static void on_discovery(void *arg, const struct discovery *discovery)
{
	struct agent *agent = arg;

	/* Own files: whom to trust is then their keeper's business. */
	if (!agent->directory || !hear_cas(agent, discovery))
		return;
	follow_cas(agent);
	if (!trust_is_active(agent->cas->host_ca_id, agent->identity))
		timer_set(agent->timer,
			chance(SPREAD_MS + agent->cas->renew_spread_ms));
}

/* ---- joining, renewing ---- */

static void try_later(struct agent *agent)
{
	uint32_t bits = 0;

	RAND_bytes((unsigned char *)&bits, sizeof(bits));
	timer_set(agent->timer, backoff_failed(&agent->backoff, bits));
}

static void on_joined(void *arg, enum join_outcome outcome, const char *why)
{
	struct agent *agent = arg;
	bool renewal = agent->identity != NULL;
	char *error = NULL;

	agent->join = NULL;
	if (outcome == JOIN_DONE && load(agent, &error) == 0) {
		agent->withdrawn = false;

		log_info(
			renewal ? "certificate renewed" : "joined the cluster");
		backoff_succeeded(&agent->backoff);
		set_timer(agent, RENEW_REST_MS);
		if (renewal)
			follow_cas(agent);
		/* rotated on meanwhile, or a proxy's word is an old one */
		if (!trust_is_active(agent->cas->host_ca_id, agent->identity))
			timer_set(agent->timer, CA_REST_MS);
		return;
	}
	log_at(outcome == JOIN_REFUSED ? LOG_ERROR : LOG_WARN, "cannot %s: %s",
		renewal ? "renew the certificate" : "join", why ? why : error);
	free(error);
	try_later(agent);
}

/* The context for asking: by pin, or with the certificate there is. */
static SSL_CTX *ask_ctx(
	const struct agent *agent, bool renewal, char **error_out)
{
	return renewal ? tls_client_ctx(agent->identity, error_out)
		       : tls_pin_ctx(agent->ca_pin, error_out);
}

static bool has_expired(const struct tls_identity *identity)
{
	return tls_identity_not_after(identity) <= time(NULL);
}

static void ask(struct agent *agent)
{
	/* An expired certificate opens no door: that takes a token again. */
	bool renewal = agent->identity && !has_expired(agent->identity);
	struct join_request request = {
		.directory = agent->directory,
		.host_uuid = agent->registration->agent_id,
		.name = agent->registration->name,
		.token_file = agent->token_file,
		.ca_pin = agent->ca_pin,
		.old = renewal ? agent->identity : NULL,
	};
	char *error = NULL;

	request.to.addrs =
		(const char *const *)&agent
			->servers[agent->turn++ % agent->server_count];
	request.to.addr_count = 1;
	request.to.default_port = 3080;
	request.to.cluster = agent->cluster;
	request.to.random = agent->turn;
	request.to.ctx = ask_ctx(agent, renewal, &error);
	if (!request.to.ctx) {
		log_error("cannot %s: %s", renewal ? "renew" : "join", error);
		free(error);
		try_later(agent);
		return;
	}
	agent->join = join_new(
		agent->loop, agent->resolver, &request, on_joined, agent);
	SSL_CTX_free(request.to.ctx);
}

static void on_timer(void *arg)
{
	struct agent *agent = arg;

	if (agent->join)
		return; /* its end sets the timer */
	if (agent->identity && !wants_renewal(agent))
		set_timer(agent, 0);
	else
		ask(agent);
}

/* When to ask for a certificate, or to look at the clock again; not before
 * rest_ms. */
static void set_timer(struct agent *agent, int64_t rest_ms)
{
	int64_t due;

	if (!agent->directory)
		return;
	due = agent->identity ? renewal_due_ms(agent->identity) : 0;
	if (due > RENEW_LOOK_MS)
		due = RENEW_LOOK_MS;
	timer_set(agent->timer, due > rest_ms ? due : rest_ms);
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

static struct agent *copy_config(const struct agent_config *config)
{
	struct agent *agent = xcalloc(1, sizeof(*agent));

	*agent = (struct agent){
		.loop = config->loop,
		.resolver = config->resolver,
		.hub = config->hub,
		.tunnel = config->tunnel,
		.metrics = config->metrics,
		.cluster = xstrdup(config->cluster),
		.servers = copy_texts(config->servers, config->server_count),
		.server_count = config->server_count,
		.registration = config->registration,
		.backoff = {JOIN_STEP_MS, JOIN_MAX_MS, 0},
		.cas = xcalloc(1, sizeof(struct discovery)),
	};
	if (!config->identity) {
		agent->directory = xstrdup(config->directory);
		agent->token_file =
			xstrdup(config->token_file ? config->token_file : "");
		agent->ca_pin = xstrdup(config->ca_pin ? config->ca_pin : "");
	}
	return agent;
}

struct agent *agent_new(const struct agent_config *config, char **error_out)
{
	struct agent *agent = copy_config(config);
	struct tls_identity *identity = NULL;

	agent->serve = serve_new(config->loop, config->resolver,
		agent->registration, config->service_addrs, config->metrics);
	agent->timer = timer_new(config->loop, on_timer, agent);
	if (first_identity(config, &identity, error_out) < 0)
		goto fail;
	if (identity && use_identity(agent, identity, error_out) < 0)
		goto fail;
	tls_identity_unref(identity);
	set_timer(agent, 0);
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

void agent_stop(struct agent *agent, uint32_t linger_ms, void (*fn)(void *arg),
	void *arg)
{
	timer_clear(agent->timer);
	join_free(agent->join);
	agent->join = NULL;
	if (agent->pool)
		pool_stop(agent->pool, linger_ms, fn, arg);
	else
		fn(arg);
}

void agent_free(struct agent *agent)
{
	if (!agent)
		return;
	join_free(agent->join);
	timer_free(agent->timer);
	pool_free(agent->pool);
	serve_free(agent->serve);
	tls_identity_unref(agent->identity);
	free_texts(agent->servers, agent->server_count);
	discovery_free(agent->cas);
	free(agent->cluster);
	registration_free(agent->registration);
	free(agent->announcement);
	free(agent->directory);
	free(agent->token_file);
	free(agent->ca_pin);
	loop_free_later(agent->loop, free, agent);
}

char *agent_missing(const struct agent *agent)
{
	if (!agent->identity)
		return xstrdup("certificate: not joined yet\n");
	if (has_expired(agent->identity))
		return xstrdup("certificate: expired\n");
	if (!pool_ready(agent->pool))
		return xstrdup("tunnel: none stands\n");
	return NULL;
}
