/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions of peerctl that go on to a peer: see inquiry.h. Between control.c,
 * which reads them, and the call to the peer; owns both meanwhile.
 */
#include "peerd/inquiry.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "peerd/mesh.h"
#include "peerd/peers.h"
#include "peerd/ping.h"
#include "shared/alloc.h"

struct inquiry {
	TAILQ_ENTRY(inquiry) entry;
	struct inquiries *inquiries;
	struct ctl_call *call;
	struct unary *unary;
	char peer_id[37];
};

struct inquiries {
	struct peerd *peerd;
	TAILQ_HEAD(, inquiry) list;
	unsigned count;
};

struct inquiries *inquiries_new(struct peerd *peerd)
{
	struct inquiries *inquiries = xcalloc(1, sizeof(*inquiries));

	inquiries->peerd = peerd;
	TAILQ_INIT(&inquiries->list);
	return inquiries;
}

static void inquiry_end(struct inquiry *inquiry)
{
	struct inquiries *inquiries = inquiry->inquiries;

	TAILQ_REMOVE(&inquiries->list, inquiry, entry);
	inquiries->count--;
	loop_free_later(inquiries->peerd->loop, free, inquiry);
}

void inquiries_free(struct inquiries *inquiries)
{
	struct inquiry *inquiry;

	while ((inquiry = TAILQ_FIRST(&inquiries->list))) {
		unary_cancel(inquiry->unary);
		ctl_fail(inquiry->call, "peerd is stopping");
		inquiry_end(inquiry);
	}
	free(inquiries);
}

/* NULL, and the call failed, when there is no such peer or too much is asked.
 */
static struct inquiry *begin(struct inquiries *inquiries, struct ctl_call *call,
	const char *peer, struct channel **channel_out)
{
	struct peers *peers = inquiries->peerd->peers;
	struct inquiry *inquiry;
	char *error = NULL;
	const char *id = peers_named(peers, peer, &error);

	if (!id || inquiries->count == INQUIRIES_MAX) {
		ctl_fail(call, "%s",
			error ? error : "too many questions at once");
		free(error);
		return NULL;
	}
	inquiry = xcalloc(1, sizeof(*inquiry));
	inquiry->inquiries = inquiries;
	inquiry->call = call;
	snprintf(inquiry->peer_id, sizeof(inquiry->peer_id), "%s", id);
	TAILQ_INSERT_TAIL(&inquiries->list, inquiry, entry);
	inquiries->count++;
	*channel_out = peers_channel(peers, id);
	return inquiry;
}

/* ---- ping ---- */

static const char *error_of(const struct unary_answer *answer)
{
	if (answer->status == GRPC_STATUS_OK ||
		answer->status == GRPC_STATUS_UNIMPLEMENTED)
		return NULL;
	if (answer->status == GRPC_STATUS_DEADLINE_EXCEEDED)
		return "no answer within 5 s";
	return answer->text[0] ? answer->text : "it answers with an error";
}

static void on_pong(void *arg, const struct unary_answer *answer)
{
	struct inquiry *inquiry = arg;
	const char *error = error_of(answer);
	json_t *error_json = error ? json_string(error) : json_null();

	ctl_reply(inquiry->call,
		json_pack("{s:s, s:f, s:b, s:b, s:o}", "peer", inquiry->peer_id,
			"ms", (double)answer->us / 1000, "answered", !error,
			"implemented",
			answer->status != GRPC_STATUS_UNIMPLEMENTED, "error",
			error_json ? error_json : json_string("?")));
	inquiry_end(inquiry);
}

void inquiries_ping(
	struct inquiries *inquiries, struct ctl_call *call, const char *peer)
{
	struct channel *channel;
	struct inquiry *inquiry = begin(inquiries, call, peer, &channel);

	if (inquiry)
		inquiry->unary = ping_start(channel, on_pong, inquiry);
}

/* ---- ask ---- */

static void on_answer(void *arg, const struct unary_answer *answer)
{
	struct inquiry *inquiry = arg;
	const char *why;
	json_t *json = mesh_answer(answer, &why);

	if (json)
		ctl_reply(inquiry->call, json);
	else
		ctl_fail(inquiry->call, "peer %s: %s", inquiry->peer_id, why);
	inquiry_end(inquiry);
}

void inquiries_ask(struct inquiries *inquiries, struct ctl_call *call,
	const char *peer, const char *verb, const json_t *args)
{
	struct channel *channel;
	struct inquiry *inquiry = begin(inquiries, call, peer, &channel);

	if (!inquiry)
		return;
	inquiry->unary = mesh_ask(channel, verb, args, on_answer, inquiry);
	if (!inquiry->unary) {
		ctl_fail(call, "the question is too long");
		inquiry_end(inquiry);
	}
}
