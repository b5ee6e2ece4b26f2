/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS handshakes of strangers. Owns the channel until it is handed on. What is
 * admitted, and who comes back when, is decided in admission.c.
 *
 * What a newcomer gets wrong: failing is normal here (scanners, health checks
 * of load balancers), so it is counted, and logged at debug only. And a
 * callback of a channel does no cryptography: it only queues its handshake,
 * because 1,000 of them in one turn would be half a second for all others.
 */
#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proxy/admission.h"
#include "proxy/agent_tunnel.h"
#include "proxy/client.h"
#include "proxy/handshake.h"
#include "proxy/listener.h"
#include "proxy/refusal.h"
#include "proxy/trust.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

#define TURN_US 1000 /* of each turn of the loop */
/* After agents' handshakes so many times as long nothing is done for them: each
 * brings as much work behind it, here and in all other daemons. */
#define REST 2
#define SAY_MS 10000 /* at most one line on refusals in so long */

/* A queue each; the first goes first. */
enum lane { LANE_ANY, LANE_AGENT, LANES };

struct handshake {
	TAILQ_ENTRY(handshake) entry;
	TAILQ_ENTRY(handshake) ready; /* while is_ready */
	bool is_ready;
	enum lane lane;
	struct worker *worker;
	bool tunnels_only;
	struct trust_hello hello;
	struct chan *chan; /* NULL: handed on */
	struct timer *deadline;
	char source[SOCK_ADDR_MAX];
};
TAILQ_HEAD(handshake_list, handshake);

struct handshakes {
	struct worker *worker;
	struct handshake_list all;
	struct handshake_list ready[LANES];
	unsigned count;	  /* of LANE_ANY; admission counts the others */
	unsigned tunnels; /* of LANE_AGENT */
	struct admission admission;
	struct refusals *refusals;
	struct loop_task turn;
	struct timer *rest; /* set: none of agents' */
	unsigned unsaid;    /* refusals */
	int64_t said_at;    /* 0: never */
};

static void show_waiting(struct handshakes *handshakes)
{
	struct metrics *metrics = &handshakes->worker->metrics;

	metric_set(metrics, PROXY_HANDSHAKES_WAITING_ANY, handshakes->count);
	metric_set(metrics, PROXY_HANDSHAKES_WAITING_AGENT,
		handshakes->admission.under_way);
}

static void unqueue(struct handshake *handshake)
{
	struct handshakes *handshakes = handshake->worker->handshakes;

	if (handshake->is_ready)
		TAILQ_REMOVE(
			&handshakes->ready[handshake->lane], handshake, ready);
	handshake->is_ready = false;
}

static void leave_lane(struct handshake *handshake, bool finished)
{
	struct handshakes *handshakes = handshake->worker->handshakes;

	unqueue(handshake);
	if (handshake->lane == LANE_ANY) {
		handshakes->count--;
		return;
	}
	handshakes->tunnels -= handshake->hello.asked == TRUST_TUNNEL;
	admission_end(&handshakes->admission, loop_now(handshake->worker->loop),
		finished);
}

/* The only way out: counts the outcome and lets the next one in. */
static void end(
	struct handshake *handshake, enum proxy_metric outcome, const char *why)
{
	struct worker *worker = handshake->worker;

	if (why)
		log_debug("handshake failed: %s source=%s", why,
			handshake->source);
	metric_add(&worker->metrics, outcome, 1);
	TAILQ_REMOVE(&worker->handshakes->all, handshake, entry);
	leave_lane(handshake, outcome == PROXY_HANDSHAKE_OK);
	show_waiting(worker->handshakes);
	timer_free(handshake->deadline);
	handshake->deadline = NULL;
	chan_free(handshake->chan);
	handshake->chan = NULL;
	loop_free_later(worker->loop, free, handshake);
	listener_resume_all(worker);
}

/* --- agents for whom there is no room --- */

static bool tunnels_are_full(const struct worker *worker)
{
	return worker->tunnel_count + worker->handshakes->tunnels >=
	       worker->conf->proxy.max_tunnels;
}

static bool has_room_for_tunnel(const struct worker *worker)
{
	return admission_has_room(&worker->handshakes->admission) &&
	       !tunnels_are_full(worker);
}

/* Agents without a tunnel also ask where to get one; nothing depends on the
 * answer, and a join can wait. So half of the places is for tunnels alone. */
static bool has_room_for(const struct worker *worker, enum trust_kind kind)
{
	if (kind == TRUST_TUNNEL)
		return has_room_for_tunnel(worker);
	return admission_is_quiet(&worker->handshakes->admission);
}

