/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting to a proxy. Talks to dial.h for TCP; owns descriptor and SSL until
 * it gives them away.
 *
 * What one gets wrong: the host CA also signs agents and auth servers. A chain
 * that verifies proves nothing but membership, so the role is checked here,
 * before a byte is sent.
 */
#include "agent/connect.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/dial.h"
#include "shared/alloc.h"
#include "shared/distrust.h"
#include "shared/tls.h"

struct connect {
	struct loop *loop;
	SSL_CTX *ctx;
	const char *alpn;
	const char *cluster;
	bool (*is_wanted)(void *arg, const struct host_identity *proxy);
	connect_fn *fn;
	void *arg;

	/* what is pending; NULL = not pending */
	struct dial *dial;
	struct event *event; /* handshake */
	struct timer *deadline;

	int64_t shake_until; /* of this handshake */
	struct connect_result result;
};

static void clear_attempt(struct connect *connect)
{
	if (connect->event)
		event_free(connect->event);
	connect->event = NULL;
	SSL_free(connect->result.ssl);
	connect->result.ssl = NULL;
	if (connect->result.fd >= 0)
		close(connect->result.fd);
	connect->result.fd = -1;
}

void connect_free(struct connect *connect)
{
	if (!connect)
		return;
	clear_attempt(connect);
	dial_free(connect->dial);
	timer_free(connect->deadline);
	SSL_CTX_free(connect->ctx);
	loop_free_later(connect->loop, free, connect);
}

/* The last call, and the end. */
static void finish(struct connect *connect)
{
	struct connect_result result = connect->result;

	connect->result.fd = -1;
	connect->result.ssl = NULL;
	connect_free(connect);
	connect->fn(connect->arg, &result);
}

/* This address is no good; the next, please. */
static void reject(
	struct connect *connect, enum connect_failure failure, const char *why)
{
	snprintf(connect->result.why, sizeof(connect->result.why), "%s: %s",
		connect->result.addr, why);
	connect->result.failure = failure;
	clear_attempt(connect);
	dial_next(connect->dial);
}

static void on_deadline(void *arg)
{
	struct connect *connect = arg;

	clear_attempt(connect);
	connect->result.failure = CONNECT_UNREACHABLE;
	snprintf(connect->result.why, sizeof(connect->result.why),
		"no address answered within %d s", CONNECT_WHOLE_MS / 1000);
	finish(connect);
}

static void check_peer(struct connect *connect)
{
	struct connect_result *result = &connect->result;
	X509 *leaf = SSL_get0_peer_certificate(result->ssl);
	const unsigned char *alpn;
	const char *why = "no certificate";
	unsigned alpn_len;

	if (!leaf || identity_of_host(leaf, connect->cluster, &result->proxy,
			     &why) < 0) {
		reject(connect, CONNECT_STRANGER, why);
		return;
	}
	if (!(result->proxy.roles & IDENTITY_PROXY)) {
		reject(connect, CONNECT_STRANGER,
			"the certificate is not a proxy's");
		return;
	}
	SSL_get0_alpn_selected(result->ssl, &alpn, &alpn_len);
	if (alpn_len != strlen(connect->alpn) ||
		memcmp(alpn, connect->alpn, alpn_len) != 0) {
		reject(connect, CONNECT_STRANGER,
			"does not speak the protocol of agents");
		return;
	}
	if (connect->is_wanted &&
		!connect->is_wanted(connect->arg, &result->proxy)) {
		reject(connect, CONNECT_UNWANTED, "proxy already claimed");
		return;
	}
	event_free(connect->event);
	connect->event = NULL;
	finish(connect);
}

/* One line for a handshake that failed: the verification's reason, if that was
 * it, is more use than the library's. */
static void shake_failed(struct connect *connect, int error)
{
	long verdict = SSL_get_verify_result(connect->result.ssl);
	char text[256], why[400];
	bool reset = error == SSL_ERROR_SYSCALL;

	tls_error_text(text, sizeof(text));
	if (verdict != X509_V_OK) {
		snprintf(why, sizeof(why), "certificate refused: %s%s",
			X509_verify_cert_error_string(verdict),
			distrust_host_advice(distrust_of_verdict(verdict)));
		reject(connect, CONNECT_STRANGER, why);
		return;
	}
	if (text[0])
		snprintf(why, sizeof(why), "TLS handshake failed: %s", text);
	else
		snprintf(why, sizeof(why), "hung up in the TLS handshake%s%s",
			reset && errno ? ": " : "",
			reset && errno ? strerror(errno) : "");
	reject(connect, CONNECT_TLS, why);
}

