/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link to routed: see routed_link.h. Owns the link, the questions under
 * way, and peerd's handle of the cache, which it opens as routed says.
 *
 * A newcomer's trap: peerd starts before there is a cache, and may start while
 * routed, or authd, is away. After ON_OUR_OWN_MS it opens the newest cache in
 * data_dir by itself and takes this host's strategy from there; whatever routed
 * says later replaces the cache.
 */
#include "peerd/routed_link.h"

#include <stdlib.h>
#include <string.h>

#include "peerd/idmap.h"
#include "shared/alloc.h"
#include "shared/ipc_link.h"
#include "shared/log.h"
#include "shared/tls.h"

#define ON_OUR_OWN_MS 2000
/* Questions under way at once; further ones count as routed being away. */
#define LOOKUPS_MAX 1024

struct lookup {
	struct routed_link *routed;
	uint64_t id;
	struct timer *deadline;
	void (*on_reply)(void *arg, const Peerway__Ipc__LookupReply *reply);
	void *arg;
};

struct routed_link {
	struct peerd *peerd;
	struct ipc_link *link;
	const struct routed_link_ops *ops;
	void *arg;
	struct idmap *lookups;
	struct timer *on_our_own;
	char *identity_error; /* NULL: the last one told is in use */
};

/* ---- the cache ---- */

static bool open_cache(struct routed_link *routed, const char *path)
{
	struct peerd *peerd = routed->peerd;
	char *error = NULL;
	struct cache *cache = cache_open(path, &error);

	if (!cache) {
		log_error("cache cannot be opened: %s path=%s", error, path);
		free(error);
		return false;
	}
	cache_close(peerd->cache);
	free(peerd->cache_path);
	peerd->cache = cache;
	peerd->cache_path = xstrdup(path);
	log_info("cache opened: path=%s", path);
	return true;
}

static void handle_cache(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__Cache *news = (void *)msg->payload;
	struct routed_link *routed = arg;
	struct peerd *peerd = routed->peerd;

	if (news->strategy_decided) {
		timer_clear(routed->on_our_own);
		peerd->cache_decides = true;
	}
	if (!peerd->cache || strcmp(peerd->cache_path, news->path) != 0) {
		if (open_cache(routed, news->path))
			routed->ops->on_cache(routed->arg);
	} else if (news->proxies_changed) {
		routed->ops->on_cache(routed->arg);
	}
}

static void on_our_own(void *arg)
{
	struct routed_link *routed = arg;
	char *directory;
	char *path;

	routed->peerd->cache_decides = true;
	if (routed->peerd->cache) {
		log_warn("authd is away: going on from the cache on disk");
		routed->ops->on_cache(routed->arg);
		return;
	}
	directory = xasprintf("%s/cache", routed->peerd->conf->data_dir);
	path = cache_newest(directory);
	free(directory);
	if (!path)
		return;
	log_warn("routed is away: going on from the cache on disk");
	if (open_cache(routed, path))
		routed->ops->on_cache(routed->arg);
	free(path);
}

/* ---- identity ---- */

static void load_identity(struct routed_link *routed, const char *directory)
{
	char *error = NULL;
	struct tls_identity *identity = tls_identity_load(directory, &error);

	free(routed->identity_error);
	routed->identity_error = error;
	if (identity)
		routed->ops->on_identity(routed->arg, identity);
	else
		log_error("identity stays as it was: %s directory=%s", error,
			directory);
}

const char *routed_link_identity_error(const struct routed_link *routed)
{
	return routed->identity_error ? routed->identity_error : "";
}

static void handle_identity(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__Identity *news = (void *)msg->payload;

	load_identity(arg, news->directory);
}

/* ---- questions ---- */

static void lookup_end(struct lookup *lookup)
{
	idmap_remove(lookup->routed->lookups, lookup->id);
	timer_free(lookup->deadline);
	loop_free_later(lookup->routed->peerd->loop, free, lookup);
}

static void conclude(
	struct lookup *lookup, const Peerway__Ipc__LookupReply *reply)
{
	lookup_end(lookup);
	lookup->on_reply(lookup->arg, reply);
}

static void fail(struct lookup *lookup, const char *why)
{
	Peerway__Ipc__LookupReply reply = PEERWAY__IPC__LOOKUP_REPLY__INIT;

	reply.error = (char *)why;
	conclude(lookup, &reply);
}

static void on_deadline(void *arg)
{
	fail(arg, "no answer in time");
}

