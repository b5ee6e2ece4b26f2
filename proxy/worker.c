/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One worker: makes what worker.h lists, in order, and takes it apart in
 * reverse. Its sockets and its end come from the parent: when that link closes,
 * the worker ends at once, since nobody would restart or stop it any more.
 *
 * What a newcomer gets wrong: a worker starts without certificate and cache if
 * routed has none yet. It accepts all the same and refuses handshakes until
 * they are there; routed announces both.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "proxy/agent_tunnel.h"
#include "proxy/announce.h"
#include "proxy/client.h"
#include "proxy/dial.h"
#include "proxy/discover.h"
#include "proxy/drain.h"
#include "proxy/handshake.h"
#include "proxy/inherit.h"
#include "proxy/listener.h"
#include "proxy/peerd_link.h"
#include "proxy/registry.h"
#include "proxy/route.h"
#include "proxy/routed_link.h"
#include "proxy/serve_dial.h"
#include "proxy/tcp_listener.h"
#include "proxy/trust.h"
#include "proxy/warmup.h"
#include "proxy/worker.h"
#include "shared/alloc.h"
#include "shared/lag.h"
#include "shared/process_metrics.h"
#include "shared/daemon.h"
#include "shared/ipc_link.h"
#include "shared/log.h"
#include "shared/reload.h"

#define TICK_MS 1000
#define COUNT_FDS_TICKS 5
#define PUSH_TICKS 120 /* agents forget a proxy after 3 minutes */

/* --- identity, cache --- */

/* Own files are read at the start only: then routed has copied them to its
 * directory, checked and whole. */
static struct tls_identity *load_identity(
	const struct conf_identity *files, const char *directory, char **error)
{
	if (!directory)
		return tls_identity_load_files(files->cert, files->key,
			files->ca, *files->user_ca ? files->user_ca : NULL,
			error);
	return tls_identity_load(directory, error);
}

void worker_load_identity(struct worker *worker, const char *directory)
{
	char *error = NULL;
	struct tls_identity *identity =
		load_identity(&worker->conf->identity, directory, &error);
	bool used = identity && !trust_use(worker->trust, identity, &error);

	metric_set(&worker->metrics, PROXY_IDENTITY_REFUSED, !used);
	if (used) {
		metric_set(&worker->metrics, PROXY_HAS_IDENTITY, 1);
		log_info("certificate loaded: from=%s seconds_left=%lld",
			directory ? directory : "identity.cert",
			(long long)(trust_not_after(worker->trust) -
				    time(NULL)));
	} else {
		log_warn("certificate not loaded, an earlier one stays in "
			 "use: %s",
			error);
	}
	free(error);
	tls_identity_unref(identity);
}

/* Also when nothing has changed: an older list is no news to an agent, and what
 * it has no news of it forgets. */
static void push_discovery(struct worker *worker)
{
	discover_refresh(worker->discover, routes_cache(worker->routes));
	agent_tunnel_push_all(worker);
}

static void configure_hub(struct worker *worker)
{
	struct tunnel_settings settings = {
		.stream_buffer_max = worker->conf->proxy.stream_buffer_max,
		.buffer_max = worker->conf->proxy.buffer_max,
	};

	discover_keepalive(worker->discover, &settings);
	tunnel_hub_configure(worker->hub, &settings);
}

static void refresh_discovery(struct worker *worker)
{
	if (!discover_refresh(worker->discover, routes_cache(worker->routes)))
		return;
	configure_hub(worker);
	agent_tunnel_push_all(worker);
}

void worker_use_cache(
	struct worker *worker, const char *path, bool proxies_changed)
{
	bool first = !routes_cache(worker->routes);
	struct cache *before = routes_cache(worker->routes);
	char *error = NULL;

	if (routes_open(worker->routes, path, &error)) {
		log_warn("cache not opened: %s", error);
		free(error);
		return;
	}
	if (first)
		log_info("cache opened: path=%s", path);
	metric_set(&worker->metrics, PROXY_HAS_CACHE, 1);
	if (proxies_changed || before != routes_cache(worker->routes))
		refresh_discovery(worker);
	agent_tunnel_tell_published(worker);
}

/* What a routed that is away now left on disk. */
static void load_from_disk(struct worker *worker)
{
	char *identity =
		xasprintf("%s/identity/current", worker->conf->data_dir);
	char *directory = xasprintf("%s/cache", worker->conf->data_dir);
	char *cache = cache_newest(directory);

	if (*worker->conf->identity.cert)
		worker_load_identity(worker, NULL);
	else if (access(identity, R_OK) == 0)
		worker_load_identity(worker, identity);
	if (cache)
		worker_use_cache(worker, cache, true);
	free(cache);
	free(directory);
	free(identity);
}

