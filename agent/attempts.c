/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attempts under way. Talks to connect.h; keeps tracker (leases, claims) and
 * candidates (who is busy, who failed) in step with what happens.
 *
 * What one gets wrong: every path out of an attempt must give back two things,
 * its lease and its candidate.
 */
#include "agent/attempts.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "agent/series.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/tls.h"

/* One attempt: from lease to claim, or back. */
struct attempt {
	LIST_ENTRY(attempt) entry;
	struct attempts *attempts;
	struct connect *connect;
	char key[320];
	char addr[SOCK_ADDR_MAX]; /* what is dialed, for the log */
	int64_t since;
};

struct attempts {
	struct attempts_config config;
	LIST_HEAD(, attempt) list; /* the newest first */
	unsigned count;
};

uint32_t attempts_random(void)
{
	uint32_t bits;

	if (RAND_bytes((unsigned char *)&bits, sizeof(bits)) != 1)
		bits = (uint32_t)rand();
	return bits;
}

static bool is_wanted(void *arg, const struct host_identity *proxy)
{
	struct attempt *attempt = arg;

	return !tracker_is_claimed(
		attempt->attempts->config.tracker, proxy->uuid);
}

static void attempt_end(struct attempt *attempt)
{
	struct attempts *attempts = attempt->attempts;

	LIST_REMOVE(attempt, entry);
	attempts->count--;
	free(attempt);
	attempts->config.on_change(attempts->config.arg);
}

/* For the one line that is said when nobody can be reached. */
static void note_failure(
	const struct attempt *attempt, const char *why, bool busy)
{
	const struct attempts_config *config = &attempt->attempts->config;

	outage_failed(config->outage, attempt->addr, why, busy,
		loop_now(config->loop),
		candidates_due(config->candidates, attempt->key));
}

/* The proxy has said when there is room: no failure of anybody. */
static void attempt_held(
	struct attempt *attempt, const struct connect_result *result)
{
	struct attempts *attempts = attempt->attempts;
	int64_t now = loop_now(attempts->config.loop);

	candidates_hold(attempts->config.candidates, attempt->key,
		now + result->retry_after_ms +
			attempts_random() % ATTEMPTS_JITTER_MS,
		now, attempts_random());
	candidates_idle(attempts->config.candidates, attempt->key);
	tracker_return(attempts->config.tracker);
	metric_add(attempts->config.metrics,
		SERIES_CONNECT_FAILURES + CONNECT_BUSY, 1);
	note_failure(attempt, result->why, true);
	log_debug("no tunnel to %s: %s", attempt->addr, result->why);
	attempt_end(attempt);
}

static void attempt_failed(
	struct attempt *attempt, enum connect_failure failure, const char *why)
{
	struct attempts *attempts = attempt->attempts;
	uint32_t failures =
		candidates_failed(attempts->config.candidates, attempt->key,
			loop_now(attempts->config.loop), attempts_random());

	candidates_idle(attempts->config.candidates, attempt->key);
	tracker_return(attempts->config.tracker);
	metric_add(
		attempts->config.metrics, SERIES_CONNECT_FAILURES + failure, 1);
	if (failure != CONNECT_UNWANTED)
		note_failure(attempt, why, false);
	/* Behind a load balancer a proxy we have is no news. Other failures are
	 * told when they begin and about once a minute; if there is no tunnel
	 * at all, in one line for all. */
	if (failure != CONNECT_UNWANTED && failures % 8 == 1 &&
		tracker_claimed(attempts->config.tracker))
		log_warn("no tunnel to %s: %s (attempt %u)", attempt->addr, why,
			failures);
	else
		log_debug("no tunnel to %s: %s", attempt->addr, why);
	attempt_end(attempt);
}

static void on_connected(void *arg, const struct connect_result *result)
{
	struct attempt *attempt = arg;
	struct attempts *attempts = attempt->attempts;

	attempt->connect = NULL;
	if (result->fd < 0 && result->failure == CONNECT_BUSY) {
		attempt_held(attempt, result);
		return;
	}
	if (result->fd < 0) {
		attempt_failed(attempt, result->failure, result->why);
		return;
	}
	/* is_wanted() has just said so, in this very call. */
	if (!tracker_claim(attempts->config.tracker, result->proxy.uuid,
		    loop_now(attempts->config.loop)))
		fatal("proxy claimed twice");
	candidates_idle(attempts->config.candidates, attempt->key);
	log_debug("connected: proxy=%s addr=%s", result->proxy.uuid,
		result->addr);
	attempts->config.on_connected(
		attempts->config.arg, attempt->key, result);
	attempt_end(attempt);
}

