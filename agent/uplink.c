/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that a proxy makes on a tunnel, in one table.
 *
 * What one gets wrong: the proxy is authenticated, but what it sends may still
 * be anything; a list that does not parse is refused and costs only itself.
 */
#include "agent/uplink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/outage.h"
#include "agent/series.h"
#include "shared/alloc.h"
#include "shared/field.h"
#include "shared/log.h"

struct uplink {
	const struct uplink_config *config;
	const struct uplink_ops *ops;
	void *arg;
	struct tunnel *tunnel;
	struct timer *timer; /* until ready, then until settled */
	char proxy_id[37];
	bool closing;
	bool published;
	unsigned told; /* number of the registration the proxy has */
	/* open streams of /v1/agent/events */
	struct tunnel_stream *events[UPLINK_EVENTS_MAX];
	unsigned event_count;
};

static void handle_agent(struct uplink *uplink, struct tunnel_stream *stream,
	const struct tunnel_request *request, const uint8_t *body, size_t len)
{
	const char *registration = uplink->config->registration;

	uplink->told = uplink->config->registration_number;
	tunnel_stream_reply(stream, 200, "application/json", registration,
		strlen(registration));
}

static void on_events_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *result)
{
	struct uplink *uplink = arg;

	for (unsigned i = 0; i < uplink->event_count; i++)
		if (uplink->events[i] == stream)
			uplink->events[i] =
				uplink->events[--uplink->event_count];
}

static const struct tunnel_stream_ops events_ops = {.on_end = on_events_end};

static void handle_events(struct uplink *uplink, struct tunnel_stream *stream,
	const struct tunnel_request *request, const uint8_t *body, size_t len)
{
	if (uplink->event_count == UPLINK_EVENTS_MAX) {
		tunnel_stream_refuse(stream, 429, "too many of these");
		return;
	}
	uplink->events[uplink->event_count++] = stream;
	tunnel_stream_set_ops(stream, &events_ops, uplink);
	tunnel_stream_reply_open(stream, "application/x-ndjson");
	/* It may have changed between the two questions. */
	if (uplink->told != uplink->config->registration_number)
		uplink_announce(uplink);
}

void uplink_announce(struct uplink *uplink)
{
	char *line = xasprintf("%s\n", uplink->config->registration);

	for (unsigned i = 0; i < uplink->event_count; i++)
		if (tunnel_stream_push(uplink->events[i], line, strlen(line)) <
			0)
			log_warn("the proxy does not read our changes: "
				 "proxy=%s",
				uplink->proxy_id);
	if (uplink->event_count)
		uplink->told = uplink->config->registration_number;
	free(line);
}

static void refuse_proxies(
	struct uplink *uplink, struct tunnel_stream *stream, const char *why)
{
	metric_add(uplink->config->metrics, SERIES_DISCOVERY_REFUSED, 1);
	log_warn("list of proxies refused: %s proxy=%s", why, uplink->proxy_id);
	tunnel_stream_refuse(stream, 400, why);
}

static void handle_proxies(struct uplink *uplink, struct tunnel_stream *stream,
	const struct tunnel_request *request, const uint8_t *body, size_t len)
{
	char *error = NULL;
	struct discovery *discovery =
		discovery_from_json((const char *)body, len, &error);

	if (!discovery) {
		refuse_proxies(uplink, stream, error);
		free(error);
		return;
	}
	if (strcmp(discovery->cluster_name, uplink->config->cluster) != 0) {
		refuse_proxies(uplink, stream, "cluster_name: another one");
	} else {
		tunnel_stream_reply(stream, 200, "text/plain", "", 0);
		uplink->ops->on_discovery(uplink->arg, uplink, discovery);
	}
	discovery_free(discovery);
}

static void handle_published(struct uplink *uplink,
	struct tunnel_stream *stream, const struct tunnel_request *request,
	const uint8_t *body, size_t len)
{
	tunnel_stream_reply(stream, 200, "text/plain", "", 0);
	uplink->published = true;
	uplink->ops->on_published(uplink->arg, uplink);
}

/* {"to": "<uuid>"}, or without it. */
static int read_move(const uint8_t *body, size_t len, char to[37],
	char error[FIELD_ERROR_MAX])
{
	json_t *document = field_document((const char *)body, len, error);
	struct field top = {document, "", error};
	int ret;

	if (!document)
		return -EINVAL;
	ret = field_text(&top, "to", false, to, 37);
	json_decref(document);
	return ret;
}

