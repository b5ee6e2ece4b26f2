/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams to services. Talks to the tunnel (answers and joins) and to dial.h;
 * owns a connection's socket until the join takes it.
 *
 * What one gets wrong: a stream may end at any time, also while its service is
 * being dialed. on_end is the only place where a connection is freed.
 */
#include "agent/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/dial.h"
#include "agent/series.h"
#include "shared/alloc.h"
#include "shared/log.h"

struct service {
	char name[IDENTITY_NAME_MAX];
	uint16_t port;
	char *addr;
};

struct serve {
	struct loop *loop;
	struct resolver *resolver;
	struct metrics *metrics;
	struct service *services;
	size_t count;
	uint32_t turn; /* spreads connections over a name's addresses */
};

struct serve_conn {
	struct serve *serve;
	struct tunnel_stream *stream;
	char service[IDENTITY_NAME_MAX]; /* may be gone meanwhile */
	bool joined;
	int64_t since;
	char *source; /* what the proxy said, for the log */
	char *user;
	char *connection_id;

	/* what is pending; NULL = not pending */
	struct dial *dial;
	struct timer *deadline;
};

static void clear_services(struct serve *serve)
{
	for (size_t i = 0; i < serve->count; i++)
		free(serve->services[i].addr);
	free(serve->services);
}

void serve_change(struct serve *serve, const struct registration *registration,
	const char *const *addrs)
{
	clear_services(serve);
	serve->count = registration->service_count;
	serve->services = xcalloc(serve->count + 1, sizeof(struct service));
	for (size_t i = 0; i < serve->count; i++) {
		struct service *service = &serve->services[i];

		strcpy(service->name, registration->services[i].name);
		service->port = registration->services[i].port;
		service->addr = xstrdup(addrs[i]);
	}
}

struct serve *serve_new(struct loop *loop, struct resolver *resolver,
	const struct registration *registration, const char *const *addrs,
	struct metrics *metrics)
{
	struct serve *serve = xcalloc(1, sizeof(*serve));

	serve->loop = loop;
	serve->resolver = resolver;
	serve->metrics = metrics;
	serve_change(serve, registration, addrs);
	return serve;
}

void serve_free(struct serve *serve)
{
	if (!serve)
		return;
	clear_services(serve);
	free(serve);
}

static void stop_dialing(struct serve_conn *conn)
{
	dial_free(conn->dial);
	conn->dial = NULL;
	timer_free(conn->deadline);
	conn->deadline = NULL;
}

static void conn_free(void *ptr)
{
	struct serve_conn *conn = ptr;

	free(conn->source);
	free(conn->user);
	free(conn->connection_id);
	free(conn);
}

static void on_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	struct serve_conn *conn = arg;
	struct serve *serve = conn->serve;

	if (conn->dial)
		metric_add(serve->metrics, SERIES_STREAMS_GONE, 1);
	stop_dialing(conn);
	metric_add(serve->metrics, SERIES_STREAMS, -1);
	if (conn->joined)
		log_info("connection ended: %s service=%s source=%s user=%s "
			 "sent=%llu received=%llu ms=%lld conn=%s",
			result->error ? strerror(-result->error) : "both ends",
			conn->service, conn->source, conn->user,
			(unsigned long long)result->sent,
			(unsigned long long)result->received,
			(long long)(loop_now(serve->loop) - conn->since),
			conn->connection_id);
	loop_free_later(serve->loop, conn_free, conn);
}

static const struct tunnel_stream_ops stream_ops = {.on_end = on_end};

/* The service cannot be reached. */
static void conn_refuse(struct serve_conn *conn, const char *why)
{
	char reason[600];

	snprintf(reason, sizeof(reason), "cannot connect to service %s: %s",
		conn->service, why);
	stop_dialing(conn);
	metric_add(conn->serve->metrics, SERIES_STREAMS_FAILED, 1);
	log_limited(LOG_WARN, "%s source=%s user=%s conn=%s", reason,
		conn->source, conn->user, conn->connection_id);
	tunnel_stream_refuse(conn->stream, 502, reason);
}

static void on_dialed(void *arg, int fd, const char *text)
{
	struct serve_conn *conn = arg;

	if (fd < 0) {
		conn_refuse(conn, text);
		return;
	}
	stop_dialing(conn);
	sock_nodelay(fd);
	conn->joined = true;
	metric_add(conn->serve->metrics, SERIES_STREAMS_JOINED, 1);
	tunnel_stream_join(
		conn->stream, chan_new_fd(conn->serve->loop, fd), NULL, 0);
}

static void on_deadline(void *arg)
{
	conn_refuse(arg, "timed out");
}

/* The service that `name:port` selects; NULL, and why in reason. */
static const struct service *choose(const struct serve *serve,
	const char *authority, char *reason, size_t size)
{
	char name[256];
	uint16_t port;

	if (sock_split(authority, 0, name, sizeof(name), &port) < 0) {
		snprintf(reason, size, "not <service>:<port>");
		return NULL;
	}
	for (size_t i = 0; i < serve->count; i++) {
		const struct service *service = &serve->services[i];

		if (strcmp(service->name, name) != 0)
			continue;
		if (service->port == port || port == 0)
			return service;
		snprintf(reason, size, "service %s has port %u, not %u", name,
			service->port, port);
		return NULL;
	}
	snprintf(reason, size, "no service %.64s is announced here", name);
	return NULL;
}

static char *copy_header(const struct tunnel_request *request, const char *name)
{
	for (size_t i = 0; i < request->header_count; i++)
		if (strcmp(request->headers[i].name, name) == 0)
			return xstrndup(request->headers[i].value, 256);
	return xstrdup("-");
}

void serve_connect(struct serve *serve, struct tunnel_stream *stream,
	const struct tunnel_request *request)
{
	char reason[400];
	const struct service *service =
		choose(serve, request->authority, reason, sizeof(reason));
	struct serve_conn *conn;

	if (!service) {
		char *id = copy_header(request, "peerway-connection-id");

		metric_add(serve->metrics, SERIES_STREAMS_UNKNOWN, 1);
		log_limited(LOG_WARN,
			"connection refused: %s target=%s conn=%s", reason,
			request->authority, id);
		free(id);
		tunnel_stream_refuse(stream, 404, reason);
		return;
	}
	conn = xcalloc(1, sizeof(*conn));
	conn->serve = serve;
	conn->stream = stream;
	strcpy(conn->service, service->name);
	conn->since = loop_now(serve->loop);
	conn->source = copy_header(request, "peerway-source");
	conn->user = copy_header(request, "peerway-user");
	conn->connection_id = copy_header(request, "peerway-connection-id");
	conn->deadline = timer_new(serve->loop, on_deadline, conn);
	timer_set(conn->deadline, SERVE_WHOLE_MS);
	metric_add(serve->metrics, SERIES_STREAMS, 1);
	tunnel_stream_set_ops(stream, &stream_ops, conn);
	conn->dial = dial_new(serve->loop, serve->resolver,
		(const char *const *)&service->addr, 1, 0, SERVE_TRY_MS,
		serve->turn++, on_dialed, conn);
}
