/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish calls. Used by main.c's wiring: links.c pokes, session.c's events
 * come in. Owns the batch under way and the host's record.
 *
 * What is easily got wrong: when a call is lost, authd may have stored it or
 * not, or may store it later. publish.c knows that a lost batch must be said
 * again whatever happens; session.c that it is said under a new epoch.
 */

#include <stdio.h>
#include <stdlib.h>

#include "routed/publisher.h"
#include "shared/alloc.h"
#include "shared/log.h"

/* From one call to the next: reports of one moment become one batch. The first
 * after a quiet moment waits for nothing. */
#define GATHER_MS 20
#define REFUSED_MS 5000 /* before our own record is tried again */
#define BUSY_MS 1000
/* A server that has gone is found out by the keepalive; one that is only busy
 * is not made busier by saying everything anew. */
#define CALL_MS 15000
#define PUBLISH "/peerway.auth.AuthService/Publish"

struct publisher {
	struct loop *loop;
	struct session *session;
	struct publish *publish;
	Peerway__Record__ProxyRecord *record; /* NULL: strategy not known yet */
	bool synced;
	bool draining;
	unsigned version; /* of the record */
	unsigned saying;  /* while calling */
	unsigned said;	  /* under the present lease; 0: nothing */
	bool calling;
	struct publish_batch batch; /* while calling */
	struct timer *gather;
	int64_t called_at;
};

static void on_gathered(void *arg);

static bool is_record_said(const struct publisher *publisher)
{
	return publisher->said == publisher->version;
}

struct publisher *publisher_new(
	struct loop *loop, struct session *session, struct publish *publish)
{
	struct publisher *publisher = xcalloc(1, sizeof(*publisher));

	publisher->loop = loop;
	publisher->session = session;
	publisher->publish = publish;
	publisher->gather = timer_new(loop, on_gathered, publisher);
	return publisher;
}

void publisher_free(struct publisher *publisher)
{
	if (!publisher)
		return;
	timer_free(publisher->gather);
	if (publisher->record)
		peerway__record__proxy_record__free_unpacked(
			publisher->record, NULL);
	free(publisher);
}

/* ---- the call ---- */

/* What was said is no fault of the server's or of the lease's. */
static void on_refused(
	struct publisher *publisher, int status, const char *message)
{
	bool record = !is_record_said(publisher);
	struct publish_batch *batch = &publisher->batch;
	char agent[37] = "";

	if (batch->put_count > 0)
		snprintf(agent, sizeof(agent), "%s", batch->put[0]->agent_id);
	if (record)
		log_error("authd refuses this host's record: %s status=%d",
			message, status);
	else if (publish_refused(publisher->publish, batch))
		log_error("authd refuses an agent's record: %s agent=%s "
			  "status=%d",
			message, agent, status);
	timer_set(publisher->gather, record ? REFUSED_MS : 0);
}

static void on_lost(
	struct publisher *publisher, int status, const char *message)
{
	publish_done(publisher->publish, &publisher->batch, false);
	if (status == GRPC_STATUS_FAILED_PRECONDITION ||
		status == GRPC_STATUS_NOT_FOUND) {
		session_lose_lease(publisher->session, status, message);
		return;
	}
	session_doubt_lease(publisher->session);
	session_fail(publisher->session, "not published", status, message);
}

static void on_published(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct publisher *publisher = arg;

	publisher->calling = false;
	if (status == GRPC_STATUS_OK) {
		session_heard(publisher->session);
		publish_done(publisher->publish, &publisher->batch, true);
		publisher->said = publisher->saying;
		/* whatever has come meanwhile */
		timer_set(publisher->gather, 0);
	} else if (status == GRPC_STATUS_INVALID_ARGUMENT ||
		   status == GRPC_STATUS_PERMISSION_DENIED) {
		on_refused(publisher, status, message);
	} else if (status == GRPC_STATUS_ABORTED ||
		   status == GRPC_STATUS_RESOURCE_EXHAUSTED) {
		log_warn("not published, trying again: %s status=%d", message,
			status);
		publish_done(publisher->publish, &publisher->batch, false);
		timer_set(publisher->gather, BUSY_MS);
	} else {
		on_lost(publisher, status, message);
	}
}

static void call(struct publisher *publisher, struct rpc_channel *channel)
{
	const struct session_lease *lease = session_lease(publisher->session);
	Peerway__Auth__PublishRequest request =
		PEERWAY__AUTH__PUBLISH_REQUEST__INIT;

	publisher->calling = true;
	publisher->called_at = loop_now(publisher->loop);
	publisher->saying = publisher->version;
	publisher->record->epoch = lease->epoch;
	request.lease_id = lease->id;
	request.epoch = lease->epoch;
	request.proxy = is_record_said(publisher) ? NULL : publisher->record;
	request.put = publisher->batch.put;
	request.n_put = publisher->batch.put_count;
	request.remove_agent_id = publisher->batch.removed;
	request.n_remove_agent_id = publisher->batch.removed_count;
	rpc_unary(channel, PUBLISH, &request.base,
		&peerway__auth__publish_response__descriptor, CALL_MS,
		on_published, publisher);
}

static void on_gathered(void *arg)
{
	struct publisher *publisher = arg;
	struct rpc_channel *channel = session_channel(publisher->session);

	if (publisher->calling || !channel || !publisher->synced ||
		!publisher->record)
		return;
	/* The host's record goes first and alone: tunnels follow it. */
	if (!is_record_said(publisher) ||
		publish_next(publisher->publish, &publisher->batch))
		call(publisher, channel);
	else
		session_revoke_previous(publisher->session);
}

/* ---- events ---- */

void publisher_poke(struct publisher *publisher)
{
	int64_t rest =
		publisher->called_at + GATHER_MS - loop_now(publisher->loop);

	if (!timer_is_set(publisher->gather))
		timer_set(publisher->gather, rest > 0 ? rest : 0);
}

static void say_record(struct publisher *publisher)
{
	publisher->record->state =
		publisher->draining ? PEERWAY__RECORD__PROXY_STATE__DRAINING
				    : PEERWAY__RECORD__PROXY_STATE__SERVING;
	publisher->version++;
	publisher_poke(publisher);
}

void publisher_set_record(
	struct publisher *publisher, Peerway__Record__ProxyRecord *record)
{
	if (publisher->record)
		peerway__record__proxy_record__free_unpacked(
			publisher->record, NULL);
	publisher->record = record;
	say_record(publisher);
}

void publisher_set_draining(struct publisher *publisher, bool draining)
{
	publisher->draining = draining;
	if (publisher->record)
		say_record(publisher);
}

bool publisher_has_record(const struct publisher *publisher)
{
	return publisher->record != NULL;
}

void publisher_set_synced(struct publisher *publisher)
{
	publisher->synced = true;
	publisher_poke(publisher);
}

void publisher_on_lease(struct publisher *publisher)
{
	publish_reset(publisher->publish);
	publisher->said = 0;
}

void publisher_on_open(struct publisher *publisher)
{
	publisher_poke(publisher);
}
