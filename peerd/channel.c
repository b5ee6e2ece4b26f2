/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC channel to a peer, its settings and its state: see channel.h. Owned by
 * its entry in peers.c until that retires it, then by its last call.
 *
 * A newcomer's trap: gRPC may verify a certificate on a thread of its own while
 * the channel is being destroyed. What the callback needs lies in a struct
 * checker, which outlives the channel by longer than a handshake may take.
 */
#include "peerd/channel.h"

#include <assert.h>
#include <grpc/support/time.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "peerd/channel_args.h"
#include "shared/alloc.h"
#include "shared/distrust.h"
#include "shared/identity.h"
#include "shared/log.h"
#include "shared/sock.h"

/* An attempt to connect may take this long, and comes back this often. */
#define CONNECT_MS 5000
/* gRPC forgets a destroyed channel's handshake before this. */
#define CHECKER_LIFE_MS 60000
#define WRONG_PEER_LOG_MS 60000
#define ERROR_MAX 400

/* What the verify callback uses, on gRPC's threads. */
struct checker {
	TAILQ_ENTRY(checker) entry; /* in yard, once its channel has gone */
	struct channel_yard *yard;
	struct timer *burial; /* the loop's thread only */
	pthread_mutex_t lock;
	char peer_id[37];
	char addr[SOCK_ADDR_MAX];
	char error[ERROR_MAX];
	int64_t error_at;  /* Unix ms */
	int64_t logged_at; /* monotonic ms */
};

struct channel_yard {
	TAILQ_HEAD(, checker) checkers;
	TAILQ_HEAD(, channel) retired; /* not yet destroyed */
	bool closed;
};

struct channel {
	TAILQ_ENTRY(channel) entry; /* in yard->retired */
	struct peerd *peerd;
	grpc_channel *channel;
	struct checker *checker;
	void (*on_state)(void *arg);
	void *arg;
	bool retired;
	bool watching;
	unsigned calls; /* that hold it */
	enum channel_state state;
	int64_t since;
	grpc_connectivity_state connectivity;
	struct rpc_tag watch_tag;
	struct tally *tally;
};

static int64_t clock_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* ---- the peer's certificate ---- */

static void checker_note(struct checker *checker, const char *text)
{
	snprintf(checker->error, sizeof(checker->error), "%s", text);
	checker->error_at = clock_ms(CLOCK_REALTIME);
}

/* On a gRPC thread. The text is what operators of the reference know. */
static void on_refused(void *arg, const char *why)
{
	struct checker *checker = arg;
	int64_t now = clock_ms(CLOCK_MONOTONIC);
	bool log;

	pthread_mutex_lock(&checker->lock);
	log = !checker->logged_at ||
	      now - checker->logged_at >= WRONG_PEER_LOG_MS;
	if (log)
		checker->logged_at = now;
	checker_note(checker, why);
	pthread_mutex_unlock(&checker->lock);
	if (log)
		log_error("peer refused: %s: several proxies may be sharing "
			  "one public address; peer_public_addr must be unique "
			  "for each proxy and not that of a load balancer "
			  "peer=%s addr=%s",
			why, checker->peer_id, checker->addr);
}

static void checker_free(struct checker *checker)
{
	TAILQ_REMOVE(&checker->yard->checkers, checker, entry);
	timer_free(checker->burial);
	pthread_mutex_destroy(&checker->lock);
	free(checker);
}

static void on_burial(void *arg)
{
	checker_free(arg);
}

struct channel_yard *channel_yard_new(void)
{
	struct channel_yard *yard = xcalloc(1, sizeof(*yard));

	TAILQ_INIT(&yard->checkers);
	TAILQ_INIT(&yard->retired);
	return yard;
}

void channel_yard_free(struct channel_yard *yard)
{
	while (!TAILQ_EMPTY(&yard->checkers))
		checker_free(TAILQ_FIRST(&yard->checkers));
	free(yard);
}

/* ---- state ---- */

