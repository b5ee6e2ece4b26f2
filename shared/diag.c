/* SPDX-License-Identifier: Apache-2.0 */
/* The diagnostic address: see diag.h. HTTP is libevent's evhttp. */
#include "shared/diag.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/lag.h"
#include "shared/process_metrics.h"
#include "shared/sock.h"

#define REQUEST_TIMEOUT_S 10
#define REQUEST_MAX 8192

struct diag {
	struct evhttp *http;
	const struct diag_ops *ops;
	struct metrics *metrics;
	struct lag *lag;
	void *arg;
};

static void send_text(struct evhttp_request *request, int status,
	const char *type, const char *text)
{
	struct evbuffer *body = evbuffer_new();

	if (!body) {
		evhttp_send_error(request, HTTP_INTERNAL, NULL);
		return;
	}
	evbuffer_add(body, text, strlen(text));
	evhttp_add_header(evhttp_request_get_output_headers(request),
		"Content-Type", type);
	evhttp_send_reply(request, status, NULL, body);
	evbuffer_free(body);
}

static void on_healthz(struct evhttp_request *request, void *arg)
{
	send_text(request, HTTP_OK, "text/plain", "ok\n");
}

static void on_readyz(struct evhttp_request *request, void *arg)
{
	struct diag *diag = arg;
	char *missing = diag->ops->missing(diag->arg);

	send_text(request, missing ? HTTP_SERVUNAVAIL : HTTP_OK, "text/plain",
		missing ? missing : "ready\n");
	free(missing);
}

static void on_metrics(struct evhttp_request *request, void *arg)
{
	struct diag *diag = arg;
	char *text = metrics_text(diag->metrics);
	char *more = diag->ops->more_metrics
			     ? diag->ops->more_metrics(diag->arg)
			     : NULL;
	char *process = process_metrics_text();
	char *all = xasprintf("%s%s%s", text, more ? more : "", process);

	send_text(request, HTTP_OK, "text/plain; version=0.0.4", all);
	free(all);
	free(process);
	free(more);
	free(text);
}

static void on_unknown(struct evhttp_request *request, void *arg)
{
	send_text(request, HTTP_NOTFOUND, "text/plain",
		"not found: try /healthz, /readyz or /metrics\n");
}

struct diag *diag_new(struct loop *loop, const char *addr,
	const struct diag_ops *ops, struct metrics *metrics, void *arg)
{
	struct sock_addr sa;
	struct diag *diag;
	int fd;

	errno = 0;
	if (!*addr)
		return NULL;
	fd = sock_parse(addr, 0, &sa) < 0 ? -EINVAL
					  : sock_listen(&sa, false, 64);
	if (fd < 0) {
		errno = -fd;
		return NULL;
	}
	diag = xcalloc(1, sizeof(*diag));
	diag->ops = ops;
	diag->metrics = metrics;
	diag->arg = arg;
	diag->http = evhttp_new(loop_base(loop));
	if (!diag->http || evhttp_accept_socket(diag->http, fd) < 0) {
		close(fd);
		diag_free(diag);
		errno = ENOMEM;
		return NULL;
	}
	diag->lag = lag_new(loop, metrics, ops->lag);
	evhttp_set_timeout(diag->http, REQUEST_TIMEOUT_S);
	evhttp_set_max_headers_size(diag->http, REQUEST_MAX);
	evhttp_set_max_body_size(diag->http, REQUEST_MAX);
	evhttp_set_allowed_methods(
		diag->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
	evhttp_set_cb(diag->http, "/healthz", on_healthz, diag);
	evhttp_set_cb(diag->http, "/readyz", on_readyz, diag);
	evhttp_set_cb(diag->http, "/metrics", on_metrics, diag);
	evhttp_set_gencb(diag->http, on_unknown, diag);
	return diag;
}

void diag_free(struct diag *diag)
{
	if (!diag)
		return;
	lag_free(diag->lag);
	if (diag->http)
		evhttp_free(diag->http);
	free(diag);
}
