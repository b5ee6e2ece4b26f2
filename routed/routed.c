/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one part's events mean for the others; no part knows another but by its
 * header. Started by main.c, asked by control.c.
 *
 * What is easily got wrong: a restarted routed must not end the old lease
 * before the host's workers have told their tunnels again, and must not wait
 * for a worker that is not there. Hence the two ways to "synced".
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "routed/proxy_record.h"
#include "routed/routed.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define SYNC_WAIT_MS 2000
#define STRATEGY_WAIT_MS 1000
/* Workers of a host that stops drain by then. */
#define ALONE_MS 5000

/* ---- the session ---- */

static void on_lease(void *arg)
{
	struct routed *routed = arg;

	publisher_on_lease(routed->publisher);
}

static void on_open(void *arg)
{
	struct routed *routed = arg;

	mirror_start(routed->mirror);
	if (!publisher_has_record(routed->publisher))
		timer_set(routed->strategy_wait, STRATEGY_WAIT_MS);
	publisher_on_open(routed->publisher);
}

static void on_close(void *arg)
{
	struct routed *routed = arg;

	mirror_stop(routed->mirror);
}

static const struct session_ops session_ops = {
	.on_lease = on_lease,
	.on_open = on_open,
	.on_close = on_close,
};

/* ---- the mirror ---- */

static void announce_cache(struct routed *routed, bool proxies_changed)
{
	Peerway__Ipc__Cache message = PEERWAY__IPC__CACHE__INIT;
	struct cache_meta meta;

	if (!mirror_position(routed->mirror, &meta))
		return;
	message.path = (char *)mirror_path(routed->mirror);
	message.store_id = meta.store_id;
	message.revision = meta.revision;
	message.proxies_changed = proxies_changed;
	message.strategy_decided = publisher_has_record(routed->publisher);
	links_tell_cache(routed->links, &message);
}

/* The CAs, of the config in the cache. */
static void take_trust(struct routed *routed)
{
	struct cache *cache = mirror_cache(routed->mirror);
	Peerway__Record__ClusterConfig *config;

	if (!cache || cache_config(cache, &config) != 1)
		return;
	membership_hear(routed->membership, config);
	peerway__record__cluster_config__free_unpacked(config, NULL);
}

static void on_commit(void *arg, bool proxies_changed)
{
	struct routed *routed = arg;

	metric_add(&routed->metrics, ROUTED_COMMITS, 1);
	if (proxies_changed)
		take_trust(routed);
	announce_cache(routed, proxies_changed);
}

/* The strategy that this host runs with is the one read now, once: another
 * takes effect when the host's programs are started anew. */
static void take_strategy(struct routed *routed)
{
	struct cache *cache = mirror_cache(routed->mirror);
	Peerway__Record__ClusterConfig *config;
	char hostname[256] = "";
	char host_addr[64];

	if (publisher_has_record(routed->publisher) || !cache ||
		cache_config(cache, &config) != 1)
		return;
	if (config->strategy) {
		gethostname(hostname, sizeof(hostname) - 1);
		proxy_record_host_addr(host_addr, sizeof(host_addr));
		publisher_set_record(routed->publisher,
			proxy_record_make(routed->conf, routed->proxy_id,
				hostname, host_addr, config->strategy));
	}
	peerway__record__cluster_config__free_unpacked(config, NULL);
	announce_cache(routed, true);
}

static void on_current(void *arg)
{
	take_strategy(arg);
}

static void on_strategy_wait_over(void *arg)
{
	take_strategy(arg);
}

static const struct mirror_ops mirror_ops = {
	.on_commit = on_commit,
	.on_current = on_current,
};

/* ---- this host's processes ---- */

static void on_tunnel(
	void *arg, uint64_t id, const Peerway__Ipc__Tunnel *tunnel)
{
	struct routed *routed = arg;

	if (publish_up(routed->publish, id, tunnel->tunnel_id, tunnel->record) <
		0)
		log_warn("tunnel is not published: this host has too many "
			 "agent=%s",
			tunnel->record->agent_id);
	publisher_poke(routed->publisher);
}

