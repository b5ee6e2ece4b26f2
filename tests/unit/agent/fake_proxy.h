/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A cluster in one process: a host CA, and proxies that take tunnels and answer
 * find and join like real ones, on the loop of the agent under test.
 */

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/discovery.h"
#include "shared/http.h"
#include "shared/identity.h"
#include "shared/pki.h"
#include "shared/sock.h"
#include "shared/tls.h"
#include "shared/tunnel.h"

#define FAKE_CLUSTER "example"
#define FAKE_TUNNELS_MAX 8

struct fake_ca {
	EVP_PKEY *key;
	X509 *cert;
	char *pem;
	char pin[80];
};

struct fake_proxy {
	struct loop *loop;
	struct tunnel_hub *hub;
	struct fake_ca *ca;
	SSL_CTX *ctx;
	char id[37];
	int fd;
	struct event *accept;
	char addr[SOCK_ADDR_MAX];
	struct discovery *fleet; /* what it tells; borrowed, may be NULL */
	const char *token;	 /* what a join needs */
	bool silent;		 /* accepts, then says nothing */
	const char *plain;	 /* what it says instead of TLS */
	bool unpublished;	 /* does not say that tunnels are known */
	int moved;		 /* status of the last answer to move */
	const char *refusal;	 /* status line of every HTTP answer */

	struct tunnel *tunnels[FAKE_TUNNELS_MAX];
	unsigned tunnel_count;
	unsigned connections;
	unsigned handshakes;
	unsigned joins;
	unsigned renewals;
	char agent_name[IDENTITY_NAME_MAX]; /* last registration */
	unsigned changes;		    /* lines of its events */
	char *change;			    /* the last one */
};

struct fake_client {
	struct fake_proxy *proxy;
	struct chan *chan;
	bool shaken;
	struct http_message *request;
	char *answer;
	size_t len, sent;
};

static inline void fake_ca_init(struct fake_ca *ca)
{
	ca->key = pki_key_new();
	ca->cert = pki_ca_make(ca->key, "host CA", 10);
	ca->pem = pki_cert_to_pem(ca->cert);
	pki_spki_pin(ca->key, ca->pin, sizeof(ca->pin));
}

static inline void fake_ca_deinit(struct fake_ca *ca)
{
	EVP_PKEY_free(ca->key);
	X509_free(ca->cert);
	free(ca->pem);
}

/* PEM of a certificate for key; life in seconds from begin on. */
static inline char *fake_issue(struct fake_ca *ca, EVP_PKEY *key,
	const char *uuid, const char *role, const char *agent_name,
	int64_t begin, int64_t life)
{
	char common_name[128], name[IDENTITY_SERVER_NAME_MAX], uri[128];
	const char *roles[] = {role, NULL}, *names[] = {name, NULL};
	struct pki_template template = {
		.common_name = common_name,
		.organizations = roles,
		.not_before = begin,
		.not_after = begin + life,
	};
	char *error, *pem;
	X509 *cert;

	snprintf(common_name, sizeof(common_name), "%s.%s", uuid, FAKE_CLUSTER);
	identity_server_name(FAKE_CLUSTER, name);
	if (agent_name) {
		snprintf(uri, sizeof(uri), "peerway://agent/%s", agent_name);
		template.uri = uri;
	} else {
		template.dns_names = names;
		template.server = true;
	}
	cert = pki_issue(&template, key, ca->cert, ca->key, &error);
	assert(cert);
	pem = pki_cert_to_pem(cert);
	X509_free(cert);
	return pem;
}

static inline void fake_write(
	const char *directory, const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "w");
	assert(file);
	fputs(text, file);
	fclose(file);
}

/* An identity loaded from files made in directory (which must exist). */
static inline struct tls_identity *fake_identity(struct fake_ca *ca,
	const char *directory, const char *uuid, const char *role,
	const char *agent_name, int64_t begin, int64_t life)
{
	EVP_PKEY *key = pki_key_new();
	char *pem = fake_issue(ca, key, uuid, role, agent_name, begin, life);
	char *key_pem = pki_key_to_pem(key);
	struct tls_identity *identity;
	char *error = NULL;

	fake_write(directory, "cert.pem", pem);
	fake_write(directory, "key.pem", key_pem);
	fake_write(directory, "host_ca.pem", ca->pem);
	identity = tls_identity_load(directory, &error);
	if (!identity)
		fprintf(stderr, "%s\n", error);
	assert(identity);
	free(pem);
	free(key_pem);
	EVP_PKEY_free(key);
	return identity;
}

