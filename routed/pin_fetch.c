/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resolves, connects and shakes hands, each step when the socket is ready for
 * it. Used by membership.c for the first join. Owns the descriptor and the SSL.
 *
 *   RESOLVING --address--> HANDSHAKE --chain--> done
 *       any --error, 10 s--> done
 *
 * What is easily got wrong: a cancelled name lookup still calls back, later;
 * so freeing waits for that.
 */

#include <event2/dns.h>
#include <event2/util.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "routed/pin_fetch.h"
#include "shared/alloc.h"
#include "shared/sock.h"
#include "shared/tls.h"

#define FETCH_MS 10000
#define AUTH_PORT 3025

struct pin_fetch {
	struct loop *loop;
	char *pin;
	char *server_name;
	struct evdns_base *dns;
	struct evdns_getaddrinfo_request *lookup; /* NULL: not pending */
	bool looking_up;			  /* on_resolved is to come */
	bool dead;
	int fd; /* -1: none */
	SSL *ssl;
	struct event *ready_ev;
	struct timer *deadline;

	/* the outcome, told at the end of the turn */
	struct loop_task told;
	bool finished;
	X509 *ca;
	char *why;
	void (*done)(void *arg, X509 *ca, const char *why);
	void *arg;
};

/* ---- the end ---- */

static void release(void *ptr)
{
	struct pin_fetch *fetch = ptr;

	if (fetch->dns)
		evdns_base_free(fetch->dns, 0);
	X509_free(fetch->ca);
	free(fetch->pin);
	free(fetch->server_name);
	free(fetch->why);
	free(fetch);
}

void pin_fetch_free(struct pin_fetch *fetch)
{
	if (!fetch || fetch->dead)
		return;
	fetch->dead = true;
	loop_cancel(fetch->loop, &fetch->told);
	timer_free(fetch->deadline);
	if (fetch->ready_ev)
		event_free(fetch->ready_ev);
	SSL_free(fetch->ssl);
	if (fetch->fd >= 0)
		close(fetch->fd);
	if (fetch->lookup)
		evdns_getaddrinfo_cancel(fetch->lookup);
	if (!fetch->looking_up)
		loop_free_later(fetch->loop, release, fetch);
}

/* Takes ca. */
static void finish(struct pin_fetch *fetch, X509 *ca, const char *why)
{
	if (fetch->finished) {
		X509_free(ca);
		return;
	}
	fetch->finished = true;
	fetch->ca = ca;
	fetch->why = xstrdup(why);
	if (fetch->ready_ev)
		event_del(fetch->ready_ev);
	loop_defer(fetch->loop, &fetch->told);
}

static void on_told(struct loop_task *task)
{
	struct pin_fetch *fetch =
		(void *)((char *)task - offsetof(struct pin_fetch, told));

	fetch->done(fetch->arg, fetch->ca, fetch->why);
	pin_fetch_free(fetch);
}

static void on_deadline(void *arg)
{
	finish(arg, NULL, "no TLS handshake within 10 s");
}

/* ---- handshake ---- */

static void on_ready(evutil_socket_t fd, short what, void *arg);

static void await(struct pin_fetch *fetch, short what)
{
	if (fetch->ready_ev)
		event_free(fetch->ready_ev);
	fetch->ready_ev = event_new(
		loop_base(fetch->loop), fetch->fd, what, on_ready, fetch);
	event_add(fetch->ready_ev, NULL);
}

static void shake_hands(struct pin_fetch *fetch)
{
	int ret = SSL_do_handshake(fetch->ssl);
	int error = SSL_get_error(fetch->ssl, ret);
	char text[256];
	X509 *ca;

	if (ret == 1) {
		ca = tls_pinned_ca(fetch->ssl, fetch->pin);
		finish(fetch, ca, ca ? NULL : "the pinned CA was not sent");
	} else if (error == SSL_ERROR_WANT_READ) {
		await(fetch, EV_READ);
	} else if (error == SSL_ERROR_WANT_WRITE) {
		await(fetch, EV_WRITE);
	} else if (SSL_get_verify_result(fetch->ssl) != X509_V_OK) {
		char *why = xasprintf(
			"its certificate does not lead to the CA of ca_pin: %s",
			X509_verify_cert_error_string(
				SSL_get_verify_result(fetch->ssl)));

		finish(fetch, NULL, why);
		free(why);
	} else {
		tls_error_text(text, sizeof(text));
		finish(fetch, NULL, text[0] ? text : "connection closed");
	}
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct pin_fetch *fetch = arg;
	int error = sock_error(fetch->fd);

	if (error < 0)
		finish(fetch, NULL, strerror(-error));
	else
		shake_hands(fetch);
}