static void attempt_start(struct attempts *attempts,
	const struct candidate *candidate, SSL_CTX *ctx)
{
	struct attempt *attempt = xcalloc(1, sizeof(*attempt));
	const struct connect_request request = {
		.addrs = candidate->addrs,
		.addr_count = candidate->addr_count,
		.ctx = ctx,
		.alpn = TLS_ALPN_TUNNEL,
		.cluster = attempts->config.cluster,
		.https_proxy = attempts->config.https_proxy,
		.random = attempts_random(),
		.is_wanted = is_wanted,
	};

	attempt->attempts = attempts;
	attempt->since = loop_now(attempts->config.loop);
	strcpy(attempt->key, candidate->key);
	snprintf(attempt->addr, sizeof(attempt->addr), "%s",
		candidate->addrs[0]);
	LIST_INSERT_HEAD(&attempts->list, attempt, entry);
	attempts->count++;
	attempt->connect = connect_new(attempts->config.loop,
		attempts->config.resolver, &request, on_connected, attempt);
}

static void attempt_drop(struct attempt *attempt)
{
	struct attempts *attempts = attempt->attempts;

	connect_free(attempt->connect);
	candidates_idle(attempts->config.candidates, attempt->key);
	tracker_return(attempts->config.tracker);
	attempt_end(attempt);
}

static bool may_start(struct attempts *attempts, int64_t now, bool *hedge_out,
	int64_t *due_out)
{
	const struct attempt *newest = LIST_FIRST(&attempts->list);

	return tracker_may_begin(attempts->config.tracker, attempts->count,
		newest ? newest->since : 0, now, hedge_out, due_out);
}

/* Ends attempts that a tunnel has made needless, the newest first. */
static void drop_excess(struct attempts *attempts, int64_t now)
{
	size_t excess = tracker_excess(attempts->config.tracker, now);

	while (excess-- > 0 && !LIST_EMPTY(&attempts->list))
		attempt_drop(LIST_FIRST(&attempts->list));
}

/* If there is no tunnel, and it is time to say so. */
static void say_outage(struct attempts *attempts, int64_t now)
{
	struct outage *outage = attempts->config.outage;
	char *line;

	if (tracker_claimed(attempts->config.tracker))
		return;
	line = outage_say(outage, attempts->count == 0, now);
	/* A fleet in which all are busy is a storm, and no trouble. */
	if (line)
		log_at(outage_is_busy(outage) ? LOG_INFO : LOG_WARN, "%s",
			line);
	free(line);
}

int64_t attempts_review(struct attempts *attempts, SSL_CTX *ctx, int64_t now)
{
	const struct attempts_config *config = &attempts->config;
	struct candidate candidate;
	int64_t due;
	bool hedge;

	drop_excess(attempts, now);
	while (may_start(attempts, now, &hedge, &due)) {
		/* What proxies call their address may not be reachable from
		 * here; what the operator wrote should be. */
		if (!candidates_pick(config->candidates, config->tracker, hedge,
			    now, attempts_random(), &candidate, &due)) {
			tracker_return(config->tracker);
			break;
		}
		attempt_start(attempts, &candidate, ctx);
	}
	say_outage(attempts, now);
	return due;
}

struct attempts *attempts_new(const struct attempts_config *config)
{
	struct attempts *attempts = xcalloc(1, sizeof(*attempts));

	attempts->config = *config;
	LIST_INIT(&attempts->list);
	return attempts;
}

void attempts_drop_all(struct attempts *attempts)
{
	while (!LIST_EMPTY(&attempts->list))
		attempt_drop(LIST_FIRST(&attempts->list));
}

void attempts_free(struct attempts *attempts)
{
	if (!attempts)
		return;
	attempts_drop_all(attempts);
	loop_free_later(attempts->config.loop, free, attempts);
}