/* --- HTTP: find, join, renew --- */

static inline uint8_t *fake_unbase64(const char *text, size_t *len_out)
{
	size_t len = strlen(text);
	uint8_t *data = xcalloc(1, len + 1);
	int n = EVP_DecodeBlock(data, (const unsigned char *)text, len);

	assert(n > 0);
	while (len && text[len - 1] == '=') {
		len--;
		n--;
	}
	*len_out = n;
	return data;
}

static inline char *fake_certify(
	struct fake_proxy *proxy, const char *body, size_t len, bool renew)
{
	json_t *asked = json_loadb(body, len, 0, NULL), *answer;
	const char *token = json_string_value(json_object_get(asked, "token"));
	const char *name = json_string_value(json_object_get(asked, "name"));
	const char *uuid =
		json_string_value(json_object_get(asked, "host_uuid"));
	size_t der_len;
	uint8_t *der;
	EVP_PKEY *key;
	char *pem, *text;

	if (renew)
		proxy->renewals++;
	else
		proxy->joins++;
	if (!renew && strcmp(token, proxy->token) != 0) {
		json_decref(asked);
		return xstrdup("HTTP/1.1 403 Forbidden\r\nContent-Length: 18"
			       "\r\n\r\nthe token is wrong");
	}
	der = fake_unbase64(
		json_string_value(json_object_get(asked, "csr")), &der_len);
	key = pki_csr_key(der, der_len, NULL);
	assert(key);
	pem = fake_issue(proxy->ca, key,
		renew ? "0a1b2c3d-0000-4000-8000-00000000000a" : uuid, "Node",
		renew ? "db-1" : name, time(NULL) - 10, 3600);
	answer = json_pack("{s:s,s:s,s:s,s:s}", "cert_chain", pem, "host_ca",
		proxy->ca->pem, "user_ca", proxy->ca->pem, "cluster_name",
		FAKE_CLUSTER);
	text = json_dumps(answer, 0);
	json_decref(answer);
	json_decref(asked);
	EVP_PKEY_free(key);
	free(der);
	free(pem);
	pem = xasprintf("HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
		strlen(text), text);
	free(text);
	return pem;
}

static inline char *fake_answer(
	struct fake_proxy *proxy, const struct http_message *request)
{
	const char *target = http_target(request);
	size_t len;
	const uint8_t *body = http_body(request, &len);
	char *text, *json;