/* Said from time to time: a storm refuses thousands. */
static void say_refusal(struct handshakes *handshakes, const char *why,
	unsigned retry_after, const char *source)
{
	int64_t now = loop_now(handshakes->worker->loop);

	handshakes->unsaid++;
	if (handshakes->said_at && now - handshakes->said_at < SAY_MS)
		return;
	log_warn("agents told to come back later: %s put_off=%u "
		 "retry_after=%us rate=%.0f/s source=%s",
		why, handshakes->unsaid, retry_after,
		handshakes->admission.rate, source);
	handshakes->unsaid = 0;
	handshakes->said_at = now;
}

/* Takes fd; why, as what counts it. */
static enum proxy_metric put_off(
	struct worker *worker, int fd, enum trust_kind kind, const char *source)
{
	struct handshakes *handshakes = worker->handshakes;
	enum proxy_metric reason = PROXY_PUT_OFF_HANDSHAKES;
	const char *why = "max_tunnel_handshakes is reached";
	unsigned retry_after;
	uint32_t random;

	if (RAND_bytes((unsigned char *)&random, sizeof(random)) != 1)
		fatal("no random bytes");
	if (kind == TRUST_TUNNEL && tunnels_are_full(worker)) {
		reason = PROXY_PUT_OFF_TUNNELS;
		why = "max_tunnels is reached";
		retry_after = admission_retry_late(random);
	} else {
		retry_after = admission_retry_after(
			&handshakes->admission, loop_now(worker->loop), random);
	}
	say_refusal(handshakes, why, retry_after, source);
	refusals_add(handshakes->refusals, fd, retry_after);
	return reason;
}

/* --- a handshake's steps --- */

static void go_on(struct handshakes *handshakes)
{
	if (!TAILQ_EMPTY(&handshakes->ready[LANE_ANY]) ||
		(!TAILQ_EMPTY(&handshakes->ready[LANE_AGENT]) &&
			!timer_is_set(handshakes->rest)))
		loop_defer_late(handshakes->worker->loop, &handshakes->turn);
}

static void queue(struct handshake *handshake)
{
	struct handshakes *handshakes = handshake->worker->handshakes;

	if (!handshake->is_ready)
		TAILQ_INSERT_TAIL(
			&handshakes->ready[handshake->lane], handshake, ready);
	handshake->is_ready = true;
	go_on(handshakes);
}

/* The ClientHello is an agent's: admitted, or told when to come back. */
static void decide(struct handshake *handshake)
{
	struct worker *worker = handshake->worker;
	struct chan *chan = handshake->chan;

	if (!has_room_for(worker, handshake->hello.asked)) {
		handshake->chan = NULL;
		end(handshake,
			put_off(worker, chan_release_fd(chan),
				handshake->hello.asked, handshake->source),
			NULL);
		return;
	}
	leave_lane(handshake, false);
	handshake->lane = LANE_AGENT;
	handshake->hello.admitted = true;
	worker->handshakes->tunnels += handshake->hello.asked == TRUST_TUNNEL;
	admission_begin(&worker->handshakes->admission, loop_now(worker->loop));
	show_waiting(worker->handshakes);
	queue(handshake);
	listener_resume_all(worker);
}

/* Clients above max_clients are told so when they have said what they want;
 * of these, too, there is an end, since no certificate was asked for. */
static bool is_crowded(const struct worker *worker)
{
	const struct conf_proxy *conf = &worker->conf->proxy;

	return worker->client_count >= conf->max_clients + conf->max_handshakes;
}

static void hand_on(struct handshake *handshake)
{
	struct worker *worker = handshake->worker;
	struct chan *chan = handshake->chan;
	enum trust_kind kind = trust_kind_of(chan_ssl(chan));

	if (handshake->tunnels_only && kind != TRUST_TUNNEL) {
		end(handshake, PROXY_HANDSHAKE_NOT_NODE,
			"ALPN " TLS_ALPN_TUNNEL " is required here");
		return;
	}
	if (kind != TRUST_TUNNEL && is_crowded(worker)) {
		end(handshake, PROXY_HANDSHAKE_LIMIT, "too many clients");
		return;
	}
	handshake->chan = NULL;
	chan_watch(chan, NULL, NULL);
	if (kind == TRUST_TUNNEL)
		agent_tunnel_start(worker, chan, handshake->source);
	else
		client_start(worker, chan, kind, handshake->source);
	end(handshake, PROXY_HANDSHAKE_OK, NULL);
}

static void step(struct handshake *handshake)
{
	char text[256];
	int ret = chan_handshake(handshake->chan);

	if (ret == -EAGAIN)
		return;
	if (ret == -EINPROGRESS) {
		decide(handshake);
		return;
	}
	if (!ret) {
		hand_on(handshake);
		return;
	}
	if (ret == -EPROTO)
		tls_error_text(text, sizeof(text));
	else
		snprintf(text, sizeof(text), "%s", strerror(-ret));
	end(handshake, PROXY_HANDSHAKE_TLS, text);
}

