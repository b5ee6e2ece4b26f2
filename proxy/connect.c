/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves CONNECT. Talks to route.c, access.c and dial.c. What a newcomer gets
 * wrong: the 200 is written before the session is joined, so nothing that the
 * service says can come ahead of it; what the client said too early is kept and
 * goes ahead of what it says later.
 */
#include <stdio.h>

#include "proxy/access.h"
#include "proxy/answer.h"
#include "proxy/client.h"
#include "proxy/connect.h"
#include "proxy/dial.h"
#include "proxy/route.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"

static void on_answer(void *arg, const struct dial_answer *answer)
{
	struct client *client = arg;
	struct answer_route route = {
		.route = answer->route,
		.proxy_id = answer->proxy_id,
		.client_worker = client->worker->number,
		.tunnel_worker = answer->tunnel_worker,
		.connection_id = client->session.id_text,
	};

	if (!answer->ok) {
		client->dial = NULL;
		client_refuse(client, answer_status_of(answer->code),
			"%s: %s (conn=%s)", client->session.target,
			answer->text, client->session.id_text);
		return;
	}
	client->session.route = answer->route;
	client_answer(client, answer_connected(&route), true);
}

static void on_end(void *arg, int error, uint64_t sent, uint64_t received)
{
	struct client *client = arg;
	struct worker *worker = client->worker;

	client->dial = NULL;
	session_log_end(&client->session, "session ended",
		loop_now(worker->loop), error, sent, received);
	worker_session_ends(worker, sent, received);
	client_drop(client, error ? CLIENT_FAILED : CLIENT_DONE,
		session_error_text(error));
}

static const struct dial_ops dial_ops = {
	.on_answer = on_answer,
	.on_end = on_end,
};

/* Whether the connection may ask for anything at all; answers if not. */
static bool has_user(struct client *client)
{
	if (client->user)
		return true;
	if (client->kind != TRUST_USER)
		client_refuse(
			client, 403, "a host's connection cannot CONNECT");
	else if (client->user_error)
		client_refuse(
			client, 403, "certificate: %s", client->user_error);
	else
		client_refuse(client, 401,
			"CONNECT needs a certificate of the user CA");
	return false;
}

/* Finds the target's service and asks whether it is allowed. */
static bool resolve(
	struct client *client, const char *target, struct target_match *match)
{
	struct access_request access = {.user = client->user, .target = match};
	char why[ROUTE_TEXT_MAX];
	const char *reason;
	enum route_result result =
		route_resolve(client->worker->routes, target, match, why);

	if (result != ROUTE_FOUND) {
		metric_add(&client->worker->metrics,
			proxy_metric_of_result(result), 1);
		client_refuse(
			client, route_status(result), "%s: %s", target, why);
		return false;
	}
	if (!access_is_allowed(&access, &reason)) {
		metric_add(&client->worker->metrics, PROXY_DIAL_DENIED, 1);
		client_refuse(client, 403, "%s: %s", target, reason);
		return false;
	}
	return true;
}

void connect_serve(struct client *client)
{
	struct worker *worker = client->worker;
	const char *target = http_target(client->request);
	struct session *session = &client->session;
	struct dial_ask ask = {.session = session, .user = client->user};
	struct target_match match;

	if (!has_user(client) || !resolve(client, target, &match))
		return;
	if (worker->client_count > worker->conf->proxy.max_clients) {
		client_refuse(
			client, 503, "%s: max_clients is reached", target);
		return;
	}
	session_init(session, loop_now(worker->loop));
	session->target = xstrdup(target);
	session->match = match;
	session->user = xstrdup(client->user->name);
	snprintf(
		session->source, sizeof(session->source), "%s", client->source);
	client_dial(client, dial_start(worker, &ask, &dial_ops, client));
}