	if (proxy->refusal)
		return xasprintf("HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n",
			proxy->refusal);
	if (strcmp(target, "/v1/agent/join") == 0)
		return fake_certify(proxy, (const char *)body, len, false);
	if (strcmp(target, "/v1/agent/renew") == 0)
		return fake_certify(proxy, (const char *)body, len, true);
	if (strcmp(target, "/webapi/find") != 0 || !proxy->fleet)
		return xstrdup("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
	json = discovery_to_json(proxy->fleet, true);
	text = xasprintf("HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
		strlen(json), json);
	free(json);
	return text;
}

/* --- tunnels --- */

static inline void fake_on_posted(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	assert(status == 0 || status == 200);
}

static inline void fake_push(struct fake_proxy *proxy)
{
	char *json;

	if (!proxy->fleet)
		return;
	json = discovery_to_json(proxy->fleet, false);
	for (unsigned i = 0; i < proxy->tunnel_count; i++) {
		const struct tunnel_exchange post = {
			.method = "POST",
			.path = "/v1/proxies",
			.body = json,
			.len = strlen(json),
			.on_data = fake_on_posted,
		};

		if (tunnel_is_ready(proxy->tunnels[i]))
			tunnel_exchange(proxy->tunnels[i], &post);
	}
	free(json);
}

/* POST path to all tunnels. */
static inline void fake_post(struct fake_proxy *proxy, const char *path,
	const char *body,
	void (*on_data)(void *arg, int status, const uint8_t *data, size_t len,
		bool end))
{
	for (unsigned i = 0; i < proxy->tunnel_count; i++) {
		const struct tunnel_exchange post = {
			.method = "POST",
			.path = path,
			.body = body,
			.len = strlen(body),
			.on_data = on_data,
			.arg = proxy,
		};

		if (tunnel_is_ready(proxy->tunnels[i]))
			tunnel_exchange(proxy->tunnels[i], &post);
	}
}

static inline void fake_publish(struct fake_proxy *proxy)
{
	fake_post(proxy, "/v1/published", "", fake_on_posted);
}

static inline void fake_on_moved(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	((struct fake_proxy *)arg)->moved = status;
}

static inline void fake_ask_to_move(struct fake_proxy *proxy, const char *to)
{
	char body[80];

	snprintf(body, sizeof(body), "{\"to\": \"%s\"}", to);
	fake_post(proxy, "/v1/move", body, fake_on_moved);
}

static inline void fake_on_registered(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct fake_proxy *proxy = arg;
	json_t *said = status == 200 && end
			       ? json_loadb((const char *)data, len, 0, NULL)
			       : NULL;

	if (said)
		snprintf(proxy->agent_name, sizeof(proxy->agent_name), "%s",
			json_string_value(json_object_get(said, "name")));
	json_decref(said);
}

static inline void fake_on_change(
	void *arg, int status, const uint8_t *data, size_t len, bool end)
{
	struct fake_proxy *proxy = arg;

	if (status != 200 || !len)
		return;
	free(proxy->change);
	proxy->change = xstrndup((const char *)data, len);
	proxy->changes++;
}

static inline void fake_on_ready(struct tunnel *tunnel, void *arg)
{
	struct fake_proxy *proxy = arg;
	const struct tunnel_exchange get = {
		.method = "GET",
		.path = "/v1/agent",
		.on_data = fake_on_registered,
		.arg = proxy,
	};

	const struct tunnel_exchange events = {
		.method = "GET",
		.path = "/v1/agent/events",
		.stream_lines = true,
		.on_data = fake_on_change,
		.arg = proxy,
	};

	tunnel_exchange(tunnel, &get);
	tunnel_exchange(tunnel, &events);
	fake_push(proxy);
	if (!proxy->unpublished)
		fake_publish(proxy);
}

static inline void fake_on_tunnel_end(
	struct tunnel *tunnel, void *arg, const char *reason)
{
	struct fake_proxy *proxy = arg;

	for (unsigned i = 0; i < proxy->tunnel_count; i++)
		if (proxy->tunnels[i] == tunnel)
			proxy->tunnels[i] =
				proxy->tunnels[--proxy->tunnel_count];
}

static const struct tunnel_ops fake_tunnel_ops = {
	.on_ready = fake_on_ready,
	.on_end = fake_on_tunnel_end,
};

/* --- connections --- */

static inline void fake_client_end(struct fake_client *client)
{
	chan_free(client->chan);
	http_message_free(client->request);
	free(client->answer);
	loop_free_later(client->proxy->loop, free, client);
}

static inline void fake_begin(struct fake_client *client)
{
	struct fake_proxy *proxy = client->proxy;
	const unsigned char *alpn;
	unsigned len;

	client->shaken = true;
	proxy->handshakes++;
	SSL_get0_alpn_selected(chan_ssl(client->chan), &alpn, &len);
	if (len == strlen(TLS_ALPN_TUNNEL) &&
		proxy->tunnel_count < FAKE_TUNNELS_MAX) {
		proxy->tunnels[proxy->tunnel_count++] = tunnel_new(proxy->hub,
			TUNNEL_PROXY, client->chan, &fake_tunnel_ops, proxy);
		client->chan = NULL;
		fake_client_end(client);
		return;
	}
	client->request = http_message_new(HTTP_REQUEST_MESSAGE, true);
}

static inline void fake_exchange(struct fake_client *client)
{
	char buf[4096];
	size_t used;
	ssize_t n;

	while (!client->answer) {
		n = chan_read(client->chan, buf, sizeof(buf));
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			fake_client_end(client);
			return;
		}
		if (http_feed(client->request, buf, n, &used) == HTTP_DONE)
			client->answer =
				fake_answer(client->proxy, client->request);
	}
	client->len = strlen(client->answer);
	while (client->sent < client->len) {
		n = chan_write(client->chan, client->answer + client->sent,
			client->len - client->sent);
		if (n == -EAGAIN)
			return;
		if (n <= 0)
			break;
		client->sent += n;
	}
	chan_shutdown(client->chan);
	fake_client_end(client);
}

