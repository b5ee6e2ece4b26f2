/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pump load: connections through one proxy at once, each a thread with its own
 * TLS. A connection is right when the digests that the server tells equal ours
 * in both directions.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tools/pump.h"
#include "tests/tools/pump_flow.h"

#define HEAD_MAX 4096

struct client {
	const struct pump_load_options *options;
	SSL_CTX *ctx;
	pthread_t thread;
	struct pump_flow flow;
	char route[32];
	char worker[16];
	char tunnel_worker[16];
	char error[160];
	int64_t ms;
};

static int tcp_connect(const char *address)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	char host[256];
	const char *colon = strrchr(address, ':');
	int fd, one = 1;

	if (!colon || (size_t)(colon - address) >= sizeof(host))
		return -EINVAL;
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return -EINVAL;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) < 0) {
		int error = errno;

		close(fd);
		fd = -error;
	}
	freeaddrinfo(found);
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* Copies the value of a header, if it is there. */
static void head_value(
	const char *head, const char *name, char *out, size_t size)
{
	const char *at = strcasestr(head, name);

	if (!at)
		return;
	at += strlen(name);
	at += strspn(at, ": ");
	snprintf(out, size, "%.*s", (int)strcspn(at, "\r\n"), at);
}

/* Sends CONNECT and reads the answer's head, not one byte more. */
static int client_connect(struct client *client, struct pump_io *io)
{
	const char *target = client->options->target;
	char head[HEAD_MAX];
	size_t len;
	int ret;

	len = (size_t)snprintf(head, sizeof(head),
		"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target);
	ret = pump_io_write_all(io, head, len);
	for (len = 0; ret == 0; len++) {
		if (len >= 4 && !memcmp(head + len - 4, "\r\n\r\n", 4))
			break;
		if (len + 1 == sizeof(head))
			return -EMSGSIZE;
		ret = pump_io_read_all(io, head + len, 1);
	}
	if (ret < 0)
		return ret;
	head[len] = '\0';
	if (len < 12 || memcmp(head + 9, "200", 3)) {
		snprintf(client->error, sizeof(client->error), "%.*s",
			(int)strcspn(head, "\r\n"), head);
		return -ECONNREFUSED;
	}
	head_value(head, "peerway-route", client->route, sizeof(client->route));
	head_value(
		head, "peerway-worker", client->worker, sizeof(client->worker));
	head_value(head, "peerway-tunnel-worker", client->tunnel_worker,
		sizeof(client->tunnel_worker));
	return 0;
}

static int client_transfer(struct client *client, struct pump_io *io)
{
	const struct pump_load_options *options = client->options;
	struct pump_request request = {options->up, options->down};
	uint8_t bytes[PUMP_REQUEST_SIZE], theirs[2 * PUMP_DIGEST_SIZE];
	int ret;

	pump_request_encode(&request, bytes);
	ret = pump_io_write_all(io, bytes, sizeof(bytes));
	if (ret < 0)
		return ret;
	ret = pump_flow_run(io, options->up, options->down, &client->flow);
	if (ret < 0)
		return ret;
	ret = pump_io_read_all(io, theirs, sizeof(theirs));
	if (ret < 0)
		return ret;
	if (memcmp(theirs, client->flow.sent_digest, PUMP_DIGEST_SIZE) ||
		memcmp(theirs + PUMP_DIGEST_SIZE, client->flow.received_digest,
			PUMP_DIGEST_SIZE)) {
		snprintf(client->error, sizeof(client->error),
			"checksums differ");
		return -EBADMSG;
	}
	return 0;
}

static int client_talk(struct client *client, struct pump_io *io)
{
	int ret;

	if (io->ssl) {
		ret = pump_io_handshake(io);
		if (ret == 0)
			ret = client_connect(client, io);
		if (ret < 0)
			return ret;
	}
	return client_transfer(client, io);
}

static SSL *client_tls(struct client *client)
{
	SSL *ssl;

	if (!client->options->target)
		return NULL;
	ssl = SSL_new(client->ctx);
	SSL_set_tlsext_host_name(ssl, client->options->name);
	SSL_set1_host(ssl, client->options->name);
	return ssl;
}

static void *client_run(void *arg)
{
	struct client *client = arg;
	int64_t start = pump_now_ms();
	struct pump_io io;
	int ret = tcp_connect(client->options->proxy);

	if (ret >= 0) {
		pump_io_init(&io, ret, client_tls(client),
			start + client->options->deadline_s * 1000ll);
		ret = client_talk(client, &io);
		if (ret == 0 && io.ssl)
			SSL_shutdown(io.ssl);
		pump_io_deinit(&io);
	}
	if (ret < 0 && !client->error[0])
		snprintf(client->error, sizeof(client->error), "%s",
			strerror(-ret));
	client->ms = pump_now_ms() - start;
	return NULL;
}

static SSL_CTX *make_ctx(const struct pump_load_options *options)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_load_verify_locations(ctx, options->ca, NULL) == 1 &&
		SSL_CTX_use_certificate_chain_file(ctx, options->cert) == 1 &&
		SSL_CTX_use_PrivateKey_file(
			ctx, options->key, SSL_FILETYPE_PEM) == 1)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static void print_result(const struct client *client)
{
	printf("{\"ok\":%s,\"error\":\"%s\",\"route\":\"%s\","
	       "\"worker\":\"%s\",\"tunnel_worker\":\"%s\","
	       "\"sent\":%llu,\"received\":%llu,\"ms\":%lld}\n",
		client->error[0] ? "false" : "true", client->error,
		client->route, client->worker, client->tunnel_worker,
		(unsigned long long)client->flow.sent,
		(unsigned long long)client->flow.received,
		(long long)client->ms);
}

int pump_load(const struct pump_load_options *options)
{
	struct client *clients = calloc(options->connections, sizeof(*clients));
	SSL_CTX *ctx = NULL;
	unsigned failed = 0, started = 0;

	if (!clients || (options->target && !(ctx = make_ctx(options)))) {
		fprintf(stderr, "pump: cannot load the certificates\n");
		free(clients);
		return 1;
	}
	for (; started < options->connections; started++) {
		struct client *client = &clients[started];

		client->options = options;
		client->ctx = ctx;
		if (pthread_create(&client->thread, NULL, client_run, client))
			break;
	}
	for (unsigned i = 0; i < started; i++) {
		pthread_join(clients[i].thread, NULL);
		print_result(&clients[i]);
		failed += clients[i].error[0] != '\0';
	}
	SSL_CTX_free(ctx);
	free(clients);
	return failed || started < options->connections;
}