static void handle_lookup_reply(
	struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	const Peerway__Ipc__LookupReply *reply = (void *)msg->payload;
	struct routed_link *routed = arg;
	struct lookup *lookup = idmap_find(routed->lookups, reply->id);

	if (lookup)
		conclude(lookup, reply);
}

uint64_t routed_link_lookup(struct routed_link *routed, const char *agent_id,
	uint32_t deadline_ms,
	void (*on_reply)(void *arg, const Peerway__Ipc__LookupReply *reply),
	void *arg)
{
	Peerway__Ipc__Lookup question = PEERWAY__IPC__LOOKUP__INIT;
	struct lookup *lookup;

	if (!ipc_link_is_up(routed->link) ||
		idmap_count(routed->lookups) >= LOOKUPS_MAX)
		return 0;
	lookup = xcalloc(1, sizeof(*lookup));
	lookup->routed = routed;
	lookup->id = idmap_add(routed->lookups, lookup);
	lookup->on_reply = on_reply;
	lookup->arg = arg;
	lookup->deadline = timer_new(routed->peerd->loop, on_deadline, lookup);
	timer_set(lookup->deadline, deadline_ms);
	question.id = lookup->id;
	question.agent_id = (char *)agent_id;
	if (ipc_link_send(routed->link, IPC_LOOKUP, &question.base, -1) < 0) {
		lookup_end(lookup);
		return 0;
	}
	return lookup->id;
}

void routed_link_cancel(struct routed_link *routed, uint64_t id)
{
	struct lookup *lookup = idmap_find(routed->lookups, id);

	if (lookup)
		lookup_end(lookup);
}

/* ---- the link ---- */

/* What routed may say to us. Anything else drops the link. */
static const struct ipc_handlers handlers[] = {
	{IPC_CACHE, handle_cache},
	{IPC_IDENTITY, handle_identity},
	{IPC_LOOKUP_REPLY, handle_lookup_reply},
	{0, NULL},
};

static void on_up(struct ipc_link *link, void *arg)
{
	log_info("routed linked: pid=%u", ipc_link_hello(link)->pid);
}

static void fail_gone(void *arg, void *object)
{
	fail(object, "routed has gone");
}

static void on_down(struct ipc_link *link, void *arg, const char *reason)
{
	struct routed_link *routed = arg;

	log_warn("routed gone: %s; going on from the cache", reason);
	idmap_each(routed->lookups, fail_gone, NULL);
}

static const struct ipc_link_ops link_ops = {
	.handlers = handlers,
	.on_up = on_up,
	.on_down = on_down,
};

/* Own PKI files, or what routed left the last time. */
static void load_first_identity(struct routed_link *routed)
{
	const struct conf *conf = routed->peerd->conf;
	struct tls_identity *identity;
	char *error = NULL;
	char *current = xasprintf("%s/identity/current", conf->data_dir);

	if (conf->identity.cert[0])
		identity = tls_identity_load_files(conf->identity.cert,
			conf->identity.key, conf->identity.ca,
			conf->identity.user_ca[0] ? conf->identity.user_ca
						  : NULL,
			&error);
	else
		identity = tls_identity_load(current, &error);
	if (identity)
		routed->ops->on_identity(routed->arg, identity);
	else
		log_info("no certificate yet: %s", error);
	free(error);
	free(current);
}

struct routed_link *routed_link_new(
	struct peerd *peerd, const struct routed_link_ops *ops, void *arg)
{
	const struct ipc_self self = {.peer = PEERWAY__IPC__PEER__PEER_PEERD};
	struct routed_link *routed = xcalloc(1, sizeof(*routed));
	char *path = xasprintf("%s/routed.sock", peerd->conf->run_dir);

	routed->peerd = peerd;
	routed->ops = ops;
	routed->arg = arg;
	routed->lookups = idmap_new();
	routed->on_our_own = timer_new(peerd->loop, on_our_own, routed);
	timer_set(routed->on_our_own, ON_OUR_OWN_MS);
	load_first_identity(routed);
	routed->link =
		ipc_link_connect(peerd->loop, path, &self, &link_ops, routed);
	free(path);
	return routed;
}

void routed_link_free(struct routed_link *routed)
{
	if (!routed)
		return;
	ipc_link_free(routed->link);
	timer_free(routed->on_our_own);
	idmap_free(routed->lookups);
	cache_close(routed->peerd->cache);
	free(routed->peerd->cache_path);
	routed->peerd->cache = NULL;
	routed->peerd->cache_path = NULL;
	free(routed->identity_error);
	free(routed);
}

bool routed_link_is_up(const struct routed_link *routed)
{
	return ipc_link_is_up(routed->link);
}