static void on_tunnel_down(void *arg, uint64_t id, uint64_t tunnel_id)
{
	struct routed *routed = arg;

	publish_down(routed->publish, id, tunnel_id);
	publisher_poke(routed->publisher);
}

static void on_sync(void *arg, uint64_t id, bool begins, bool ends)
{
	struct routed *routed = arg;

	if (begins)
		publish_sync_begin(routed->publish, id);
	if (ends)
		publish_sync_end(routed->publish, id);
	publisher_poke(routed->publisher);
}

static void on_worker_gone(void *arg, uint64_t id)
{
	struct routed *routed = arg;

	publish_link_gone(routed->publish, id);
	publisher_poke(routed->publisher);
}

static void on_all_synced(void *arg)
{
	struct routed *routed = arg;

	timer_clear(routed->sync_wait);
	publisher_set_synced(routed->publisher);
}

static void on_draining(void *arg, bool draining)
{
	struct routed *routed = arg;

	log_info(draining ? "draining: others are told so"
			  : "serving again: others are told so");
	publisher_set_draining(routed->publisher, draining);
}

static void on_sync_wait_over(void *arg)
{
	struct routed *routed = arg;

	publisher_set_synced(routed->publisher);
}

static void on_lookup(
	void *arg, uint64_t id, const Peerway__Ipc__Lookup *lookup)
{
	struct routed *routed = arg;

	metric_add(&routed->metrics, ROUTED_LOOKUPS, 1);
	forward_lookup(routed->forward, id, lookup);
}

static void on_join(void *arg, uint64_t id, const Peerway__Ipc__Join *join)
{
	struct routed *routed = arg;

	metric_add(&routed->metrics, ROUTED_JOINS, 1);
	forward_join(routed->forward, id, join);
}

static void leave(struct routed *routed);

static void on_no_workers(void *arg)
{
	struct routed *routed = arg;

	if (routed->draining)
		leave(routed);
}

static const struct links_ops links_ops = {
	.on_tunnel = on_tunnel,
	.on_tunnel_down = on_tunnel_down,
	.on_sync = on_sync,
	.on_worker_gone = on_worker_gone,
	.on_all_synced = on_all_synced,
	.on_draining = on_draining,
	.on_no_workers = on_no_workers,
	.on_lookup = on_lookup,
	.on_join = on_join,
};

/* ---- the identity ---- */

static void on_identity(
	void *arg, struct tls_identity *identity, const char *directory)
{
	Peerway__Ipc__Identity message = PEERWAY__IPC__IDENTITY__INIT;
	struct routed *routed = arg;

	message.directory = (char *)directory;
	message.not_after_ms =
		(uint64_t)tls_identity_not_after(identity) * 1000;
	links_tell_identity(routed->links, &message);
	if (routed->holder)
		rpc_identity_replace(routed->holder, identity);
	else
		routed->holder = rpc_identity_new(identity);
	session_start(routed->session, routed->holder);
}

static struct rpc_channel *channel_for_renewal(void *arg)
{
	struct routed *routed = arg;

	return session_channel(routed->session);
}

static const struct membership_ops membership_ops = {
	.on_identity = on_identity,
	.channel = channel_for_renewal,
};

/* ---- the end ---- */

static void on_left(void *arg)
{
	struct routed *routed = arg;

	loop_stop(routed->loop);
}

/* With workers still there the lease is left to a successor, or to run out:
 * their tunnels are alive. */
static void leave(struct routed *routed)
{
	unsigned workers = links_workers(routed->links);

	if (routed->leaving)
		return;
	routed->leaving = true;
	log_info("stopping: workers=%u", workers);
	session_leave(routed->session, workers == 0, on_left, routed);
}

/* Only of a host that stops do the workers drain; else routed alone is to be
 * started anew, and waiting for them would be in vain. */
static void on_drain_over(void *arg)
{
	struct routed *routed = arg;
	int64_t left = routed->drain_until - loop_now(routed->loop);

	if (left > 0 && links_are_draining(routed->links))
		timer_set(routed->drain, left);
	else
		leave(routed);
}

