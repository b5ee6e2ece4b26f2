/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes workers' dials: see dial.h for the states. Owns the client's
 * descriptor until a sibling or a stream has it, and the record of attempts.
 * Asks ask.c (siblings), client.c (peers) and routed_link.c (authd).
 *
 * A newcomer's trap: exactly one of ask, call and lookup is pending in each
 * state, and each callback first clears its own field. After dial_end() the
 * dial's memory lives until the end of the turn, but is nobody's.
 */
#include "peerd/dial.h"

#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "peerd/attempts.h"
#include "peerd/candidates.h"
#include "peerd/client.h"
#include "peerd/connection_id.h"
#include "peerd/meters.h"
#include "peerd/peers.h"
#include "peerd/refusal.h"
#include "peerd/routed_link.h"
#include "peerd/switchboard.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

#define LOOKUP_MS 3000

#define CODE(name) PEERWAY__IPC__DIAL_CODE__DIAL_##name

struct dial {
	TAILQ_ENTRY(dial) entry; /* in dials->pending or ->joined */
	struct dials *dials;
	uint64_t link; /* who asked; 0: has gone */
	uint64_t id;   /* its own number for it */
	Peerway__Ipc__Dial *request;
	uint8_t connection_id[CONNECTION_ID_SIZE];
	int fd;
	int64_t started;
	int64_t deadline;

	/* what we are waiting for: at most one of them */
	uint64_t ask;
	uint64_t lookup;
	struct client_call *call;
	struct stream *stream;

	struct attempts attempts;
	struct candidates candidates;
	bool looked_up;
	char proxy_id[37];	      /* asked now */
	Peerway__Ipc__DialCode worst; /* most telling refusal so far */
};

struct dials {
	struct peerd *peerd;
	TAILQ_HEAD(dial_list, dial) pending;
	struct dial_list joined;
	size_t pending_count;
	size_t joined_count;
	void *by_id; /* tree of the pending ones by link and id */
};

static void ask_next(struct dial *dial);

static int compare(const void *a, const void *b)
{
	const struct dial *left = a, *right = b;

	if (left->link != right->link)
		return left->link < right->link ? -1 : 1;
	if (left->id != right->id)
		return left->id < right->id ? -1 : 1;
	return 0;
}

struct dials *dials_new(struct peerd *peerd)
{
	struct dials *dials = xcalloc(1, sizeof(*dials));

	dials->peerd = peerd;
	TAILQ_INIT(&dials->pending);
	TAILQ_INIT(&dials->joined);
	return dials;
}

void dials_free(struct dials *dials)
{
	free(dials);
}

static int64_t now(const struct dial *dial)
{
	return loop_now(dial->dials->peerd->loop);
}

static int64_t time_left(const struct dial *dial)
{
	return dial->deadline - now(dial);
}

/* ---- the end of a dial ---- */

static void dial_free(void *ptr)
{
	struct dial *dial = ptr;

	attempts_deinit(&dial->attempts);
	peerway__ipc__dial__free_unpacked(dial->request, NULL);
	free(dial);
}

/* No longer pending: joined, or over. */
static void leave_pending(struct dial *dial)
{
	struct dials *dials = dial->dials;

	TAILQ_REMOVE(&dials->pending, dial, entry);
	dials->pending_count--;
	metric_add(&dials->peerd->metrics, METER_DIALS_PENDING, -1);
	if (dial->link)
		tdelete(dial, &dials->by_id, compare);
}

/* Closes our copy of the descriptor, if we still have one. */
static void dial_end(struct dial *dial, bool reset)
{
	leave_pending(dial);
	if (dial->fd >= 0) {
		if (reset && dial->request->raw)
			sock_reset_on_close(dial->fd);
		close(dial->fd);
		dial->fd = -1;
	}
	loop_free_later(dial->dials->peerd->loop, dial_free, dial);
}

static void log_failure(const struct dial *dial, const char *message)
{
	char hex[2 * CONNECTION_ID_SIZE + 1];

	connection_id_format(dial->connection_id, hex);
	log_info("dial failed: %s agent=%.36s service=%.63s source=%.64s "
		 "user=%.64s attempts=%zu ms=%lld conn=%s",
		message, dial->request->agent_id, dial->request->service,
		dial->request->source, dial->request->user,
		dial->attempts.count, (long long)(now(dial) - dial->started),
		hex);
}

static void dial_fail(
	struct dial *dial, Peerway__Ipc__DialCode code, const char *message)
{
	Peerway__Ipc__DialFailed failed = PEERWAY__IPC__DIAL_FAILED__INIT;