static inline void fake_on_ready_client(void *arg)
{
	struct fake_client *client = arg;
	int ret;

	if (!client->shaken) {
		ret = chan_handshake(client->chan);
		if (ret == -EAGAIN)
			return;
		if (ret < 0) {
			fake_client_end(client);
			return;
		}
		fake_begin(client);
		if (!client->chan)
			return;
	}
	fake_exchange(client);
}

static inline void fake_on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct fake_proxy *proxy = arg;
	struct fake_client *client;
	int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	SSL *ssl;

	if (conn < 0)
		return;
	proxy->connections++;
	if (proxy->plain) {
		assert(write(conn, proxy->plain, strlen(proxy->plain)) > 0);
		shutdown(conn, SHUT_WR);
	}
	if (proxy->silent || proxy->plain)
		return; /* and the descriptor ends with the process */
	ssl = SSL_new(proxy->ctx);
	SSL_set_accept_state(ssl);
	client = xcalloc(1, sizeof(*client));
	client->proxy = proxy;
	client->chan = chan_new_tls(proxy->loop, conn, ssl);
	chan_watch(client->chan, fake_on_ready_client, client);
}

static inline int fake_on_alpn(SSL *ssl, const unsigned char **out,
	unsigned char *out_len, const unsigned char *offered, unsigned len,
	void *arg)
{
	*out = offered + 1;
	*out_len = offered[0];
	return SSL_TLSEXT_ERR_OK;
}

static inline void fake_proxy_listen(struct fake_proxy *proxy)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sock_addr addr;

	assert(sock_parse(proxy->addr[0] ? proxy->addr : "127.0.0.1:0", 1,
		       &addr) == 0);
	proxy->fd = sock_listen(&addr, false, 64);
	assert(proxy->fd >= 0);
	addr.len = sizeof(in);
	getsockname(proxy->fd, (struct sockaddr *)&in, &addr.len);
	snprintf(proxy->addr, sizeof(proxy->addr), "127.0.0.1:%u",
		ntohs(in.sin_port));
	proxy->accept = event_new(loop_base(proxy->loop), proxy->fd,
		EV_READ | EV_PERSIST, fake_on_accept, proxy);
	event_add(proxy->accept, NULL);
}

static inline void fake_proxy_init(struct fake_proxy *proxy, struct loop *loop,
	struct fake_ca *ca, const char *directory, const char *id,
	const char *role)
{
	const struct tunnel_settings settings = {
		1000, 15000, 2, 1 << 20, 1 << 24};
	struct tls_identity *identity = fake_identity(
		ca, directory, id, role, NULL, time(NULL) - 10, 3600);
	char *error;

	*proxy = (struct fake_proxy){.loop = loop, .ca = ca, .token = "good"};
	strcpy(proxy->id, id);
	proxy->hub = tunnel_hub_new(loop, &settings);
	proxy->ctx = tls_server_ctx(
		identity, identity->host_ca, TLS_VERIFY_OPTIONAL, &error);
	SSL_CTX_set_alpn_select_cb(proxy->ctx, fake_on_alpn, NULL);
	tls_identity_unref(identity);
	fake_proxy_listen(proxy);
}

/* No new connections; tunnels are cut. */
static inline void fake_proxy_stop(struct fake_proxy *proxy)
{
	if (proxy->accept)
		event_free(proxy->accept);
	proxy->accept = NULL;
	if (proxy->fd >= 0)
		close(proxy->fd);
	proxy->fd = -1;
	for (unsigned i = 0; i < proxy->tunnel_count; i++)
		tunnel_close(proxy->tunnels[i], 0, "the test stops it");
}

static inline void fake_proxy_deinit(struct fake_proxy *proxy)
{
	fake_proxy_stop(proxy);
	for (int i = 0; i < 2000 && proxy->tunnel_count; i++)
		loop_turn(proxy->loop, false);
	loop_turn(proxy->loop, false);
	free(proxy->change);
	tunnel_hub_free(proxy->hub);
	SSL_CTX_free(proxy->ctx);
}
