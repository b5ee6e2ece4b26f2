/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership. Talks to join.h for a certificate, to keystore.h for the CAs;
 * owns the timer of the next join, renewal or look at the clock.
 *
 * What one gets wrong: what a proxy says of the CAs may be older than what the
 * last renewal brought, so that both are followed again after each other; and
 * that a renewal whose answer was lost has been done for authd, which waits for
 * the new certificate to be used.
 */
#include "agent/membership.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/join.h"
#include "agent/keystore.h"
#include "agent/outage.h"
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

struct membership {
	struct membership_config config;

	/* what is pending; NULL = not pending */
	struct join *join;
	struct timer *timer; /* the next join, renewal or look at the clock */
	struct backoff backoff;
	unsigned turn; /* which server is asked next */

	struct discovery *cas; /* what was last said of the CAs; the rest: 0 */
	bool withdrawn;	       /* ours was issued by one that is gone */
	bool unsure;	       /* the answer to a renewal was lost: ask again */
};

static struct tls_identity *identity_of(const struct membership *membership)
{
	return membership->config.identity(membership->config.arg);
}

static int load(const struct membership *membership, char **error_out)
{
	return membership->config.load(membership->config.arg, error_out);
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

static void set_timer(struct membership *membership, int64_t rest_ms);

/* ---- the CAs ---- */

/* A number below the limit. */
static uint32_t chance(uint32_t limit)
{
	uint32_t bits = 0;

	RAND_bytes((unsigned char *)&bits, sizeof(bits));
	return bits % limit;
}

static bool wants_renewal(const struct membership *membership)
{
	return membership->unsure ||
	       renewal_due_ms(identity_of(membership)) <= 0 ||
	       !trust_is_active(
		       membership->cas->host_ca_id, identity_of(membership));
}

static void say_withdrawn(struct membership *membership)
{
	if (!membership->withdrawn)
		log_error("the certificate was issued by a CA that has been "
			  "withdrawn: remove %s and join again with a new "
			  "token",
			membership->config.directory);
	membership->withdrawn = true;
}

/* Writes other CAs beside the certificate there is, and uses them. */
static void trust_other(struct membership *membership, const char *host_ca)
{
	char *error = NULL;

	if (keystore_save_cas(membership->config.directory, host_ca, &error) ==
			0 &&
		load(membership, &error) == 0)
		log_info("trusted CAs are others now: host=%d",
			sk_X509_num(identity_of(membership)->host_ca));
	else
		log_error("trusted CAs stay as they were: %s", error);
	free(error);
}

/* Acts on the last word of the CAs; again after a renewal, whose answer may be
 * older. */
static void follow_cas(struct membership *membership)
{
	char *host_ca = NULL;
	enum trust_step step =
		trust_next(membership->cas, identity_of(membership), &host_ca);

	if (step == TRUST_WITHDRAWN)
		say_withdrawn(membership);
	else if (step == TRUST_REFUSED)
		log_warn("trusted CAs stay as they were: what the proxy names "
			 "cannot be read");
	else if (step == TRUST_OTHER)
		trust_other(membership, host_ca);
	free(host_ca);
}

/* Takes a copy of what is said of CAs; true when it is anything new. */
static bool hear_cas(
	struct membership *membership, const struct discovery *discovery)
{
	struct discovery *cas = membership->cas;

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

/* ---- joining, renewing ---- */

/* Whoever was reached and said no is asked less and less often; whoever was not
 * is used soon after he is back. Returns the wait in ms. */
static int64_t try_later(struct membership *membership, bool unreached)
{
	uint32_t bits = 0, wait;

	RAND_bytes((unsigned char *)&bits, sizeof(bits));
	membership->backoff.max_ms =
		unreached ? membership->config.reconnect_max_ms : JOIN_MAX_MS;
	wait = backoff_failed(&membership->backoff, bits);
	timer_set(membership->timer, wait);
	return wait;
}

/* Before there is a certificate, joining is all there is. */
static void join_unreached(struct membership *membership, const char *why)
{
	int64_t now = loop_now(membership->config.loop);
	size_t asked = (membership->turn - 1) % membership->config.server_count;
	char *line;

	outage_failed(membership->config.outage,
		membership->config.servers[asked], why, false, now,
		now + try_later(membership, true));
	line = outage_say(membership->config.outage,
		membership->backoff.failures >= membership->config.server_count,
		now);
	if (line)
		log_warn("cannot join: %s", line);
	else
		log_debug("cannot join: %s", why);
	free(line);
}

static void on_joined(void *arg, enum join_outcome outcome, const char *why)
{
	struct membership *membership = arg;
	bool renewal = identity_of(membership) != NULL;
	char *error = NULL;

	membership->join = NULL;
	if (outcome == JOIN_DONE && load(membership, &error) == 0) {
		membership->withdrawn = false;
		membership->unsure = false;
		log_info(
			renewal ? "certificate renewed" : "joined the cluster");
		backoff_succeeded(&membership->backoff);
		set_timer(membership, RENEW_REST_MS);
		if (renewal)
			follow_cas(membership);
		/* rotated on meanwhile, or a proxy's word is an old one */
		if (!trust_is_active(membership->cas->host_ca_id,
			    identity_of(membership)))
			timer_set(membership->timer, CA_REST_MS);
		return;
	}
	if (outcome == JOIN_UNREACHED && !renewal) {
		join_unreached(membership, why);
		return;
	}
	log_at(outcome == JOIN_REFUSED ? LOG_ERROR : LOG_WARN, "cannot %s: %s",
		renewal ? "renew the certificate" : "join", why ? why : error);
	free(error);
	if (outcome == JOIN_REFUSED)
		membership->unsure = false;
	else if (renewal && outcome != JOIN_UNREACHED)
		membership->unsure = true;
	try_later(membership, false); /* a renewal has time */
}

/* The context for asking: by pin, or with the certificate there is. */
static SSL_CTX *ask_ctx(
	const struct membership *membership, bool renewal, char **error_out)
{
	return renewal ? tls_client_ctx(identity_of(membership), error_out)
		       : tls_pin_ctx(membership->config.ca_pin, error_out);
}

static bool has_expired(const struct tls_identity *identity)
{
	return tls_identity_not_after(identity) <= time(NULL);
}

static void ask(struct membership *membership)
{
	/* An expired certificate opens no door: that takes a token again. */
	bool renewal = identity_of(membership) &&
		       !has_expired(identity_of(membership));
	const struct registration *registration =
		membership->config.registration(membership->config.arg);
	struct join_request request = {
		.directory = membership->config.directory,
		.host_uuid = registration->agent_id,
		.name = registration->name,
		.token_file = membership->config.token_file,
		.ca_pin = membership->config.ca_pin,
		.old = renewal ? identity_of(membership) : NULL,
	};
	char *error = NULL;

	request.to.addrs =
		&membership->config.servers[membership->turn++ %
					    membership->config.server_count];
	request.to.addr_count = 1;
	request.to.default_port = 3080;
	request.to.cluster = membership->config.cluster;
	request.to.https_proxy = membership->config.https_proxy;
	request.to.random = membership->turn;
	request.to.ctx = ask_ctx(membership, renewal, &error);
	if (!request.to.ctx) {
		log_error("cannot %s: %s", renewal ? "renew" : "join", error);
		free(error);
		try_later(membership, false);
		return;
	}
	membership->join = join_new(membership->config.loop,
		membership->config.resolver, &request, on_joined, membership);
	SSL_CTX_free(request.to.ctx);
}

static void on_timer(void *arg)
{
	struct membership *membership = arg;

	if (membership->join)
		return; /* its end sets the timer */
	if (identity_of(membership) && !wants_renewal(membership))
		set_timer(membership, 0);
	else
		ask(membership);
}

/* When to ask for a certificate, or to look at the clock again; not before
 * rest_ms. */
static void set_timer(struct membership *membership, int64_t rest_ms)
{
	const struct tls_identity *identity = identity_of(membership);
	int64_t due = identity ? renewal_due_ms(identity) : 0;

	if (due > RENEW_LOOK_MS)
		due = RENEW_LOOK_MS;
	timer_set(membership->timer, due > rest_ms ? due : rest_ms);
}

struct membership *membership_new(const struct membership_config *config)
{
	struct membership *membership = xcalloc(1, sizeof(*membership));

	membership->config = *config;
	membership->backoff = (struct backoff){JOIN_STEP_MS, JOIN_MAX_MS, 0};
	membership->cas = xcalloc(1, sizeof(struct discovery));
	membership->timer = timer_new(config->loop, on_timer, membership);
	return membership;
}

void membership_free(struct membership *membership)
{
	if (!membership)
		return;
	join_free(membership->join);
	timer_free(membership->timer);
	discovery_free(membership->cas);
	loop_free_later(membership->config.loop, free, membership);
}

void membership_set_join(struct membership *membership,
	uint32_t reconnect_max_ms, const char *token_file, const char *ca_pin)
{
	membership->config.reconnect_max_ms = reconnect_max_ms;
	membership->config.token_file = token_file;
	membership->config.ca_pin = ca_pin;
}

void membership_start(struct membership *membership)
{
	set_timer(membership, 0);
}

void membership_stop(struct membership *membership)
{
	timer_clear(membership->timer);
	join_free(membership->join);
	membership->join = NULL;
}

void membership_hear(
	struct membership *membership, const struct discovery *discovery)
{
	if (!hear_cas(membership, discovery))
		return;
	follow_cas(membership);
	if (!trust_is_active(
		    membership->cas->host_ca_id, identity_of(membership)))
		timer_set(membership->timer,
			chance(SPREAD_MS + membership->cas->renew_spread_ms));
}

void membership_reconnect(struct membership *membership)
{
	if (!membership->join && !membership->backoff.failures)
		return;
	if (membership->join && identity_of(membership))
		membership->unsure = true;
	join_free(membership->join);
	membership->join = NULL;
	backoff_succeeded(&membership->backoff);
	timer_set(membership->timer, 0);
}