/* Whether there was one in that lane. */
static bool step_first(struct handshakes *handshakes, enum lane lane)
{
	struct handshake *handshake = TAILQ_FIRST(&handshakes->ready[lane]);

	if (!handshake)
		return false;
	unqueue(handshake);
	step(handshake);
	return true;
}

static int64_t monotonic_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void on_rested(void *arg)
{
	go_on(arg);
}

/* Steps until then; at least one, and a rest for what they took. */
static void step_agents(struct handshakes *handshakes, int64_t until)
{
	int64_t start = monotonic_us();
	int64_t now = start;

	while (step_first(handshakes, LANE_AGENT)) {
		now = monotonic_us();
		if (now >= until)
			break;
	}
	if (now > start)
		timer_set(handshakes->rest, (now - start) * REST / 1000);
}

/* This turn's share, behind what everybody else had to do in it: clients first,
 * but one step for an agent at least. */
static void on_turn(struct loop_task *task)
{
	struct handshakes *handshakes =
		(struct handshakes *)((char *)task -
				      offsetof(struct handshakes, turn));
	int64_t until = monotonic_us() + TURN_US;

	while (step_first(handshakes, LANE_ANY) && monotonic_us() < until)
		;
	if (!timer_is_set(handshakes->rest))
		step_agents(handshakes, until);
	go_on(handshakes);
}

static void on_ready(void *arg)
{
	struct handshake *handshake = arg;

	if (handshake->chan)
		queue(handshake);
}

static void on_deadline(void *arg)
{
	end(arg, PROXY_HANDSHAKE_TIMED_OUT, "timed out");
}

void handshake_start(struct worker *worker, int fd,
	const struct sock_addr *from, bool tunnels_only)
{
	struct handshake *handshake;
	char source[SOCK_ADDR_MAX];
	SSL *ssl;

	sock_format(from, source, sizeof(source));
	if (tunnels_only && !has_room_for_tunnel(worker)) {
		metric_add(&worker->metrics,
			put_off(worker, fd, TRUST_TUNNEL, source), 1);
		return;
	}
	handshake = xcalloc(1, sizeof(*handshake));
	handshake->worker = worker;
	handshake->tunnels_only = tunnels_only;
	memcpy(handshake->source, source, sizeof(source));
	sock_nodelay(fd);
	TAILQ_INSERT_TAIL(&worker->handshakes->all, handshake, entry);
	worker->handshakes->count++;
	ssl = trust_accept(worker->trust, tunnels_only, &handshake->hello);
	if (!ssl) {
		close(fd);
		end(handshake, PROXY_HANDSHAKE_NO_IDENTITY,
			"this host has no certificate yet");
		return;
	}
	show_waiting(worker->handshakes);
	handshake->chan = chan_new_tls(worker->loop, fd, ssl);
	handshake->deadline = timer_new(worker->loop, on_deadline, handshake);
	timer_set(handshake->deadline, worker->conf->proxy.handshake_timeout);
	chan_watch(handshake->chan, on_ready, handshake);
}

bool handshake_has_room(const struct worker *worker)
{
	return worker->handshakes->count < worker->conf->proxy.max_handshakes;
}

void handshakes_set_bound(struct worker *worker)
{
	worker->handshakes->admission.bound =
		worker->conf->proxy.max_tunnel_handshakes;
}

struct handshakes *handshakes_new(struct worker *worker)
{
	struct handshakes *handshakes = xcalloc(1, sizeof(*handshakes));

	handshakes->worker = worker;
	TAILQ_INIT(&handshakes->all);
	for (int lane = 0; lane < LANES; lane++)
		TAILQ_INIT(&handshakes->ready[lane]);
	admission_init(&handshakes->admission,
		worker->conf->proxy.max_tunnel_handshakes);
	handshakes->refusals = refusals_new(worker->loop);
	handshakes->turn.run = on_turn;
	handshakes->rest = timer_new(worker->loop, on_rested, handshakes);
	return handshakes;
}

void handshakes_free(struct handshakes *handshakes)
{
	struct handshake *handshake;

	if (!handshakes)
		return;
	while ((handshake = TAILQ_FIRST(&handshakes->all)))
		end(handshake, PROXY_HANDSHAKE_TLS, "shutting down");
	loop_cancel(handshakes->worker->loop, &handshakes->turn);
	timer_free(handshakes->rest);
	refusals_free(handshakes->refusals);
	free(handshakes);
}