static void on_event(evutil_socket_t fd, short what, void *arg);

/* Waits for what the handshake wants. */
static void shake_wait(struct connect *connect, short what)
{
	int64_t left = connect->shake_until - loop_now(connect->loop);
	struct timeval tv = {left / 1000, left % 1000 * 1000};

	if (left <= 0) {
		reject(connect, CONNECT_TLS, "the TLS handshake timed out");
		return;
	}
	event_free(connect->event);
	connect->event = event_new(loop_base(connect->loop), connect->result.fd,
		what, on_event, connect);
	if (!connect->event || event_add(connect->event, &tv) < 0)
		reject(connect, CONNECT_TLS, "out of memory");
}

static void shake(struct connect *connect)
{
	int ret, error;

	ERR_clear_error();
	errno = 0;
	ret = SSL_do_handshake(connect->result.ssl);
	if (ret == 1) {
		check_peer(connect);
		return;
	}
	error = SSL_get_error(connect->result.ssl, ret);
	if (error == SSL_ERROR_WANT_READ)
		shake_wait(connect, EV_READ);
	else if (error == SSL_ERROR_WANT_WRITE)
		shake_wait(connect, EV_WRITE);
	else
		shake_failed(connect, error);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct connect *connect = arg;

	if (what & EV_TIMEOUT)
		reject(connect, CONNECT_TLS, "the TLS handshake timed out");
	else
		shake(connect);
}

static int prepare_ssl(struct connect *connect)
{
	struct connect_result *result = &connect->result;
	char name[IDENTITY_SERVER_NAME_MAX];

	identity_server_name(connect->cluster, name);
	result->ssl = SSL_new(connect->ctx);
	if (!result->ssl || SSL_set_fd(result->ssl, result->fd) != 1)
		return -ENOMEM;
	SSL_set_connect_state(result->ssl);
	if (tls_set_alpn(result->ssl, connect->alpn) < 0)
		return -ENOMEM;
	return tls_expect_name(result->ssl, name, name);
}

static void on_dialed(void *arg, int fd, const char *text)
{
	struct connect *connect = arg;
	struct connect_result *result = &connect->result;

	if (fd < 0) {
		/* Keep what a previous address said, if it said more. */
		if (result->failure == CONNECT_UNREACHABLE)
			snprintf(result->why, sizeof(result->why), "%s", text);
		finish(connect);
		return;
	}
	result->fd = fd;
	snprintf(result->addr, sizeof(result->addr), "%s", text);
	sock_nodelay(fd);
	connect->shake_until = loop_now(connect->loop) + CONNECT_HANDSHAKE_MS;
	connect->event = event_new(
		loop_base(connect->loop), fd, EV_READ, on_event, connect);
	if (!connect->event || prepare_ssl(connect) < 0) {
		tls_error_text(result->why, sizeof(result->why));
		reject(connect, CONNECT_TLS, "cannot prepare TLS");
		return;
	}
	shake(connect);
}

struct connect *connect_new(struct loop *loop, struct resolver *resolver,
	const struct connect_request *request, connect_fn *fn, void *arg)
{
	struct connect *connect = xcalloc(1, sizeof(*connect));

	connect->loop = loop;
	SSL_CTX_up_ref(request->ctx);
	connect->ctx = request->ctx;
	connect->alpn = request->alpn;
	connect->cluster = request->cluster;
	connect->is_wanted = request->is_wanted;
	connect->fn = fn;
	connect->arg = arg;
	connect->result.fd = -1;
	connect->deadline = timer_new(loop, on_deadline, connect);
	timer_set(connect->deadline, CONNECT_WHOLE_MS);
	connect->dial = dial_new(loop, resolver, request->addrs,
		request->addr_count, request->default_port, CONNECT_TRY_MS,
		request->random, on_dialed, connect);
	return connect;
}
