/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reaches a target through a proxy. The proxy is verified by the name that
 * every proxy and authd of the cluster has (identity.h), whatever address it
 * is reached at, and must have the role Proxy: an agent's certificate comes
 * from the same CA.
 */
#include "peerctl/client.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peerctl/file.h"
#include "shared/alloc.h"
#include "shared/distrust.h"
#include "shared/http.h"
#include "shared/identity.h"
#include "shared/pki.h"
#include "shared/sock.h"
#include "shared/tls.h"

#define DEFAULT_PORT 3080
#define BODY_MAX 1024

struct opening {
	const struct client_request *request;
	struct client *client;
	char *cluster;
	int64_t deadline; /* of now_ms() */
	char **error_out;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

/* 0 when ready, -ETIMEDOUT at the deadline. */
static int wait_for(const struct opening *o, int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left = o->deadline - now_ms();
	int n;

	if (left <= 0)
		return -ETIMEDOUT;
	n = poll(&p, 1, left);
	if (n < 0 && errno != EINTR)
		return -errno;
	return 0;
}

static bool give_up(struct opening *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static bool give_up(struct opening *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	free(*o->error_out);
	*o->error_out = xvasprintf(format, ap);
	va_end(ap);
	return false;
}

/* --- TCP --- */

static int connect_one(struct opening *o, const struct addrinfo *info)
{
	struct sock_addr addr = {.len = info->ai_addrlen};
	int fd;
	int ret;

	memcpy(&addr.ss, info->ai_addr, info->ai_addrlen);
	fd = sock_connect(&addr);
	if (fd < 0)
		return fd;
	ret = wait_for(o, fd, POLLOUT);
	if (!ret)
		ret = sock_error(fd);
	if (!ret) {
		o->client->fd = fd;
		return 0;
	}
	close(fd);
	return ret;
}

static bool connect_proxy(struct opening *o)
{
	const char *proxy = o->request->proxy;
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	char host[SOCK_ADDR_MAX];
	char service[8];
	uint16_t port;
	int ret;

	if (sock_split(proxy, DEFAULT_PORT, host, sizeof(host), &port) < 0)
		return give_up(o, "%s is not a proxy's host:port", proxy);
	snprintf(service, sizeof(service), "%u", port);
	ret = getaddrinfo(host, service, &hints, &list);
	if (ret)
		return give_up(o, "%s: %s", host, gai_strerror(ret));
	ret = -EHOSTUNREACH;
	for (struct addrinfo *a = list; a && o->client->fd < 0; a = a->ai_next)
		ret = connect_one(o, a);
	freeaddrinfo(list);
	if (o->client->fd < 0)
		return give_up(o, "cannot connect to the proxy %s: %s", proxy,
			strerror(-ret));
	sock_nodelay(o->client->fd);
	return true;
}

/* --- TLS --- */

/* Waits for what ssl wants. False: it failed, or the deadline has passed. */
static bool wait_tls(struct opening *o, int ret, const char *what)
{
	int error = SSL_get_error(o->client->ssl, ret);
	char text[256];
	int waited;

	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
		tls_error_text(text, sizeof(text));
		return give_up(o, "%s with the proxy %s: %s%s", what,
			o->request->proxy,
			*text ? text : "it closed the connection",
			distrust_user_advice(distrust_of_text(text)));
	}
	waited = wait_for(o, o->client->fd,
		error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT);
	if (waited)
		return give_up(o, "%s with the proxy %s: %s", what,
			o->request->proxy, strerror(-waited));
	return true;
}

/* The certificates of a PEM file; gives, or NULL. */
static STACK_OF(X509) * load_certs(struct opening *o, const char *path)
{
	STACK_OF(X509) * certs;
	char *pem = file_read(path);

	if (!pem) {
		give_up(o, "%s: %s (see peerctl identity issue)", path,
			strerror(errno));
		return NULL;
	}
	certs = pki_certs_from_pem(pem, strlen(pem), o->error_out);
	free(pem);
	return certs;
}

static bool check_role(struct opening *o)
{
	X509 *leaf = SSL_get0_peer_certificate(o->client->ssl);
	struct host_identity who;
	const char *why = "it sent no certificate";

	if (!leaf || identity_of_host(leaf, o->cluster, &who, &why) < 0)
		return give_up(o, "%s is not a proxy of the cluster %s: %s",
			o->request->proxy, o->cluster, why);
	if (!(who.roles & IDENTITY_PROXY))
		return give_up(o, "%s has no certificate of a proxy",
			o->request->proxy);
	return true;
}

/* Trusts the host CA; shows the user's certificate, which another CA issued:
 * so it is no identity in the sense of tls.h. */
static bool make_ctx(struct opening *o)
{
	const char *dir = o->request->identity;
	char *host_ca = xasprintf("%s/host_ca.pem", dir);
	char *cert = xasprintf("%s/cert.pem", dir);
	char *key = xasprintf("%s/key.pem", dir);
	struct tls_identity trust = {.host_ca = load_certs(o, host_ca)};
	SSL_CTX *ctx = NULL;
	char text[256];
	bool ok = false;

	if (trust.host_ca)
		ctx = tls_client_ctx(&trust, o->error_out);
	if (ctx)
		ok = SSL_CTX_use_certificate_chain_file(ctx, cert) == 1 &&
		     SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) ==
			     1;
	if (ctx && !ok) {
		tls_error_text(text, sizeof(text));
		give_up(o, "%s and %s: %s", cert, key, text);
	}
	o->client->ctx = ctx;
	sk_X509_pop_free(trust.host_ca, X509_free);
	free(host_ca);
	free(cert);
	free(key);
	return ok;
}

