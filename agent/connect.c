/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting to a proxy. Talks to dial.h for TCP; owns descriptor and SSL until
 * it gives them away.
 *
 * What one gets wrong: the host CA also signs agents and auth servers. A chain
 * that verifies proves nothing but membership, so the role is checked here,
 * before a byte is sent.
 *
 * OpenSSL writes its ClientHello and reads in the same call, and what it has
 * read nobody else can look at. So it gets to read from the socket only after
 * the first byte was seen to be TLS; until then it reads from an empty BIO.
 */
#include "agent/connect.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/dial.h"
#include "agent/plain.h"
#include "agent/via.h"
#include "shared/alloc.h"
#include "shared/distrust.h"
#include "shared/tls.h"

#define PLAIN_MAX 1024

struct connect {
	struct loop *loop;
	const struct https_proxy *https_proxy;
	char **addrs;
	unsigned addr_count;
	uint16_t default_port;
	SSL_CTX *ctx;
	const char *alpn;
	const char *cluster;
	bool (*is_wanted)(void *arg, const struct host_identity *proxy);
	connect_fn *fn;
	void *arg;

	/* what is pending; NULL = not pending */
	struct dial *dial;
	struct via *via;     /* CONNECT */
	struct event *event; /* CONNECT, handshake */
	struct timer *deadline;
	struct plain *plain; /* an answer that is no TLS */

	bool heard;	     /* TLS has the socket's bytes */
	int64_t shake_until; /* of this handshake */
	struct connect_result result;
};

static void clear_attempt(struct connect *connect)
{
	if (connect->event)
		event_free(connect->event);
	connect->event = NULL;
	via_free(connect->via);
	connect->via = NULL;
	plain_free(connect->plain);
	connect->plain = NULL;
	connect->heard = false;
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
	for (unsigned i = 0; i < connect->addr_count; i++)
		free(connect->addrs[i]);
	free(connect->addrs);
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
	/* One that told a time is the one to come back to. */
	if (!connect->result.retry_after_ms || failure == CONNECT_BUSY) {
		snprintf(connect->result.why, sizeof(connect->result.why),
			"%s%s%s", connect->result.addr,
			*connect->result.addr ? ": " : "", why);
		connect->result.failure = failure;
	}
	clear_attempt(connect);
	dial_next(connect->dial);
}

