/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish calls. Used by main.c's wiring: links.c pokes, session.c's events
 * come in. Owns the batch under way and the host's record.
 *
 * What is easily got wrong: when a call is lost, authd may have stored it or
 * not; publish.c knows that a lost batch must be said again whatever happens.
 */

#include <stdlib.h>

#include "routed/publisher.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define GATHER_MS 20	/* reports of one moment become one batch */
#define REFUSED_MS 5000 /* before a refused batch is tried again */
#define CALL_MS 5000
#define PUBLISH "/peerway.auth.AuthService/Publish"

struct publisher {
	struct loop *loop;
	struct session *session;
	struct publish *publish;
	Peerway__Record__ProxyRecord *record; /* NULL: strategy not known yet */
	bool synced;
	bool record_said; /* under the present lease */
	bool calling;
	struct publish_batch batch; /* while calling */
	struct timer *gather;
};

static void on_gathered(void *arg);

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

static void on_refused(
	struct publisher *publisher, int status, const char *message)
{
	if (status == GRPC_STATUS_FAILED_PRECONDITION ||
		status == GRPC_STATUS_NOT_FOUND) {
		session_lose_lease(publisher->session, status, message);
	} else if (session_is_fatal(status)) {
		session_fail(
			publisher->session, "not published", status, message);
	} else {
		log_error("authd refuses this host's records: %s status=%d",
			message, status);
		timer_set(publisher->gather, REFUSED_MS);
	}
}

static void on_published(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct publisher *publisher = arg;
	bool stored = status == GRPC_STATUS_OK;

	publisher->calling = false;
	publish_done(publisher->publish, &publisher->batch, stored);
	if (!stored) {
		on_refused(publisher, status, message);
		return;
	}
	publisher->record_said = true;
	timer_set(publisher->gather, 0); /* whatever has come meanwhile */
}

static void call(struct publisher *publisher, struct rpc_channel *channel)
{
	const struct session_lease *lease = session_lease(publisher->session);
	Peerway__Auth__PublishRequest request =
		PEERWAY__AUTH__PUBLISH_REQUEST__INIT;

	publisher->calling = true;
	publisher->record->epoch = lease->epoch;
	request.lease_id = lease->id;
	request.epoch = lease->epoch;
	request.proxy = publisher->record_said ? NULL : publisher->record;
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
	if (publish_next(publisher->publish, &publisher->batch) ||
		!publisher->record_said)
		call(publisher, channel);
	else
		session_revoke_previous(publisher->session);
}

/* ---- events ---- */

void publisher_poke(struct publisher *publisher)
{
	if (!timer_is_set(publisher->gather))
		timer_set(publisher->gather, GATHER_MS);
}

void publisher_set_record(
	struct publisher *publisher, Peerway__Record__ProxyRecord *record)
{
	if (publisher->record)
		peerway__record__proxy_record__free_unpacked(
			publisher->record, NULL);
	publisher->record = record;
	publisher->record_said = false;
	publisher_poke(publisher);
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
	publisher->record_said = false;
}

void publisher_on_open(struct publisher *publisher)
{
	publisher_poke(publisher);
}