static enum channel_state state_of(grpc_connectivity_state connectivity)
{
	switch (connectivity) {
	case GRPC_CHANNEL_READY:
		return CHANNEL_READY;
	case GRPC_CHANNEL_TRANSIENT_FAILURE:
	case GRPC_CHANNEL_SHUTDOWN:
		return CHANNEL_UNREACHABLE;
	case GRPC_CHANNEL_IDLE:
	case GRPC_CHANNEL_CONNECTING:
		break;
	}
	return CHANNEL_CONNECTING;
}

static void set_state(struct channel *channel, grpc_connectivity_state now)
{
	enum channel_state state = state_of(now);

	channel->connectivity = now;
	/* Trying again is no news until it has succeeded. */
	if (state == CHANNEL_CONNECTING &&
		channel->state == CHANNEL_UNREACHABLE)
		return;
	if (state == channel->state)
		return;
	channel->state = state;
	channel->since = loop_now(channel->peerd->loop);
	channel->on_state(channel->arg);
}

static void watch(struct channel *channel)
{
	channel->watching = true;
	grpc_channel_watch_connectivity_state(channel->channel,
		channel->connectivity,
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
			gpr_time_from_seconds(60, GPR_TIMESPAN)),
		rpc_cq_queue(channel->peerd->cq), &channel->watch_tag);
}

/* gRPC 1.51 forgets a connection that is still being made when its channel is
 * destroyed: it stays open for good. So the outcome is waited for. */
static bool is_connecting(struct channel *channel)
{
	channel->connectivity =
		grpc_channel_check_connectivity_state(channel->channel, 0);
	return channel->connectivity == GRPC_CHANNEL_IDLE ||
	       channel->connectivity == GRPC_CHANNEL_CONNECTING;
}

static void destroy(struct channel *channel)
{
	struct checker *checker = channel->checker;
	struct channel_yard *yard = checker->yard;

	TAILQ_REMOVE(&yard->retired, channel, entry);
	grpc_channel_destroy(channel->channel);
	channel->channel = NULL;
	TAILQ_INSERT_TAIL(&yard->checkers, checker, entry);
	checker->burial = timer_new(channel->peerd->loop, on_burial, checker);
	timer_set(checker->burial, CHECKER_LIFE_MS);
}

static void free_channel(void *arg)
{
	struct channel *channel = arg;

	tally_unref(channel->tally);
	free(channel);
}

static void channel_settle(struct channel *channel)
{
	if (!channel->retired || channel->calls > 0)
		return;
	if (channel->channel) {
		if (is_connecting(channel) && !channel->checker->yard->closed) {
			if (!channel->watching)
				watch(channel);
			return;
		}
		destroy(channel);
	}
	/* The watch still has its tag. */
	if (!channel->watching)
		loop_free_later(channel->peerd->loop, free_channel, channel);
}

static void on_watched(struct rpc_tag *tag, bool ok)
{
	struct channel *channel =
		(struct channel *)((char *)tag -
				   offsetof(struct channel, watch_tag));

	channel->watching = false;
	if (channel->retired) {
		channel_settle(channel);
		return;
	}
	/* 1: connect even though nobody calls */
	set_state(channel,
		grpc_channel_check_connectivity_state(channel->channel, 1));
	if (!channel->retired)
		watch(channel);
}

void channel_yard_close(struct channel_yard *yard)
{
	struct channel *channel, *next;

	yard->closed = true;
	for (channel = TAILQ_FIRST(&yard->retired); channel; channel = next) {
		next = TAILQ_NEXT(channel, entry);
		channel_settle(channel);
	}
}

/* ---- life ---- */

/* gRPC's name for an address: a host name is resolved again by gRPC when it
 * reconnects. Gives. */
static char *target_of(const char *addr)
{
	struct sock_addr numeric;

	if (sock_parse(addr, 3021, &numeric) < 0)
		return xasprintf("dns:///%s", addr);
	return xasprintf("%s:%s",
		numeric.ss.ss_family == AF_INET6 ? "ipv6" : "ipv4", addr);
}