static void handle_move(struct uplink *uplink, struct tunnel_stream *stream,
	const struct tunnel_request *request, const uint8_t *body, size_t len)
{
	char error[FIELD_ERROR_MAX];
	char to[37] = "";

	if (read_move(body, len, to, error) < 0)
		tunnel_stream_refuse(stream, 400, error);
	else if (uplink->closing ||
		 !uplink->ops->on_move(uplink->arg, uplink, to))
		tunnel_stream_refuse(stream, 409, "no other proxy to go to");
	else
		tunnel_stream_reply(stream, 200, "text/plain", "", 0);
}

static void handle_connect(struct uplink *uplink, struct tunnel_stream *stream,
	const struct tunnel_request *request, const uint8_t *body, size_t len)
{
	serve_connect(uplink->config->serve, stream, request);
}

/* What a proxy may ask for; anything else is 404. */
static const struct {
	const char *method;
	const char *path;
	void (*handle)(struct uplink *uplink, struct tunnel_stream *stream,
		const struct tunnel_request *request, const uint8_t *body,
		size_t len);
} requests[] = {
	{"CONNECT", "", handle_connect},
	{"GET", "/v1/agent", handle_agent},
	{"GET", "/v1/agent/events", handle_events},
	{"POST", "/v1/proxies", handle_proxies},
	{"POST", "/v1/published", handle_published},
	{"POST", "/v1/move", handle_move},
};

static void on_request(struct tunnel *tunnel, void *arg,
	struct tunnel_stream *stream, const struct tunnel_request *request,
	const uint8_t *body, size_t body_len)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		if (strcmp(request->method, requests[i].method) != 0 ||
			strcmp(request->path, requests[i].path) != 0)
			continue;
		requests[i].handle(arg, stream, request, body, body_len);
		return;
	}
	tunnel_stream_refuse(stream, 404, "no such request");
}

static void on_timer(void *arg)
{
	struct uplink *uplink = arg;

	/* Not uplink_close(): nobody wanted this end. */
	if (!tunnel_is_ready(uplink->tunnel))
		tunnel_close(uplink->tunnel, 0, "the proxy sent no SETTINGS");
	else
		uplink->ops->on_settled(uplink->arg, uplink);
}

static void on_ready(struct tunnel *tunnel, void *arg)
{
	struct uplink *uplink = arg;
	int64_t lasted = outage_end(
		uplink->config->outage, loop_now(uplink->config->loop));

	timer_set(uplink->timer, UPLINK_SETTLE_MS);
	if (lasted)
		log_info("tunnel open: proxy=%s, after %lld s without any",
			uplink->proxy_id, (long long)lasted / 1000);
	else
		log_info("tunnel open: proxy=%s", uplink->proxy_id);
}

static void on_end(struct tunnel *tunnel, void *arg, const char *reason)
{
	struct uplink *uplink = arg;

	uplink->tunnel = NULL;
	timer_free(uplink->timer);
	uplink->timer = NULL;
	uplink->ops->on_end(uplink->arg, uplink, reason);
	loop_free_later(uplink->config->loop, free, uplink);
}

static const struct tunnel_ops tunnel_ops = {
	.on_ready = on_ready,
	.on_request = on_request,
	.on_end = on_end,
};

struct uplink *uplink_new(const struct uplink_config *config, int fd, SSL *ssl,
	const struct host_identity *proxy, const struct uplink_ops *ops,
	void *arg)
{
	struct uplink *uplink = xcalloc(1, sizeof(*uplink));

	uplink->config = config;
	uplink->ops = ops;
	uplink->arg = arg;
	strcpy(uplink->proxy_id, proxy->uuid);
	uplink->timer = timer_new(config->loop, on_timer, uplink);
	timer_set(uplink->timer, UPLINK_READY_MS);
	uplink->tunnel = tunnel_new(config->hub, TUNNEL_AGENT,
		chan_new_tls(config->loop, fd, ssl), &tunnel_ops, uplink);
	return uplink;
}

void uplink_close(struct uplink *uplink, uint32_t linger_ms, const char *why)
{
	uplink->closing = true;
	timer_clear(uplink->timer);
	tunnel_close(uplink->tunnel, linger_ms, why);
}

const char *uplink_proxy_id(const struct uplink *uplink)
{
	return uplink->proxy_id;
}

bool uplink_is_ready(const struct uplink *uplink)
{
	return !uplink->closing && uplink->tunnel &&
	       tunnel_is_ready(uplink->tunnel);
}

bool uplink_is_published(const struct uplink *uplink)
{
	return uplink->published;
}

bool uplink_is_closing(const struct uplink *uplink)
{
	return uplink->closing;
}