/* --- sessions, ticks --- */

void worker_session_begins(struct worker *worker)
{
	worker->session_count++;
	metric_set(&worker->metrics, PROXY_SESSIONS, worker->session_count);
}

void worker_session_ends(
	struct worker *worker, uint64_t sent, uint64_t received)
{
	worker->session_count--;
	metric_set(&worker->metrics, PROXY_SESSIONS, worker->session_count);
	metric_add(&worker->metrics, PROXY_SESSION_BYTES_SENT, (int64_t)sent);
	metric_add(&worker->metrics, PROXY_SESSION_BYTES_RECEIVED,
		(int64_t)received);
}

static int64_t max_fds(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (int64_t)limit.rlim_cur
						     : 0;
}

static void update_metrics(struct worker *worker)
{
	struct metrics *metrics = &worker->metrics;
	struct tunnel_hub_stats stats;

	tunnel_hub_stats(worker->hub, &stats);
	metric_set(metrics, PROXY_STREAMS, (int64_t)stats.streams);
	metric_set(metrics, PROXY_STREAM_BYTES_HELD, (int64_t)stats.bytes_held);
	metric_add(metrics, PROXY_TUNNEL_BYTES_IN,
		(int64_t)(stats.bytes_in - worker->counted.bytes_in));
	metric_add(metrics, PROXY_TUNNEL_BYTES_OUT,
		(int64_t)(stats.bytes_out - worker->counted.bytes_out));
	worker->counted = stats;
	metric_set(metrics, PROXY_CLIENTS, worker->client_count);
	/* with many descriptors a costly one */
	if (worker->ticks % COUNT_FDS_TICKS == 0)
		metric_set(metrics, PROXY_OPEN_FDS, process_open_fds());
	metric_set(metrics, PROXY_MAX_FDS, max_fds());
}

static void on_tick(void *arg)
{
	struct worker *worker = arg;

	update_metrics(worker);
	listener_tick(worker);
	if (++worker->ticks % PUSH_TICKS == 0)
		push_discovery(worker);
	timer_set(worker->tick, TICK_MS);
}

static void on_signal(int signal, void *arg)
{
	struct worker *worker = arg;

	drain_stop(worker->drain, worker->conf->proxy.drain_timeout);
}

/* --- the parent --- */

static void handle_drain(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__Drain *order =
		(const Peerway__Ipc__Drain *)msg->payload;
	struct worker *worker = arg;

	if (!order->on)
		drain_cancel(worker->drain);
	else
		drain_begin(worker->drain, order->timeout_ms);
	if (order->on && !order->timeout_ms)
		drain_hurry(worker->drain);
}

/* Everything else is read from conf when it is needed. */
static void apply(struct worker *worker)
{
	worker->reloads++;
	handshakes_set_bound(worker);
	refresh_discovery(worker);
	configure_hub(worker);
	listener_resume_all(worker);
}

static void handle_reload(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	struct worker *worker = arg;
	struct conf_changes changes;
	char *error = NULL;
	char path[64];
	int fd = ipc_take_fd(msg);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (reload_take(worker->conf, path, path, CONF_PROXY, &changes,
		    &error) == 0)
		apply(worker);
	else
		log_error("configuration stays as it was: %s", error);
	free(error);
	close(fd);
}

static const struct ipc_handlers from_parent[] = {
	{IPC_RELOAD, handle_reload},
	{IPC_DRAIN, handle_drain},
	{0, NULL},
};

static void on_parent_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct worker *worker = arg;

	log_error("the parent is gone: %s", reason);
	worker->parent = NULL;
	loop_stop(worker->loop);
}

static const struct ipc_link_ops parent_ops = {
	.handlers = from_parent,
	.on_down = on_parent_down,
};

/* --- start and end --- */

static void on_client_accepted(
	struct worker *worker, void *arg, int fd, const struct sock_addr *from)
{
	handshake_start(worker, fd, from, false);
}

static void on_tunnel_accepted(
	struct worker *worker, void *arg, int fd, const struct sock_addr *from)
{
	handshake_start(worker, fd, from, true);
}

static const struct listener_ops client_ops = {
	.on_accept = on_client_accepted,
	.admit = handshake_has_room,
};
static const struct listener_ops tunnel_ops = {
	.on_accept = on_tunnel_accepted,
	.admit = handshake_has_room,
};

static void start_listeners(struct worker *worker)
{
	const struct conf_proxy *conf = &worker->conf->proxy;

	listener_start(worker, INHERIT_CLIENTS, &client_ops, NULL);
	listener_start(worker, INHERIT_TUNNELS, &tunnel_ops, NULL);
	for (unsigned i = 0; i < conf->tcp_listeners_count; i++)
		tcp_listener_start(
			worker, INHERIT_TCP + (int)i, &conf->tcp_listeners[i]);
}

