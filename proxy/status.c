/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent's answers. Owns nothing. What a newcomer gets wrong: gauges are
 * sums over the workers, so "all have it" is a sum as large as their number.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "proxy/parent.h"
#include "proxy/status.h"
#include "shared/alloc.h"

static json_t *time_text(time_t when)
{
	char text[32];
	struct tm tm;

	if (!when)
		return json_null();
	gmtime_r(&when, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static json_t *workers_json(const struct parent *parent)
{
	json_t *workers = json_array();

	for (uint32_t i = 0; i < parent->conf->proxy.workers; i++) {
		const struct child *child = &parent->children[i];

		json_array_append_new(workers,
			json_pack("{s:i, s:i, s:i, s:o}", "worker",
				(int)child->number, "pid", (int)child->pid,
				"restarts", (int)child->restarts, "up_since",
				time_text(child->up ? child->up_since : 0)));
	}
	return workers;
}

static json_t *listen_json(const struct conf_proxy *conf)
{
	json_t *listen = json_pack("[{s:s, s:s}, {s:s, s:s}]", "addr",
		conf->listen_addr, "for", "clients", "addr",
		conf->tunnel_listen_addr, "for", "tunnels");

	for (unsigned i = 0; i < conf->tcp_listeners_count; i++)
		json_array_append_new(listen,
			json_pack("{s:s, s:s, s:s}", "addr",
				conf->tcp_listeners[i].listen, "for", "tcp",
				"target", conf->tcp_listeners[i].target));
	return listen;
}

/* Until what is left is cut; null: it does not drain. */
static json_t *drain_left(const struct parent *parent)
{
	int64_t left = parent->drain_until - loop_now(parent->loop);

	if (!parent_is_draining(parent))
		return json_null();
	return json_integer(left > 0 ? left : 0);
}

void status_answer(struct ctl_call *call, void *arg, json_t *args)
{
	struct parent *parent = arg;
	struct metrics *metrics = &parent->metrics;

	ctl_reply(call,
		json_pack("{s:i, s:s, s:o, s:I, s:I, s:I, s:b, s:b, s:o, s:o,"
			  " s:{s:I}}",
			"pid", (int)getpid(), "version", PEERWAY_VERSION,
			"workers", workers_json(parent), "clients",
			(json_int_t)metric_get(metrics, PROXY_CLIENTS),
			"tunnels",
			(json_int_t)metric_get(metrics, PROXY_TUNNELS),
			"sessions",
			(json_int_t)metric_get(metrics, PROXY_SESSIONS),
			"stopping", parent->stopping, "draining",
			parent_is_draining(parent), "drain_left_ms",
			drain_left(parent), "listen",
			listen_json(&parent->conf->proxy), "identity",
			"refused_by_workers",
			(json_int_t)metric_get(
				metrics, PROXY_IDENTITY_REFUSED)));
}

/* One line for each thing that fewer workers have than there are. */
char *status_missing(void *arg)
{
	static const struct {
		enum proxy_metric metric;
		const char *what;
	} needs[] = {
		{PROXY_HAS_IDENTITY, "certificate"},
		{PROXY_HAS_CACHE, "routing cache"},
		{PROXY_LINK_PEERD, "link to peerd"},
		{PROXY_LINK_ROUTED, "link to routed"},
	};
	struct parent *parent = arg;
	unsigned workers = parent->conf->proxy.workers;
	char *text = NULL;

	if (metric_get(&parent->metrics, PROXY_WARM) >= workers)
		parent->warm = true;
	/* Whoever balances load sends nobody new. */
	if (parent_is_draining(parent))
		return xasprintf("draining: tunnels=%lld sessions=%lld\n",
			(long long)metric_get(&parent->metrics, PROXY_TUNNELS),
			(long long)metric_get(
				&parent->metrics, PROXY_SESSIONS));

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		int64_t have = metric_get(&parent->metrics, needs[i].metric);
		char *before = text;

		if (have >= workers)
			continue;
		text = xasprintf("%s%s: %lld of %u workers\n",
			before ? before : "", needs[i].what, (long long)have,
			workers);
		free(before);
	}
	/* A worker that is started again has siblings, and its host has had
	 * its time. */
	if (!text && !parent->warm)
		text = xstrdup("tunnels: not yet a way to every agent\n");
	return text;
}