static int make_ssl(struct pin_fetch *fetch, char **error_out)
{
	SSL_CTX *ctx = tls_pin_ctx(fetch->pin, error_out);

	if (!ctx)
		return -1;
	fetch->ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	if (fetch->ssl &&
		tls_expect_name(fetch->ssl, fetch->server_name,
			fetch->server_name) == 0 &&
		tls_set_alpn(fetch->ssl, "h2") == 0 &&
		SSL_set_fd(fetch->ssl, fetch->fd) == 1) {
		SSL_set_connect_state(fetch->ssl);
		return 0;
	}
	*error_out = xstrdup("no TLS session");
	return -1;
}

static void connect_to(struct pin_fetch *fetch, const struct sock_addr *addr)
{
	char *why = NULL;

	fetch->fd = sock_connect(addr);
	if (fetch->fd < 0) {
		finish(fetch, NULL, strerror(-fetch->fd));
	} else if (make_ssl(fetch, &why) < 0) {
		finish(fetch, NULL, why);
		free(why);
	} else {
		await(fetch, EV_WRITE);
	}
}

/* ---- resolving ---- */

static void on_resolved(int error, struct evutil_addrinfo *found, void *arg)
{
	struct pin_fetch *fetch = arg;

	struct sock_addr addr;

	fetch->looking_up = false;
	fetch->lookup = NULL;
	if (fetch->dead) {
		loop_free_later(fetch->loop, release, fetch);
	} else if (error || !found) {
		finish(fetch, NULL, evutil_gai_strerror(error));
	} else {
		addr.len = found->ai_addrlen;
		memcpy(&addr.ss, found->ai_addr, found->ai_addrlen);
		connect_to(fetch, &addr);
	}
	if (found)
		evutil_freeaddrinfo(found);
}

/* A name of /etc/hosts calls back before this returns. */
static void resolve(struct pin_fetch *fetch, const char *host, uint16_t port)
{
	struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = EVUTIL_AI_ADDRCONFIG};
	struct evdns_getaddrinfo_request *lookup;
	char service[8];

	snprintf(service, sizeof(service), "%u", port);
	fetch->dns = evdns_base_new(loop_base(fetch->loop),
		EVDNS_BASE_INITIALIZE_NAMESERVERS |
			EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	fetch->looking_up = true;
	lookup = evdns_getaddrinfo(
		fetch->dns, host, service, &hints, on_resolved, fetch);
	if (fetch->looking_up)
		fetch->lookup = lookup;
}

struct pin_fetch *pin_fetch_start(struct loop *loop, const char *address,
	const char *pin, const char *server_name,
	void (*done)(void *arg, X509 *ca, const char *why), void *arg)
{
	struct pin_fetch *fetch = xcalloc(1, sizeof(*fetch));
	struct sock_addr numeric;
	char host[SOCK_ADDR_MAX];
	uint16_t port;

	fetch->loop = loop;
	fetch->pin = xstrdup(pin);
	fetch->server_name = xstrdup(server_name);
	fetch->fd = -1;
	fetch->done = done;
	fetch->arg = arg;
	fetch->deadline = timer_new(loop, on_deadline, fetch);
	timer_set(fetch->deadline, FETCH_MS);
	fetch->told.run = on_told;
	if (sock_parse(address, AUTH_PORT, &numeric) == 0) {
		connect_to(fetch, &numeric);
	} else if (sock_split(address, AUTH_PORT, host, sizeof(host), &port) ==
		   0) {
		resolve(fetch, host, port);
	} else {
		finish(fetch, NULL, "not an address");
	}
	return fetch;
}
