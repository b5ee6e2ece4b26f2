/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps one auth server at hand: tries them in turn, holds the lease, notices
 * at its keepalive that a server has gone. mirror.c and publisher.c use the
 * channel while the session is open. Owns the channel and the lease's timer.
 *
 * What is easily got wrong: freeing the channel ends the calls of others on it,
 * whose callbacks run at once and may report that failure to us again. So the
 * state changes before the channel goes, and a failure of a session that is not
 * open or opening is nothing.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auth.pb-c.h"
#include "routed/session.h"
#include "shared/alloc.h"
#include "shared/backoff.h"
#include "shared/distrust.h"
#include "shared/log.h"

#define OPEN_MS 5000 /* the first call, with connection and handshake */
/* Where there is another server to go to, one that is gone without a word is
 * found out within the sum of these. */
#define ASK_MS 800     /* from one keepalive to the next, at most */
#define ANSWER_MS 1000 /* for one */
#define OPEN_ONE_MS 2000
#define LEAVE_MS 2000 /* the last one */
#define STEP_MS 250
/* A lease has its TTL again when authd is back, 5 s by default: whoever asks
 * often enough finds it alive. */
#define BACKOFF_MAX_MS 2000
#define SERVICE "/peerway.auth.AuthService/"

struct session {
	struct loop *loop;
	struct rpc_cq *cq;
	const struct conf *conf;
	const char *proxy_id;
	const struct session_ops *ops;
	void *arg;
	struct rpc_identity *holder;

	enum session_state state;
	int64_t since_ms;
	char *last_error;
	bool told; /* this outage has been logged */

	unsigned server; /* index of the address in use */
	unsigned tried;	 /* servers in a row that were of no use */
	struct backoff backoff;
	struct timer *retry;
	struct rpc_channel *channel;

	struct session_lease lease;
	bool doubtful; /* see session_doubt_lease() */
	struct timer *keepalive;
	int64_t asked_at; /* loop_now() of the keepalive under way */
	int64_t heard_at; /* of whatever else the server said */

	void (*on_left)(void *arg);
	void *left_arg;
};

static void on_retry(void *arg);
static void on_keepalive_due(void *arg);

static int64_t unix_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct session *session_new(struct loop *loop, struct rpc_cq *cq,
	const struct conf *conf, const char *proxy_id,
	const struct session_ops *ops, void *arg)
{
	struct session *session = xcalloc(1, sizeof(*session));

	session->loop = loop;
	session->cq = cq;
	session->conf = conf;
	session->proxy_id = proxy_id;
	session->ops = ops;
	session->arg = arg;
	session->since_ms = unix_ms();
	session->backoff.step_ms = STEP_MS;
	session->backoff.max_ms = BACKOFF_MAX_MS;
	session->retry = timer_new(loop, on_retry, session);
	session->keepalive = timer_new(loop, on_keepalive_due, session);
	return session;
}

static void close_channel(struct session *session)
{
	struct rpc_channel *channel = session->channel;

	session->channel = NULL;
	timer_clear(session->keepalive);
	timer_clear(session->retry);
	rpc_channel_free(channel);
}

void session_free(struct session *session)
{
	if (!session)
		return;
	session->state = SESSION_LEAVING;
	close_channel(session);
	timer_free(session->retry);
	timer_free(session->keepalive);
	free(session->last_error);
	free(session);
}

/* ---- failure ---- */

static void set_state(struct session *session, enum session_state state)
{
	bool was_open = session->state == SESSION_OPEN;

	if (was_open != (state == SESSION_OPEN))
		session->since_ms = unix_ms();
	session->state = state;
	if (was_open && state != SESSION_OPEN)
		session->ops->on_close(session->arg);
}

static void remember_error(struct session *session, char *error)
{
	free(session->last_error);
	session->last_error = error;
	if (session->told)
		log_debug("auth server cannot be used: %s", error);
	else
		log_warn("auth server cannot be used: %s; going on from the "
			 "cache",
			error);
	session->told = true;
}

bool session_is_fatal(int status)
{
	/* What the server itself said of the request is not. */
	return status != GRPC_STATUS_INVALID_ARGUMENT &&
	       status != GRPC_STATUS_RESOURCE_EXHAUSTED &&
	       status != GRPC_STATUS_ABORTED;
}

void session_fail(struct session *session, const char *what, int status,
	const char *message)
{
	uint32_t delay = 0;

	if (session->state != SESSION_OPEN && session->state != SESSION_OPENING)
		return;
	remember_error(session,
		xasprintf("%s: %s%s address=%s status=%d", what, message,
			distrust_host_advice(distrust_of_text(message)),
			session_address(session), status));
	set_state(session, SESSION_WAITING);
	close_channel(session);
	session->server++;
	/* at once to the next, with a rest when all have been tried */
	if (++session->tried >= session->conf->auth_servers_count) {
		session->tried = 0;
		delay = backoff_failed(&session->backoff, arc4random());
	}
	timer_set(session->retry, delay);
}