static void start_links(struct worker *worker)
{
	struct ipc_self self = {
		.peer = PEERWAY__IPC__PEER__PEER_WORKER,
		.worker = worker->number,
		.workers = worker->conf->proxy.workers,
	};

	worker->parent = ipc_link_adopt(
		worker->loop, INHERIT_LINK, &self, &parent_ops, worker);
	peerd_link_start(worker, &self);
	routed_link_start(worker, &self);
}

static void map_metrics(struct worker *worker)
{
	size_t slots = worker->conf->proxy.workers + 1;
	size_t size = metrics_size(proxy_metrics, PROXY_METRICS, slots);
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		INHERIT_METRICS, 0);

	if (memory == MAP_FAILED)
		die("cannot map the metrics: %m");
	close(INHERIT_METRICS);
	metrics_init(&worker->metrics, proxy_metrics, PROXY_METRICS, slots,
		worker->number, memory);
	/* what a predecessor left */
	metrics_clear_gauges(&worker->metrics, worker->number);
}

static void worker_init(
	struct worker *worker, struct conf *conf, uint32_t number)
{
	struct tunnel_settings settings = {
		.stream_buffer_max = conf->proxy.stream_buffer_max,
		.buffer_max = conf->proxy.buffer_max,
	};
	int ret;

	worker->conf = conf;
	worker->number = number;
	worker->fd_limit = daemon_raise_fd_limit();
	close(INHERIT_CONF); /* conf is what it said */
	ret = conf_host_uuid(conf, worker->proxy_id);
	if (ret)
		die("cannot read or make the host's uuid in %s: %s",
			conf->data_dir, strerror(-ret));
	TAILQ_INIT(&worker->listeners);
	TAILQ_INIT(&worker->tunnels);
	TAILQ_INIT(&worker->pushes);
	TAILQ_INIT(&worker->unpublished);
	TAILQ_INIT(&worker->clients);
	TAILQ_INIT(&worker->tcp_sessions);
	map_metrics(worker);
	worker->loop = loop_new();
	worker->trust = trust_new();
	worker->handshakes = handshakes_new(worker);
	worker->registry = registry_new();
	worker->routes = routes_new(conf->cluster_name, worker->registry);
	worker->discover = discover_new(conf, worker->proxy_id);
	discover_keepalive(worker->discover, &settings);
	worker->hub = tunnel_hub_new(worker->loop, &settings);
	worker->tick = timer_new(worker->loop, on_tick, worker);
	worker->lag = lag_new(worker->loop, &worker->metrics, PROXY_LAG);
	worker->drain = drain_new(worker);
	worker->warmup = warmup_new(worker);
}

/* Everything that has a connection goes first, so that its last messages and
 * log lines are out; then what they hung on. */
static void worker_deinit(struct worker *worker)
{
	listener_stop_all(worker);
	handshakes_free(worker->handshakes);
	client_drop_all(worker);
	tcp_listener_drop_sessions(worker);
	agent_tunnel_close_all(worker, 0, "shutting down");
	while (worker->tunnel_count)
		loop_turn(worker->loop, true);
	loop_turn(worker->loop, false);
	ipc_link_free(worker->routed);
	ipc_link_free(worker->peerd);
	ipc_link_free(worker->parent);
	warmup_free(worker->warmup);
	drain_free(worker->drain);
	timer_free(worker->tick);
	lag_free(worker->lag);
	tunnel_hub_free(worker->hub);
	discover_free(worker->discover);
	routes_free(worker->routes);
	registry_free(worker->registry);
	trust_free(worker->trust);
	metrics_clear_gauges(&worker->metrics, worker->number);
	metrics_deinit(&worker->metrics);
	loop_free(worker->loop);
}

int worker_run(struct conf *conf, uint32_t number)
{
	struct worker *worker = xcalloc(1, sizeof(*worker));

	worker_init(worker, conf, number);
	loop_on_signal(worker->loop, SIGTERM, on_signal, worker);
	loop_on_signal(worker->loop, SIGINT, on_signal, worker);
	/* one to the whole group of processes is the parent's business */
	signal(SIGHUP, SIG_IGN);
	start_links(worker);
	load_from_disk(worker);
	start_listeners(worker);
	timer_set(worker->tick, TICK_MS);
	log_info("worker started: worker=%u pid=%ld descriptors=%ld", number,
		(long)getpid(), worker->fd_limit);
	loop_run(worker->loop);
	worker_deinit(worker);
	free(worker);
	log_info("worker ended");
	return 0;
}