	metric_add(&dial->dials->peerd->metrics, METER_DIALS_FAILED, 1);
	log_failure(dial, message);
	failed.id = dial->id;
	failed.code = code;
	failed.message = (char *)message;
	failed.n_attempts = dial->attempts.count;
	failed.attempts = dial->attempts.pointers;
	if (dial->link)
		worker_links_send(dial->dials->peerd->workers, dial->link,
			IPC_DIAL_FAILED, &failed.base, -1);
	dial_end(dial, true);
}

static void reply_ok(struct dial *dial, Peerway__Ipc__Route route,
	const char *proxy_id, uint32_t worker)
{
	Peerway__Ipc__DialOk ok = PEERWAY__IPC__DIAL_OK__INIT;

	ok.id = dial->id;
	ok.route = route;
	ok.proxy_id = (char *)proxy_id;
	ok.worker = worker;
	ok.n_attempts = dial->attempts.count;
	ok.attempts = dial->attempts.pointers;
	if (dial->link)
		worker_links_send(dial->dials->peerd->workers, dial->link,
			IPC_DIAL_OK, &ok.base, -1);
}

/* An attempt has failed: go on, or give up. */
static void attempt_failed(
	struct dial *dial, Peerway__Ipc__DialCode code, const char *message)
{
	attempts_end(&dial->attempts, message, now(dial));
	if (!refusal_may_retry(code)) {
		dial_fail(dial, code, message);
		return;
	}
	if (code != CODE(OFFLINE))
		dial->worst = code;
	ask_next(dial);
}

/* ---- a sibling ---- */

static void on_sibling_answer(void *arg, const struct ask_answer *answer)
{
	struct dial *dial = arg;
	struct peerd *peerd = dial->dials->peerd;

	dial->ask = 0;
	if (answer->code != CODE(CODE_NONE)) {
		attempt_failed(dial, answer->code, answer->message);
		return;
	}
	attempts_end(&dial->attempts, NULL, now(dial));
	metric_add(&peerd->metrics, METER_DIALS_SIBLING, 1);
	reply_ok(dial, PEERWAY__IPC__ROUTE__ROUTE_SIBLING, peerd->id,
		answer->worker);
	dial_end(dial, false);
}

static void ask_sibling(struct dial *dial, const struct tunnel_entry *tunnel)
{
	struct peerd *peerd = dial->dials->peerd;
	Peerway__Ipc__Dial ask = *dial->request;
	int copy = fcntl(dial->fd, F_DUPFD_CLOEXEC, 0);

	attempts_begin(&dial->attempts, PEERWAY__IPC__ROUTE__ROUTE_SIBLING,
		peerd->id, now(dial));
	if (copy < 0) {
		attempt_failed(dial, CODE(INTERNAL),
			"this proxy is out of descriptors");
		return;
	}
	ask.connection_id.data = dial->connection_id;
	ask.connection_id.len = CONNECTION_ID_SIZE;
	ask.deadline_ms = (uint32_t)time_left(dial);
	ask.from_peer = false;
	dial->ask = asks_start(peerd->switchboard->asks, tunnel->link, &ask,
		copy, on_sibling_answer, dial);
	if (!dial->ask)
		attempt_failed(dial, CODE(OFFLINE),
			"the worker that held the tunnel has gone");
}

/* ---- a peer ---- */

static void on_stream_end(void *arg, const struct stream_result *result)
{
	struct dial *dial = arg;
	char hex[2 * CONNECTION_ID_SIZE + 1];

	connection_id_format(dial->connection_id, hex);
	log_info(
		"stream ended: %s side=caller route=peer peer=%s agent=%.36s "
		"service=%.63s source=%.64s user=%.64s sent=%llu received=%llu "
		"ms=%lld conn=%s",
		result->why, dial->proxy_id, dial->request->agent_id,
		dial->request->service, dial->request->source,
		dial->request->user, (unsigned long long)result->sent,
		(unsigned long long)result->received,
		(long long)(now(dial) - dial->started), hex);
	dial->stream = NULL;
	TAILQ_REMOVE(&dial->dials->joined, dial, entry);
	dial->dials->joined_count--;
	loop_free_later(dial->dials->peerd->loop, dial_free, dial);
}