static bool start_tls(struct opening *o)
{
	struct client *client = o->client;
	char name[IDENTITY_SERVER_NAME_MAX];
	int ret;

	client->ssl = SSL_new(client->ctx);
	identity_server_name(o->cluster, name);
	if (!client->ssl || !SSL_set_fd(client->ssl, client->fd) ||
		tls_expect_name(client->ssl, name, name) < 0)
		return give_up(o, "cannot set up TLS");
	while ((ret = SSL_connect(client->ssl)) != 1)
		if (!wait_tls(o, ret, "TLS"))
			return false;
	return check_role(o);
}

/* --- CONNECT --- */

static bool send_request(struct opening *o)
{
	const char *target = o->request->target;
	char *head;
	size_t len;
	bool ok = true;

	for (const char *p = target; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return give_up(o, "not a target: it has blanks");
	head = xasprintf(
		"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target);
	len = strlen(head);
	/* One record: TLS writes all of it or asks again with the same. */
	while (ok) {
		int ret = SSL_write(o->client->ssl, head, len);

		if (ret > 0)
			break;
		ok = wait_tls(o, ret, "connection");
	}
	free(head);
	return ok;
}

/* The text of a refusal, up to its first newline. */
static void read_body(
	struct opening *o, const unsigned char *first, size_t len, char *body)
{
	size_t used = len < BODY_MAX ? len : BODY_MAX;

	memcpy(body, first, used);
	while (used < BODY_MAX && !memchr(body, '\n', used)) {
		int n = SSL_read(o->client->ssl, body + used, BODY_MAX - used);

		if (n > 0)
			used += n;
		else if (!wait_tls(o, n, "connection"))
			break; /* what came is what we show */
	}
	body[used] = '\0';
	body[strcspn(body, "\r\n")] = '\0';
}

static void copy_header(
	const struct http_message *m, const char *name, char *out, size_t size)
{
	const char *value = http_header(m, name);

	snprintf(out, size, "%s", value ? value : "");
}

static bool take_answer(struct opening *o, const struct http_message *m,
	const unsigned char *rest, size_t len)
{
	struct client *client = o->client;
	char body[BODY_MAX + 1];

	if (http_status(m) != 200) {
		read_body(o, rest, len, body);
		return give_up(o, "%s: %d: %s", o->request->target,
			http_status(m), *body ? body : "refused");
	}
	copy_header(m, "Peerway-Route", client->route, sizeof(client->route));
	copy_header(
		m, "Peerway-Proxy", client->proxy_id, sizeof(client->proxy_id));
	copy_header(m, "Peerway-Connection-Id", client->connection_id,
		sizeof(client->connection_id));
	memcpy(client->first, rest, len);
	client->first_len = len;
	return true;
}

static bool read_answer(struct opening *o)
{
	struct http_message *m = http_message_new(HTTP_RESPONSE_MESSAGE, false);
	unsigned char bytes[CLIENT_FIRST_MAX];
	enum http_result result = HTTP_MORE;
	bool ok = true;

	while (ok && result == HTTP_MORE) {
		int n = SSL_read(o->client->ssl, bytes, sizeof(bytes));
		size_t used = 0;

		if (n <= 0) {
			ok = wait_tls(o, n, "connection");
			continue;
		}
		result = http_feed(m, bytes, n, &used);
		if (result == HTTP_DONE)
			ok = take_answer(o, m, bytes + used, n - used);
		else if (result != HTTP_MORE)
			ok = give_up(o, "%s does not answer like a proxy",
				o->request->proxy);
	}
	http_message_free(m);
	return ok;
}

/* --- */

static bool read_cluster(struct opening *o)
{
	char *path = xasprintf("%s/cluster_name", o->request->identity);
	bool ok = true;

	o->cluster = file_read(path);
	if (o->cluster)
		o->cluster[strcspn(o->cluster, "\n")] = '\0';
	if (!o->cluster)
		ok = give_up(o, "%s: %s (see peerctl identity issue)", path,
			strerror(errno));
	else if (strlen(o->cluster) > 255)
		ok = give_up(o, "%s: not a cluster's name", path);
	free(path);
	return ok;
}

struct client *client_open(
	const struct client_request *request, char **error_out)
{
	struct client *client = xcalloc(1, sizeof(*client));
	struct opening o = {
		.request = request,
		.client = client,
		.deadline = now_ms() + request->timeout_ms,
		.error_out = error_out,
	};
	bool ok;

	*error_out = NULL;
	client->fd = -1;
	ok = read_cluster(&o) && make_ctx(&o) && connect_proxy(&o) &&
	     start_tls(&o) && send_request(&o) && read_answer(&o);
	free(o.cluster);
	if (ok)
		return client;
	client_free(client);
	return NULL;
}

void client_free(struct client *client)
{
	if (!client)
		return;
	SSL_free(client->ssl);
	SSL_CTX_free(client->ctx);
	if (client->fd >= 0)
		close(client->fd);
	free(client);
}