void routed_drain(struct routed *routed)
{
	int64_t timeout = routed->conf->proxy.drain_timeout;
	bool again = routed->draining;

	routed->draining = true;
	if (again || links_workers(routed->links) == 0) {
		leave(routed);
		return;
	}
	log_info("stopping when the workers have gone: workers=%u",
		links_workers(routed->links));
	routed->drain_until = loop_now(routed->loop) + timeout;
	timer_set(routed->drain, timeout < ALONE_MS ? timeout : ALONE_MS);
}

void routed_stop(struct routed *routed)
{
	if (routed->mirror)
		mirror_stop(routed->mirror); /* commits, and tells of it */
	timer_free(routed->sync_wait);
	timer_free(routed->strategy_wait);
	timer_free(routed->drain);
	validate_free(routed->validate);
	mover_free(routed->mover);
	session_free(routed->session); /* ends all calls on its channel */
	membership_free(routed->membership);
	mirror_free(routed->mirror);
	publisher_free(routed->publisher);
	publish_free(routed->publish);
	links_free(routed->links);
	rpc_cq_free(routed->cq);
	forward_free(routed->forward);
	rpc_identity_free(routed->holder);
	metrics_deinit(&routed->metrics);
}

/* ---- the beginning ---- */

static int open_links(struct routed *routed, char **error_out)
{
	char *path = xasprintf("%s/routed.sock", routed->conf->run_dir);

	routed->links =
		links_new(routed->loop, path, &links_ops, routed, error_out);
	free(path);
	return routed->links ? 0 : -1;
}

static int open_mirror(struct routed *routed, char **error_out)
{
	char *directory = xasprintf("%s/cache", routed->conf->data_dir);

	routed->mirror = mirror_new(routed->loop, directory, routed->session,
		&mirror_ops, routed, error_out);
	free(directory);
	return routed->mirror ? 0 : -1;
}

static void make_parts(struct routed *routed)
{
	const struct conf *conf = routed->conf;
	struct loop *loop = routed->loop;

	routed->publish = publish_new(routed->proxy_id,
		(size_t)conf->proxy.workers * conf->proxy.max_tunnels);
	routed->session = session_new(
		loop, routed->cq, conf, routed->proxy_id, &session_ops, routed);
	routed->publisher =
		publisher_new(loop, routed->session, routed->publish);
	routed->forward = forward_new(routed->session);
	routed->membership = membership_new(loop, routed->cq, conf,
		routed->proxy_id, &membership_ops, routed);
	routed->validate = validate_new(routed);
	routed->mover = mover_new(routed);
	routed->sync_wait = timer_new(loop, on_sync_wait_over, routed);
	routed->strategy_wait = timer_new(loop, on_strategy_wait_over, routed);
	routed->drain = timer_new(loop, on_drain_over, routed);
}

int routed_start(struct routed *routed, const struct conf *conf,
	struct loop *loop, char **error_out)
{
	int ret;

	memset(routed, 0, sizeof(*routed));
	routed->conf = conf;
	routed->loop = loop;
	routed->started_ms = (int64_t)time(NULL) * 1000;
	metrics_init(&routed->metrics, routed_series, ROUTED_METRIC_COUNT, 1, 0,
		NULL);
	ret = conf_host_uuid(conf, routed->proxy_id);
	if (ret < 0) {
		*error_out = xasprintf(
			"%s/host_uuid: %s", conf->data_dir, strerror(-ret));
		return -1;
	}
	/* The socket first: it says whether another routed is at work. */
	if (open_links(routed, error_out) < 0)
		return -1;
	routed->cq = rpc_cq_new(loop, 1);
	make_parts(routed);
	forward_set_links(routed->forward, routed->links);
	if (open_mirror(routed, error_out) < 0)
		return -1;
	announce_cache(routed, true);
	timer_set(routed->sync_wait, SYNC_WAIT_MS);
	take_trust(routed);
	return membership_start(routed->membership, error_out);
}

/* ---- what others ask ---- */

char *routed_missing(void *arg)
{
	struct routed *routed = arg;
	struct cache_meta meta;

	if (!routed->holder)
		return xasprintf("no identity: %s\n",
			membership_last_error(routed->membership));
	if (!mirror_position(routed->mirror, &meta))
		return xasprintf("nothing in the cache yet: %s\n",
			session_last_error(routed->session));
	return NULL;
}
