/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients without TLS. Owns an accepted socket until it is joined or given to
 * peerd. Talks to dial.c for a tunnel that ends here, to peerd otherwise.
 *
 * What a newcomer gets wrong: after the socket went to peerd there is nothing
 * left here, not even an id; peerd's answer finds nobody, and that is right.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/access.h"
#include "proxy/dial.h"
#include "proxy/listener.h"
#include "proxy/registry.h"
#include "proxy/route.h"
#include "proxy/stream.h"
#include "proxy/tcp_listener.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/cidr.h"
#include "shared/log.h"

struct tcp_listener {
	const struct conf_tcp_listener *conf;
	unsigned reloads; /* the worker's when allow_from was read */
	unsigned range_count;
	struct cidr *ranges;
};

struct tcp_session {
	TAILQ_ENTRY(tcp_session) entry;
	struct worker *worker;
	int fd; /* -1: joined or given away */
	bool joined;
	struct dial *dial;
	struct session session;
};

static void free_session(void *arg)
{
	struct tcp_session *tcp = arg;

	session_deinit(&tcp->session);
	free(tcp);
}

/* The only end of a session; closes what is still here with a reset. */
static void drop(struct tcp_session *tcp)
{
	struct worker *worker = tcp->worker;

	if (tcp->fd >= 0) {
		sock_reset_on_close(tcp->fd);
		close(tcp->fd);
	}
	TAILQ_REMOVE(&worker->tcp_sessions, tcp, entry);
	worker->client_count--;
	loop_free_later(worker->loop, free_session, tcp);
	listener_resume_all(worker);
}

static void hand_over(struct tcp_session *tcp)
{
	struct worker *worker = tcp->worker;
	char *groups[IDENTITY_GROUPS_MAX];
	Peerway__Ipc__Dial message;

	if (!ipc_link_is_up(worker->peerd)) {
		log_limited(LOG_WARN,
			"tcp client dropped: no tunnel here, and peerd is not "
			"reachable target=%s source=%s",
			tcp->session.target, tcp->session.source);
		drop(tcp);
		return;
	}
	dial_describe(&tcp->session, NULL, groups, &message);
	message.id = ++worker->last_id;
	message.deadline_ms = worker->conf->proxy.dial_timeout;
	message.raw = true;
	if (ipc_link_send(worker->peerd, IPC_DIAL, &message.base, tcp->fd))
		log_limited(LOG_WARN,
			"tcp client dropped: peerd does not read target=%s "
			"source=%s",
			tcp->session.target, tcp->session.source);
	else
		metric_add(&worker->metrics, PROXY_HANDED_OVER, 1);
	log_debug("socket given to peerd: target=%s source=%s conn=%s",
		tcp->session.target, tcp->session.source, tcp->session.id_text);
	tcp->fd = -1;
	drop(tcp);
}

static void on_answer(void *arg, const struct dial_answer *answer)
{
	struct tcp_session *tcp = arg;
	struct worker *worker = tcp->worker;
	struct chan *chan;

	if (answer->ok) {
		tcp->session.route = answer->route;
		tcp->joined = true;
		worker_session_begins(worker);
		chan = chan_new_fd(worker->loop, tcp->fd);
		tcp->fd = -1;
		dial_join(tcp->dial, chan, NULL, 0);
		return;
	}
	tcp->dial = NULL;
	if (answer->code == PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE) {
		hand_over(tcp);
		return;
	}
	log_limited(LOG_INFO,
		"tcp client dropped: %s target=%s source=%s conn=%s",
		answer->text, tcp->session.target, tcp->session.source,
		tcp->session.id_text);
	metric_add(&worker->metrics, proxy_metric_of_code(answer->code), 1);
	drop(tcp);
}

static void on_end(void *arg, int error, uint64_t sent, uint64_t received)
{
	struct tcp_session *tcp = arg;
	struct worker *worker = tcp->worker;

	session_log_end(&tcp->session, "session ended", loop_now(worker->loop),
		error, sent, received);
	worker_session_ends(worker, sent, received);
	drop(tcp);
}

static const struct dial_ops dial_ops = {
	.on_answer = on_answer,
	.on_end = on_end,
};

