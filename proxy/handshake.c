/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS handshakes of strangers. Owns the channel until it is handed on.
 *
 * What a newcomer gets wrong: failing is normal here (scanners, health checks
 * of load balancers), so it is counted, and logged at debug only.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/agent_tunnel.h"
#include "proxy/client.h"
#include "proxy/handshake.h"
#include "proxy/listener.h"
#include "proxy/trust.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

struct handshake {
	TAILQ_ENTRY(handshake) entry;
	struct worker *worker;
	bool tunnels_only;
	struct chan *chan; /* NULL: handed on */
	struct timer *deadline;
	char source[SOCK_ADDR_MAX];
};

/* The only way out: counts the outcome and lets the next one in. */
static void end(
	struct handshake *handshake, enum proxy_metric outcome, const char *why)
{
	struct worker *worker = handshake->worker;

	if (why)
		log_debug("handshake failed: %s source=%s", why,
			handshake->source);
	metric_add(&worker->metrics, outcome, 1);
	TAILQ_REMOVE(&worker->handshakes, handshake, entry);
	worker->handshake_count--;
	timer_free(handshake->deadline);
	handshake->deadline = NULL;
	chan_free(handshake->chan);
	handshake->chan = NULL;
	loop_free_later(worker->loop, free, handshake);
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

static void on_ready(void *arg)
{
	struct handshake *handshake = arg;
	char text[256];
	int ret;

	if (!handshake->chan)
		return;
	ret = chan_handshake(handshake->chan);
	if (ret == -EAGAIN)
		return;
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

static void on_deadline(void *arg)
{
	end(arg, PROXY_HANDSHAKE_TIMED_OUT, "timed out");
}

void handshake_start(struct worker *worker, int fd,
	const struct sock_addr *from, bool tunnels_only)
{
	struct handshake *handshake = xcalloc(1, sizeof(*handshake));
	SSL *ssl = trust_accept(worker->trust, tunnels_only);

	handshake->worker = worker;
	handshake->tunnels_only = tunnels_only;
	sock_format(from, handshake->source, sizeof(handshake->source));
	sock_nodelay(fd);
	TAILQ_INSERT_TAIL(&worker->handshakes, handshake, entry);
	worker->handshake_count++;
	if (!ssl) {
		close(fd);
		end(handshake, PROXY_HANDSHAKE_NO_IDENTITY,
			"this host has no certificate yet");
		return;
	}
	handshake->chan = chan_new_tls(worker->loop, fd, ssl);
	handshake->deadline = timer_new(worker->loop, on_deadline, handshake);
	timer_set(handshake->deadline, worker->conf->proxy.handshake_timeout);
	chan_watch(handshake->chan, on_ready, handshake);
}

bool handshake_has_room(const struct worker *worker)
{
	return worker->handshake_count < worker->conf->proxy.max_handshakes;
}

void handshake_drop_all(struct worker *worker)
{
	struct handshake *handshake;

	while ((handshake = TAILQ_FIRST(&worker->handshakes)))
		end(handshake, PROXY_HANDSHAKE_TLS, "shutting down");
}