static void join(struct dial *dial, struct client_call *call)
{
	struct dials *dials = dial->dials;
	int fd = dial->fd;

	attempts_end(&dial->attempts, NULL, now(dial));
	metric_add(&dials->peerd->metrics, METER_DIALS_PEER, 1);
	reply_ok(dial, PEERWAY__IPC__ROUTE__ROUTE_PEER, dial->proxy_id, 0);
	leave_pending(dial);
	TAILQ_INSERT_TAIL(&dials->joined, dial, entry);
	dials->joined_count++;
	dial->fd = -1;
	if (dial->request->raw)
		sock_nodelay(fd);
	dial->stream =
		client_join(call, fd, dial->request->raw, on_stream_end, dial);
}

static void on_peer_answer(void *arg, const struct client_answer *answer)
{
	struct dial *dial = arg;
	struct client_call *call = dial->call;

	dial->call = NULL;
	if (answer->code == CODE(CODE_NONE))
		join(dial, call);
	else
		attempt_failed(dial, answer->code, answer->text);
}

static void ask_peer(struct dial *dial, struct channel *channel)
{
	const struct request_fields fields = {
		.agent_id = dial->request->agent_id,
		.cluster = dial->dials->peerd->conf->cluster_name,
		.type = dial->request->type,
		.source = dial->request->source,
		.service = dial->request->service,
		.port = dial->request->port,
	};
	const struct client_dial setup = {
		.fields = &fields,
		.connection_id = dial->connection_id,
		.user = dial->request->user,
		.deadline_ms = candidates_share(time_left(dial),
			candidates_untried(&dial->candidates) + 1),
		.on_answer = on_peer_answer,
		.arg = dial,
	};

	dial->call = client_dial(channel, &setup);
}

/* Adds who holds the agent, of those not yet asked. */
static void add_candidate(struct dial *dial, const char *proxy_id)
{
	struct peerd *peerd = dial->dials->peerd;

	if (strcmp(proxy_id, peerd->id) != 0)
		candidates_add(&dial->candidates, proxy_id,
			peers_health(peerd->peers, proxy_id));
}

static void add_holders(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;
	struct cache_holder holders[CANDIDATES_MAX];
	int count = peerd->cache ? cache_holders(peerd->cache,
					   dial->request->agent_id, holders,
					   CANDIDATES_MAX)
				 : 0;

	for (int i = 0; i < count; i++)
		add_candidate(dial, holders[i].proxy_id);
}

/* ---- authd ---- */

static void on_looked_up(void *arg, const Peerway__Ipc__LookupReply *reply)
{
	struct dial *dial = arg;

	dial->lookup = 0;
	if (reply->error[0]) {
		log_debug("lookup failed: %s agent=%s", reply->error,
			dial->request->agent_id);
	} else {
		for (size_t i = 0; i < reply->n_tunnels; i++)
			add_candidate(dial, reply->tunnels[i]->proxy_id);
	}
	ask_next(dial);
}

static bool look_up(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;
	int64_t limit = time_left(dial) / 2;

	dial->looked_up = true;
	if (limit > LOOKUP_MS)
		limit = LOOKUP_MS;
	dial->lookup = routed_link_lookup(peerd->routed,
		dial->request->agent_id, (uint32_t)limit, on_looked_up, dial);
	return dial->lookup != 0;
}

/* ---- whom to ask next ---- */

static void give_up(struct dial *dial)
{
	Peerway__Ipc__DialCode code = dial->worst;

	if (time_left(dial) <= 0)
		dial_fail(dial, CODE(TIMED_OUT), "dial timeout");
	else if (dial->attempts.count == 0)
		dial_fail(dial, CODE(OFFLINE),
			"agent is offline: no proxy holds a tunnel of it");
	else
		dial_fail(dial, code == CODE(CODE_NONE) ? CODE(OFFLINE) : code,
			"agent is offline: every proxy that holds a tunnel of "
			"it has failed");
}

static void ask_next(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;

	while (time_left(dial) > 0 && !dial->request->from_peer) {
		struct candidate *candidate =
			candidates_next(&dial->candidates);
		struct channel *channel;

		if (!candidate) {
			if (!dial->looked_up && look_up(dial))
				return;
			break;
		}
		strcpy(dial->proxy_id, candidate->proxy_id);
		attempts_begin(&dial->attempts, PEERWAY__IPC__ROUTE__ROUTE_PEER,
			dial->proxy_id, now(dial));
		channel = peers_channel(peerd->peers, dial->proxy_id);
		if (channel) {
			ask_peer(dial, channel);
			return;
		}
		attempts_end(&dial->attempts,
			"this proxy does not take part in peering", now(dial));
	}
	give_up(dial);
}

/* ---- from the worker ---- */