static void read_allow_from(
	const struct worker *worker, struct tcp_listener *listener)
{
	static const char *const loopback[] = {"127.0.0.0/8", "::1"};
	const char *const *texts =
		(const char *const *)listener->conf->allow_from;
	unsigned count = listener->conf->allow_from_count;

	if (!count) {
		texts = loopback;
		count = sizeof(loopback) / sizeof(loopback[0]);
	}
	listener->reloads = worker->reloads;
	listener->range_count = 0;
	free(listener->ranges);
	listener->ranges = xcalloc(count, sizeof(*listener->ranges));
	for (unsigned i = 0; i < count; i++) {
		if (cidr_parse(
			    texts[i], &listener->ranges[listener->range_count]))
			log_error("allow_from: not an address range: %s",
				texts[i]);
		else
			listener->range_count++;
	}
}

static bool is_allowed(const struct worker *worker,
	struct tcp_listener *listener, const struct sock_addr *from)
{
	if (listener->reloads != worker->reloads)
		read_allow_from(worker, listener);
	for (unsigned i = 0; i < listener->range_count; i++) {
		if (cidr_contains(&listener->ranges[i], from))
			return true;
	}
	return false;
}

/* Why this client is not served, or NULL and the target's service. */
static const char *check(struct worker *worker,
	const struct tcp_listener *listener, struct target_match *match,
	char why[ROUTE_TEXT_MAX])
{
	struct access_request access = {.allowed_from = true, .target = match};
	const char *reason = NULL;
	enum route_result result = route_resolve(
		worker->routes, listener->conf->target, match, why);

	if (result != ROUTE_FOUND) {
		metric_add(&worker->metrics, proxy_metric_of_result(result), 1);
		return why;
	}
	if (!access_is_allowed(&access, &reason))
		metric_add(&worker->metrics, PROXY_DIAL_DENIED, 1);
	return reason;
}

static void refuse(struct worker *worker, const struct tcp_listener *listener,
	int fd, const char *why, const char *source)
{
	log_limited(LOG_INFO, "tcp client refused: %s target=%s source=%s", why,
		listener->conf->target, source);
	sock_reset_on_close(fd);
	close(fd);
}

static void on_accept(
	struct worker *worker, void *arg, int fd, const struct sock_addr *from)
{
	struct tcp_listener *listener = arg;
	struct dial_ask ask = {.local_only = true};
	char source[SOCK_ADDR_MAX];
	char why[ROUTE_TEXT_MAX];
	struct target_match match;
	struct tcp_session *tcp;
	const char *reason;

	sock_format(from, source, sizeof(source));
	if (!is_allowed(worker, listener, from)) {
		metric_add(&worker->metrics, PROXY_TCP_DENIED, 1);
		refuse(worker, listener, fd, "not in allow_from", source);
		return;
	}
	reason = check(worker, listener, &match, why);
	if (reason) {
		refuse(worker, listener, fd, reason, source);
		return;
	}
	sock_nodelay(fd);
	tcp = xcalloc(1, sizeof(*tcp));
	tcp->worker = worker;
	tcp->fd = fd;
	session_init(&tcp->session, loop_now(worker->loop));
	tcp->session.target = xstrdup(listener->conf->target);
	tcp->session.match = match;
	memcpy(tcp->session.source, source, sizeof(source));
	TAILQ_INSERT_TAIL(&worker->tcp_sessions, tcp, entry);
	worker->client_count++;
	if (!stream_find(worker->registry, &match)) {
		hand_over(tcp);
		return;
	}
	ask.session = &tcp->session;
	tcp->dial = dial_start(worker, &ask, &dial_ops, tcp);
}

static bool has_room(const struct worker *worker)
{
	return worker->client_count < worker->conf->proxy.max_clients;
}

static void release(void *arg)
{
	struct tcp_listener *listener = arg;

	free(listener->ranges);
	free(listener);
}

static const struct listener_ops listener_ops = {
	.on_accept = on_accept,
	.admit = has_room,
	.release = release,
};

void tcp_listener_start(
	struct worker *worker, int fd, const struct conf_tcp_listener *conf)
{
	struct tcp_listener *listener = xcalloc(1, sizeof(*listener));

	listener->conf = conf;
	read_allow_from(worker, listener);
	listener_start(worker, fd, &listener_ops, listener);
}

void tcp_listener_drop_sessions(struct worker *worker)
{
	struct tcp_session *tcp;
	uint64_t sent, received;

	while ((tcp = TAILQ_FIRST(&worker->tcp_sessions))) {
		if (tcp->joined) {
			dial_counts(tcp->dial, &sent, &received);
			session_log_end(&tcp->session, "session ended",
				loop_now(worker->loop), -ECANCELED, sent,
				received);
			worker_session_ends(worker, sent, received);
		}
		if (tcp->dial)
			dial_cancel(tcp->dial);
		drop(tcp);
	}
}