/* ---- the lease ---- */

static bool has_another_server(const struct session *session)
{
	return session->conf->auth_servers_count > 1;
}

static uint32_t keepalive_ms(const struct session *session)
{
	uint32_t third = session->lease.ttl_ms / 3;

	return has_another_server(session) && third > ASK_MS ? ASK_MS : third;
}

static uint32_t open_ms(const struct session *session)
{
	return has_another_server(session) ? OPEN_ONE_MS : OPEN_MS;
}

static void begin_open(struct session *session)
{
	if (session->state == SESSION_LEAVING)
		return;
	timer_set(session->keepalive, keepalive_ms(session));
	if (session->state == SESSION_OPEN)
		return;
	log_info("auth server answers: address=%s lease=%llu epoch=%llu",
		session_address(session), (unsigned long long)session->lease.id,
		(unsigned long long)session->lease.epoch);
	session->told = false;
	set_state(session, SESSION_OPEN);
	session->ops->on_open(session->arg);
}

static void on_granted(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Auth__LeaseGrantResponse *lease = (const void *)response;
	struct session *session = arg;

	if (status != GRPC_STATUS_OK || lease->ttl_ms == 0) {
		session_fail(session, "no lease", status, message);
		return;
	}
	if (session->state == SESSION_LEAVING)
		return;
	session->lease.id = lease->lease_id;
	session->lease.epoch = lease->epoch;
	session->lease.ttl_ms = lease->ttl_ms;
	session->lease.previous = lease->previous_lease_id;
	session->doubtful = false;
	snprintf(session->lease.store_id, sizeof(session->lease.store_id), "%s",
		lease->store_id);
	session->ops->on_lease(session->arg);
	begin_open(session);
}

static void grant(struct session *session)
{
	Peerway__Auth__LeaseGrantRequest request =
		PEERWAY__AUTH__LEASE_GRANT_REQUEST__INIT;

	request.proxy_id = (char *)session->proxy_id;
	rpc_unary(session->channel, SERVICE "LeaseGrant", &request.base,
		&peerway__auth__lease_grant_response__descriptor,
		open_ms(session), on_granted, session);
}

void session_heard(struct session *session)
{
	session->heard_at = loop_now(session->loop);
}

void session_doubt_lease(struct session *session)
{
	session->doubtful = true;
}

void session_lose_lease(struct session *session, int status, const char *why)
{
	if (session->state != SESSION_OPEN && session->state != SESSION_OPENING)
		return;
	session->lease = (struct session_lease){0};
	/* Through the backoff: of two hosts with one uuid each takes the
	 * lease from the other. */
	session->tried = session->conf->auth_servers_count;
	session_fail(session, "the lease is lost", status, why);
	session->server--; /* which is as good as any */
}

/* A new lease, at once while opening: what hangs on the one before has only its
 * TTL left. */
static void replace_lease(struct session *session, int status, const char *why)
{
	if (session->state != SESSION_OPENING) {
		session_lose_lease(session, status, why);
		return;
	}
	log_info("the lease is lost: %s lease=%llu", why,
		(unsigned long long)session->lease.id);
	session->lease = (struct session_lease){0};
	grant(session);
}

static bool is_of_store(const struct session_lease *lease, const char *store_id)
{
	return !lease->store_id[0] || !store_id[0] ||
	       strcmp(lease->store_id, store_id) == 0;
}

/* For a while, not only at first. */
static void worked(struct session *session)
{
	session->tried = 0;
	backoff_succeeded(&session->backoff);
}

static void on_kept(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	const Peerway__Auth__LeaseKeepAliveResponse *kept =
		(const void *)response;
	struct session *session = arg;

	if (status == GRPC_STATUS_DEADLINE_EXCEEDED &&
		session->state == SESSION_OPEN &&
		session->heard_at > session->asked_at) {
		/* busy, not gone: to leave it would make others busy */
		log_debug("auth server is slow: address=%s",
			session_address(session));
		timer_set(session->keepalive, 0);
	} else if (status == GRPC_STATUS_NOT_FOUND) {
		replace_lease(session, status, message);
	} else if (status != GRPC_STATUS_OK) {
		session_fail(session, "lease not kept alive", status, message);
	} else if (!is_of_store(&session->lease, kept->store_id)) {
		replace_lease(session, status, "authd's store is another one");
	} else if (session->doubtful && session->state == SESSION_OPENING) {
		/* It has its whole TTL again, in which to say all anew. */
		grant(session);
	} else {
		if (kept->ttl_ms > 0)
			session->lease.ttl_ms = kept->ttl_ms;
		if (session->state == SESSION_OPEN)
			worked(session);
		begin_open(session);
	}
}

