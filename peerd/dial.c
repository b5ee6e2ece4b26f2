/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers' dials: the table of them, and the three ways in which one ends. See
 * dial.h for the states; dial_route.c decides whom to ask. Owns the client's
 * descriptor until a sibling or a stream has it.
 *
 * A newcomer's trap: after its end a dial's memory lives until the end of the
 * turn, but it is nobody's any more.
 */
#include "peerd/dial.h"

#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerd/dial_private.h"
#include "peerd/listener.h"
#include "peerd/meters.h"
#include "peerd/worker_link.h"
#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/log.h"
#include "shared/sock.h"

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

	timer_free(dial->timer);
	timer_free(dial->hedge);
	dial->timer = dial->hedge = NULL;
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
	log_limited(LOG_INFO,
		"dial failed: %s agent=%.36s service=%.63s source=%.64s "
		"user=%.64s attempts=%zu ms=%lld conn=%s",
		message, dial->request->agent_id, dial->request->service,
		dial->request->source, dial->request->user,
		dial->attempts.count,
		(long long)(dial_now(dial) - dial->started), hex);
}

/* Who asked is in this process, not at a worker. */
static void tell_own(struct dial *dial, struct dial_outcome outcome)
{
	if (!dial->on_outcome)
		return;
	outcome.attempts = dial->attempts.pointers;
	outcome.attempt_count = dial->attempts.count;
	dial->on_outcome(dial->arg, &outcome);
}

void dial_fail(
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
	tell_own(dial, (struct dial_outcome){.message = message});
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
	tell_own(dial, (struct dial_outcome){
			       .route = route,
			       .proxy_id = proxy_id,
			       .worker = worker,
			       .report = dial->reported ? &dial->report : NULL,
		       });
}

void dial_taken(struct dial *dial, uint32_t worker)
{
	struct peerd *peerd = dial->dials->peerd;

	attempts_end(&dial->attempts, dial->ask_attempt, NULL, dial_now(dial));
	metric_add(&peerd->metrics, METER_DIALS_SIBLING, 1);
	reply_ok(dial, PEERWAY__IPC__ROUTE__ROUTE_SIBLING, peerd->id, worker);
	dial_end(dial, false);
}

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
		(long long)(dial_now(dial) - dial->started), hex);
	dial->stream = NULL;
	TAILQ_REMOVE(&dial->dials->joined, dial, entry);
	dial->dials->joined_count--;
	loop_free_later(dial->dials->peerd->loop, dial_free, dial);
}

void dial_join(
	struct dial *dial, const char *proxy_id, struct client_call *call)
{
	struct dials *dials = dial->dials;
	int fd = dial->fd;

	strcpy(dial->proxy_id, proxy_id);
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
	dial->started = dial_now(dial);
	if (request->deadline_ms && request->deadline_ms < limit)
		limit = request->deadline_ms;
	dial->deadline = dial->started + limit;
	dial->timer = timer_new(dials->peerd->loop, dial_on_deadline, dial);
	timer_set(dial->timer, limit);
	dial->hedge = timer_new(dials->peerd->loop, dial_on_hedge, dial);
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
	struct dial **node =
		dial->link ? tsearch(dial, &dials->by_id, compare) : &dial;

	if (!node || *node != dial) {
		dial->link = 0; /* the name is another one's */
		return "dial id used twice";
	}
	if (dials->pending_count > DIALS_MAX)
		return "too many dials under way";
	if (listener_needs_fd(dial->fd))
		return "this proxy is out of descriptors";
	if (!identity_uuid_is_valid(dial->request->agent_id))
		return "not an agent's uuid";
	if (fcntl(dial->fd, F_SETFL, fcntl(dial->fd, F_GETFL) | O_NONBLOCK) < 0)
		return "not a descriptor that can be used";
	return NULL;
}

static void begin(struct dial *dial)
{
	const char *why = admit(dial);

	if (why) {
		dial_fail(dial, CODE(INTERNAL), why);
		return;
	}
	dial_route(dial);
}

void dials_begin(struct dials *dials, uint64_t link,
	const Peerway__Ipc__Dial *request, int fd)
{
	begin(dial_new(dials, link, request, fd));
}

void dials_begin_own(struct dials *dials, const Peerway__Ipc__Dial *request,
	int fd,
	void (*on_outcome)(void *arg, const struct dial_outcome *outcome),
	void *arg)
{
	struct dial *dial = dial_new(dials, 0, request, fd);

	dial->on_outcome = on_outcome;
	dial->arg = arg;
	begin(dial);
}

void dials_cancel(struct dials *dials, uint64_t link, uint64_t id)
{
	struct dial key = {.link = link, .id = id};
	struct dial **node = tfind(&key, &dials->by_id, compare);
	struct dial *dial = node ? *node : NULL;

	if (!dial)
		return;
	dial_stop_asking(dial);
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
			dial_stop_asking(dial);
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
		dial_stop_asking(dial);
		dial_fail(dial, CODE(OFFLINE), "this proxy is stopping");
	}
	TAILQ_FOREACH (dial, &dials->joined, entry)
		stream_abort(dial->stream, "this proxy is stopping");
}