static void on_deadline(void *arg)
{
	struct connect *connect = arg;

	clear_attempt(connect);
	if (connect->result.failure != CONNECT_BUSY) {
		connect->result.failure = CONNECT_UNREACHABLE;
		snprintf(connect->result.why, sizeof(connect->result.why),
			"no address answered within %d s",
			CONNECT_WHOLE_MS / 1000);
	}
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

static void timed_out(struct connect *connect)
{
	if (connect->via)
		reject(connect, CONNECT_HTTP_PROXY, "no answer to CONNECT");
	else
		reject(connect, CONNECT_TLS, "the TLS handshake timed out");
}

/* Waits for what CONNECT or the handshake want. */
static void shake_wait(struct connect *connect, short what)
{
	int64_t left = connect->shake_until - loop_now(connect->loop);
	struct timeval tv = {left / 1000, left % 1000 * 1000};

	if (left <= 0) {
		timed_out(connect);
		return;
	}
	if (connect->event)
		event_free(connect->event);
	connect->event = event_new(loop_base(connect->loop), connect->result.fd,
		what, on_event, connect);
	if (!connect->event || event_add(connect->event, &tv) < 0)
		reject(connect, CONNECT_TLS, "out of memory");
}

/* A plain answer is complete, or broken. */
static void answered_plainly(struct connect *connect, int error)
{
	const struct plain *plain = connect->plain;
	uint32_t *shortest = &connect->result.retry_after_ms;
	uint32_t retry_ms;
	char why[160];

	if (error) {
		reject(connect, CONNECT_TLS,
			error == -EBADMSG ? "answered neither TLS nor HTTP"
					  : strerror(-error));
		return;
	}
	retry_ms = plain_retry_after_ms(plain);
	if (plain_status(plain) != 503 || !retry_ms) {
		snprintf(why, sizeof(why), "answered HTTP %d instead of TLS",
			plain_status(plain));
		reject(connect, CONNECT_TLS, why);
		return;
	}
	if (!*shortest || retry_ms < *shortest)
		*shortest = retry_ms;
	snprintf(why, sizeof(why), "busy, come back in %u s", retry_ms / 1000);
	reject(connect, CONNECT_BUSY, why);
}

/* Before TLS may read: no record of it begins with an H. False: TLS has to
 * wait, or the address was rejected. */
static bool hear(struct connect *connect)
{
	int fd = connect->result.fd, ret;
	char first;

	if (!connect->plain) {
		ret = recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
		if (ret < 0 && errno == EAGAIN)
			return true;
		if (ret != 1 || first != 'H') {
			connect->heard = true;
			return SSL_set_rfd(connect->result.ssl, fd) == 1;
		}
		connect->plain = plain_new(PLAIN_MAX);
	}
	ret = plain_read(connect->plain, fd);
	if (ret == -EAGAIN)
		shake_wait(connect, EV_READ);
	else
		answered_plainly(connect, ret);
	return false;
}

static void shake(struct connect *connect)
{
	int ret, error;

	if (!connect->heard && !hear(connect))
		return;
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
	else if (connect->heard || hear(connect))
		shake_failed(connect, error);
}

static int prepare_ssl(struct connect *connect)
{
	struct connect_result *result = &connect->result;
	char name[IDENTITY_SERVER_NAME_MAX];
	BIO *nothing;

	identity_server_name(connect->cluster, name);
	result->ssl = SSL_new(connect->ctx);
	if (!result->ssl || SSL_set_wfd(result->ssl, result->fd) != 1)
		return -ENOMEM;
	nothing = BIO_new(BIO_s_mem());
	if (!nothing)
		return -ENOMEM;
	SSL_set0_rbio(result->ssl, nothing);
	SSL_set_connect_state(result->ssl);
	if (tls_set_alpn(result->ssl, connect->alpn) < 0)
		return -ENOMEM;
	return tls_expect_name(result->ssl, name, name);
}

static void begin_tls(struct connect *connect)
{
	connect->shake_until = loop_now(connect->loop) + CONNECT_HANDSHAKE_MS;
	if (prepare_ssl(connect) < 0)
		reject(connect, CONNECT_TLS, "cannot prepare TLS");
	else
		shake(connect);
}

/* The HTTP proxy, for a way. */
static void ask(struct connect *connect)
{
	int ret = via_step(connect->via, connect->result.fd);

	if (ret == -EAGAIN) {
		shake_wait(connect,
			via_is_sending(connect->via) ? EV_WRITE : EV_READ);
	} else if (ret < 0) {
		/* It names all that is of interest. */
		connect->result.addr[0] = '\0';
		reject(connect, CONNECT_HTTP_PROXY, via_why(connect->via));
	} else {
		via_free(connect->via);
		connect->via = NULL;
		begin_tls(connect);
	}
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct connect *connect = arg;

	if (what & EV_TIMEOUT)
		timed_out(connect);
	else if (connect->via)
		ask(connect);
	else
		shake(connect);
}

/* Whether addrs[index] is reached through the HTTP proxy. */
static bool is_proxied(const struct connect *connect, unsigned index)
{
	return connect->https_proxy && index < connect->addr_count &&
	       https_proxy_applies(connect->https_proxy, connect->addrs[index],
		       connect->default_port);
}

static void on_dialed(void *arg, int fd, const char *text)
{
	struct connect *connect = arg;
	struct connect_result *result = &connect->result;
	unsigned index = dial_index(connect->dial);

	if (fd < 0) {
		/* Keep what a previous address said, if it said more. */
		if (result->failure == CONNECT_UNREACHABLE)
			snprintf(result->why, sizeof(result->why), "%s%s",
				is_proxied(connect, index) ? "HTTP proxy " : "",
				text);
		finish(connect);
		return;
	}
	result->fd = fd;
	snprintf(result->addr, sizeof(result->addr), "%s", text);
	sock_nodelay(fd);
	connect->shake_until = loop_now(connect->loop) + CONNECT_HANDSHAKE_MS;
	if (!is_proxied(connect, index)) {
		begin_tls(connect);
		return;
	}
	connect->via = via_new(connect->https_proxy, connect->addrs[index],
		connect->default_port);
	snprintf(result->addr, sizeof(result->addr), "%s",
		via_text(connect->via));
	ask(connect);
}

/* Takes the addresses, and dials them or the HTTP proxy on the way to them. */
static void dial_all(struct connect *connect, struct resolver *resolver,
	const struct connect_request *request)
{
	unsigned count = request->addr_count;
	const char **dialed = xcalloc(count + 1, sizeof(char *));

	connect->addrs = xcalloc(count + 1, sizeof(char *));
	connect->addr_count = count;
	connect->default_port = request->default_port;
	connect->https_proxy = request->https_proxy;
	for (unsigned i = 0; i < count; i++) {
		connect->addrs[i] = xstrdup(request->addrs[i]);
		dialed[i] = is_proxied(connect, i)
				    ? https_proxy_addr(connect->https_proxy)
				    : connect->addrs[i];
	}
	connect->dial = dial_new(connect->loop, resolver, dialed, count,
		request->default_port, CONNECT_TRY_MS, request->random,
		on_dialed, connect);
	free(dialed);
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
	dial_all(connect, resolver, request);
	return connect;
}