static void keep_alive(struct session *session, uint64_t lease,
	uint32_t deadline_ms,
	void (*done)(void *arg, int status, const char *message,
		const ProtobufCMessage *response))
{
	Peerway__Auth__LeaseKeepAliveRequest request =
		PEERWAY__AUTH__LEASE_KEEP_ALIVE_REQUEST__INIT;

	request.lease_id = lease;
	rpc_unary(session->channel, SERVICE "LeaseKeepAlive", &request.base,
		&peerway__auth__lease_keep_alive_response__descriptor,
		deadline_ms, done, session);
}

/* The previous lease is kept too, as long as records hang on it. */
static void on_previous_kept(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	if (status != GRPC_STATUS_OK)
		log_debug("previous lease not kept alive: %s", message);
}

static void on_keepalive_due(void *arg)
{
	struct session *session = arg;
	uint32_t third = session->lease.ttl_ms / 3;
	uint32_t deadline = has_another_server(session) || third < ANSWER_MS
				    ? ANSWER_MS
				    : third;

	session->asked_at = loop_now(session->loop);
	keep_alive(session, session->lease.id, deadline, on_kept);
	if (session->lease.previous)
		keep_alive(session, session->lease.previous, deadline,
			on_previous_kept);
}

static void on_revoked(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	if (status != GRPC_STATUS_OK && status != GRPC_STATUS_CANCELLED &&
		status != GRPC_STATUS_NOT_FOUND)
		log_warn("previous lease could not be revoked and will run "
			 "out: %s",
			message);
}

static void revoke(struct session *session, uint64_t lease,
	void (*done)(void *arg, int status, const char *message,
		const ProtobufCMessage *response))
{
	Peerway__Auth__LeaseRevokeRequest request =
		PEERWAY__AUTH__LEASE_REVOKE_REQUEST__INIT;

	request.lease_id = lease;
	rpc_unary(session->channel, SERVICE "LeaseRevoke", &request.base,
		&peerway__auth__lease_revoke_response__descriptor, LEAVE_MS,
		done, session);
}

void session_revoke_previous(struct session *session)
{
	uint64_t lease = session->lease.previous;

	if (session->state != SESSION_OPEN || lease == 0)
		return;
	session->lease.previous = 0;
	revoke(session, lease, on_revoked);
}

/* ---- beginning and end ---- */

static void on_refused(void *arg, const char *why)
{
	/* On a gRPC thread; the call's own error says only "unavailable". */
	log_warn("auth server refused: %s", why);
}

static void open_channel(struct session *session)
{
	char name[IDENTITY_SERVER_NAME_MAX];

	identity_server_name(session->conf->cluster_name, name);
	session->channel = rpc_channel_new(session->cq,
		session_address(session), name,
		rpc_channel_creds(session->holder, session->conf->cluster_name,
			IDENTITY_AUTH, NULL, on_refused, NULL));
	set_state(session, SESSION_OPENING);
	if (session->lease.id)
		keep_alive(
			session, session->lease.id, open_ms(session), on_kept);
	else
		grant(session);
}

static void on_retry(void *arg)
{
	open_channel(arg);
}

void session_start(struct session *session, struct rpc_identity *holder)
{
	if (session->state == SESSION_LEAVING ||
		session->conf->auth_servers_count == 0)
		return;
	session->holder = holder;
	set_state(session, SESSION_WAITING);
	close_channel(session);
	open_channel(session);
}

static void on_left(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct session *session = arg;

	session->lease = (struct session_lease){0};
	session->on_left(session->left_arg);
}

static void on_leave_due(void *arg)
{
	struct session *session = arg;

	session->on_left(session->left_arg);
}

void session_leave(struct session *session, bool do_revoke,
	void (*done)(void *arg), void *arg)
{
	bool can = session->state == SESSION_OPEN && session->lease.id != 0;

	session->on_left = done;
	session->left_arg = arg;
	set_state(session, SESSION_LEAVING);
	timer_clear(session->keepalive);
	timer_free(session->retry);
	session->retry = timer_new(session->loop, on_leave_due, session);
	if (can && do_revoke)
		revoke(session, session->lease.id, on_left);
	else
		timer_set(session->retry, 0);
}

/* ---- what others ask ---- */

enum session_state session_state(const struct session *session)
{
	return session->state;
}

struct rpc_channel *session_channel(struct session *session)
{
	return session->state == SESSION_OPEN ? session->channel : NULL;
}

const struct session_lease *session_lease(const struct session *session)
{
	return &session->lease;
}

const char *session_address(const struct session *session)
{
	unsigned count = session->conf->auth_servers_count;

	return count ? session->conf->auth_servers[session->server % count]
		     : "";
}

const char *session_last_error(const struct session *session)
{
	return session->last_error ? session->last_error : "";
}

int64_t session_since_ms(const struct session *session)
{
	return session->since_ms;
}