static Peerway__Ipc__Dial *copy_request(const Peerway__Ipc__Dial *request)
{
	size_t len = peerway__ipc__dial__get_packed_size(request);
	uint8_t *bytes = xcalloc(1, len + 1);
	Peerway__Ipc__Dial *copy;

	peerway__ipc__dial__pack(request, bytes);
	copy = peerway__ipc__dial__unpack(NULL, len, bytes);
	free(bytes);
	if (!copy)
		fatal("out of memory");
	return copy;
}

static struct dial *dial_new(struct dials *dials, uint64_t link,
	const Peerway__Ipc__Dial *request, int fd)
{
	uint32_t limit = dials->peerd->conf->proxy.dial_timeout;
	struct dial *dial = xcalloc(1, sizeof(*dial));

	dial->dials = dials;
	dial->link = link;
	dial->id = request->id;
	dial->request = copy_request(request);
	dial->fd = fd;
	dial->started = now(dial);
	if (request->deadline_ms && request->deadline_ms < limit)
		limit = request->deadline_ms;
	dial->deadline = dial->started + limit;
	memcpy(dial->connection_id, request->connection_id.data,
		CONNECTION_ID_SIZE);
	TAILQ_INSERT_TAIL(&dials->pending, dial, entry);
	dials->pending_count++;
	metric_add(&dials->peerd->metrics, METER_DIALS_PENDING, 1);
	return dial;
}

/* NULL, or why it cannot be routed at all. Takes the (link, id) pair. */
static const char *admit(struct dial *dial)
{
	struct dials *dials = dial->dials;
	struct dial **node = tsearch(dial, &dials->by_id, compare);

	if (!node || *node != dial) {
		dial->link = 0; /* the name is another one's */
		return "dial id used twice";
	}
	if (dials->pending_count > DIALS_MAX)
		return "too many dials under way";
	if (!identity_uuid_is_valid(dial->request->agent_id))
		return "not an agent's uuid";
	if (fcntl(dial->fd, F_SETFL, fcntl(dial->fd, F_GETFL) | O_NONBLOCK) < 0)
		return "not a descriptor that can be used";
	return NULL;
}

void dials_begin(struct dials *dials, uint64_t link,
	const Peerway__Ipc__Dial *request, int fd)
{
	struct dial *dial = dial_new(dials, link, request, fd);
	const struct tunnel_entry *tunnel;
	const char *why = admit(dial);

	if (why) {
		dial_fail(dial, CODE(INTERNAL), why);
		return;
	}
	add_holders(dial);
	tunnel = tunnels_find(
		dials->peerd->switchboard->tunnels, dial->request->agent_id);
	if (tunnel)
		ask_sibling(dial, tunnel);
	else
		ask_next(dial);
}

/* Lets go of what is pending; no callback follows. */
static void stop_waiting(struct dial *dial)
{
	struct peerd *peerd = dial->dials->peerd;

	if (dial->ask)
		asks_cancel(peerd->switchboard->asks, dial->ask);
	if (dial->lookup)
		routed_link_cancel(peerd->routed, dial->lookup);
	if (dial->call)
		client_cancel(dial->call);
	dial->ask = dial->lookup = 0;
	dial->call = NULL;
}

void dials_cancel(struct dials *dials, uint64_t link, uint64_t id)
{
	struct dial key = {.link = link, .id = id};
	struct dial **node = tfind(&key, &dials->by_id, compare);
	struct dial *dial = node ? *node : NULL;

	if (!dial)
		return;
	stop_waiting(dial);
	log_debug("dial cancelled: the client has gone agent=%s",
		dial->request->agent_id);
	dial_end(dial, true);
}

void dials_worker_gone(struct dials *dials, uint64_t link)
{
	struct dial *dial, *next;

	for (dial = TAILQ_FIRST(&dials->pending); dial; dial = next) {
		next = TAILQ_NEXT(dial, entry);
		if (dial->link != link)
			continue;
		if (dial->request->raw) {
			tdelete(dial, &dials->by_id, compare);
			dial->link = 0;
		} else {
			stop_waiting(dial);
			dial_end(dial, false);
		}
	}
}

size_t dials_pending(const struct dials *dials)
{
	return dials->pending_count;
}

size_t dials_joined(const struct dials *dials)
{
	return dials->joined_count;
}

void dials_cut_all(struct dials *dials)
{
	struct dial *dial;

	while ((dial = TAILQ_FIRST(&dials->pending))) {
		stop_waiting(dial);
		dial_fail(dial, CODE(OFFLINE), "this proxy is stopping");
	}
	TAILQ_FOREACH (dial, &dials->joined, entry)
		stream_abort(dial->stream, "this proxy is stopping");
}