static grpc_channel *create(struct peerd *peerd, struct checker *checker)
{
	const char *cluster = peerd->conf->cluster_name;
	char server_name[IDENTITY_SERVER_NAME_MAX];
	char *target = target_of(checker->addr);
	grpc_channel_credentials *creds;
	struct channel_args args;
	grpc_channel *channel;

	identity_server_name(cluster, server_name);
	channel_args_init(&args, peerd->quota);
	channel_args_add_string(
		&args, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, server_name);
	channel_args_add_int(&args, GRPC_ARG_ENABLE_RETRIES, 0);
	channel_args_add_int(&args, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
	channel_args_add_int(&args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
	channel_args_add_int(
		&args, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
	channel_args_add_int(&args, GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX);
	channel_args_add_int(&args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
	/* In truth the time one attempt may take. */
	channel_args_add_int(
		&args, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_MS);
	channel_args_add_int(&args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 3000);
	creds = rpc_channel_creds(peerd->identity, cluster, IDENTITY_PROXY,
		checker->peer_id, on_refused, checker);
	channel = grpc_channel_create(target, creds, &args.list);
	grpc_channel_credentials_release(creds);
	free(target);
	return channel;
}

struct channel *channel_new(struct peerd *peerd, const char *peer_id,
	const char *addr, struct tally *tally, void (*on_state)(void *arg),
	void *arg)
{
	struct channel *channel = xcalloc(1, sizeof(*channel));
	struct checker *checker = xcalloc(1, sizeof(*checker));

	pthread_mutex_init(&checker->lock, NULL);
	snprintf(checker->peer_id, sizeof(checker->peer_id), "%s", peer_id);
	snprintf(checker->addr, sizeof(checker->addr), "%s", addr);
	checker->yard = peerd->yard;
	channel->peerd = peerd;
	channel->checker = checker;
	channel->tally = tally_ref(tally);
	channel->on_state = on_state;
	channel->arg = arg;
	channel->since = loop_now(peerd->loop);
	channel->watch_tag.run = on_watched;
	channel->channel = create(peerd, checker);
	channel->connectivity =
		grpc_channel_check_connectivity_state(channel->channel, 1);
	watch(channel);
	return channel;
}

void channel_retire(struct channel *channel)
{
	if (!channel)
		return;
	channel->retired = true;
	TAILQ_INSERT_TAIL(&channel->checker->yard->retired, channel, entry);
	channel_settle(channel);
}

grpc_channel *channel_hold(struct channel *channel)
{
	assert(!channel->retired);
	channel->calls++;
	return channel->channel;
}

void channel_let_go(struct channel *channel)
{
	channel->calls--;
	channel_settle(channel);
}

/* ---- what others ask ---- */

enum channel_state channel_state(const struct channel *channel)
{
	return channel->state;
}

int64_t channel_since(const struct channel *channel)
{
	return channel->since;
}

struct peerd *channel_peerd(const struct channel *channel)
{
	return channel->peerd;
}

unsigned channel_calls(const struct channel *channel)
{
	return channel->calls;
}

const char *channel_peer_id(const struct channel *channel)
{
	return channel->checker->peer_id;
}

struct stream_totals *channel_totals(struct channel *channel)
{
	return &channel->tally->totals;
}

void channel_count_stream(struct channel *channel, int change)
{
	channel->tally->streams += (unsigned)change;
}

void channel_note_error(struct channel *channel, const char *text)
{
	enum distrust distrust = distrust_of_text(text);
	char advised[ERROR_MAX];

	/* the advice first: what follows may be cut */
	if (distrust != DISTRUST_NONE) {
		snprintf(advised, sizeof(advised), "TLS%s: %s",
			distrust_host_advice(distrust), text);
		text = advised;
	}
	pthread_mutex_lock(&channel->checker->lock);
	checker_note(channel->checker, text);
	pthread_mutex_unlock(&channel->checker->lock);
}

void channel_last_error(
	struct channel *channel, char *text, size_t size, int64_t *at_out)
{
	pthread_mutex_lock(&channel->checker->lock);
	snprintf(text, size, "%s", channel->checker->error);
	*at_out = channel->checker->error_at;
	pthread_mutex_unlock(&channel->checker->lock);
}
