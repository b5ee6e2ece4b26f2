/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares what workers report with what authd has been told. Used by
 * session.c (batches) and links.c (reports). Owns copies of all records, in
 * packed form: equality of records is equality of their bytes.
 *
 * What is easily got wrong: an agent may change while its batch is under way.
 * So a batch remembers what it said (flying); only publish_done() makes that
 * the published state, and a change meanwhile has marked the agent dirty anew.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "routed/publish.h"
#include "shared/alloc.h"

#define BUCKETS 4096

struct bytes {
	uint8_t *data; /* NULL: no record */
	size_t size;
};

struct tunnel {
	LIST_ENTRY(tunnel) in_bucket; /* by (link, id) */
	LIST_ENTRY(tunnel) in_agent;
	struct agent *agent;
	uint64_t link;
	uint64_t id;
	uint64_t since_ms;
	uint64_t order; /* of arrival; the later of two of one time is newer */
	int64_t asked;	/* to move; 0: never */
	struct bytes record;
	bool stale; /* not yet seen again in a full list */
};

struct agent {
	LIST_ENTRY(agent) in_bucket;
	TAILQ_ENTRY(agent) in_dirty;
	TAILQ_ENTRY(agent) in_flying;
	char id[37];
	LIST_HEAD(, tunnel) tunnels;
	struct bytes published;
	struct bytes said;    /* while flying */
	struct bytes refused; /* not to be said again */
	bool dirty;
	bool flying;
	bool uncertain; /* a batch was lost: it may have been stored or not */
};

struct publish {
	char proxy_id[37];
	size_t tunnels_max;
	size_t tunnel_count;
	size_t published_count;
	size_t dirty_count;
	size_t flying_count;
	size_t one_by_one; /* so many batches are of one agent */
	uint64_t order;
	size_t bucket; /* where publish_next_unasked() goes on */
	LIST_HEAD(, tunnel) tunnels[BUCKETS];
	LIST_HEAD(, agent) agents[BUCKETS];
	TAILQ_HEAD(, agent) dirty;
	TAILQ_HEAD(, agent) flying;
};

/* ---- bytes ---- */

static void bytes_clear(struct bytes *bytes)
{
	free(bytes->data);
	*bytes = (struct bytes){0};
}

static struct bytes bytes_copy(const struct bytes *from)
{
	struct bytes copy = {0};

	if (from->data) {
		copy.data = xcalloc(1, from->size + 1);
		copy.size = from->size;
		memcpy(copy.data, from->data, from->size);
	}
	return copy;
}

static bool bytes_equal(const struct bytes *a, const struct bytes *b)
{
	if (!a->data || !b->data)
		return !a->data && !b->data;
	return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static struct bytes bytes_of(
	const Peerway__Record__TunnelRecord *record, char *proxy_id)
{
	Peerway__Record__TunnelRecord ours = *record;
	struct bytes bytes;

	ours.proxy_id = proxy_id;
	bytes.size = protobuf_c_message_get_packed_size(&ours.base);
	bytes.data = xcalloc(1, bytes.size + 1);
	protobuf_c_message_pack(&ours.base, bytes.data);
	return bytes;
}

/* ---- tables ---- */

static size_t agent_bucket(const char *id)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *id; id++)
		hash = (hash ^ (unsigned char)*id) * 16777619u;
	return hash % BUCKETS;
}

static size_t tunnel_bucket(uint64_t link, uint64_t id)
{
	return (size_t)((link * 31 + id) % BUCKETS);
}

static struct agent *agent_find(struct publish *publish, const char *id)
{
	struct agent *agent;

	LIST_FOREACH (agent, &publish->agents[agent_bucket(id)], in_bucket) {
		if (strcmp(agent->id, id) == 0)
			return agent;
	}
	return NULL;
}

static struct agent *agent_get(struct publish *publish, const char *id)
{
	struct agent *agent = agent_find(publish, id);

	if (agent)
		return agent;
	agent = xcalloc(1, sizeof(*agent));
	snprintf(agent->id, sizeof(agent->id), "%s", id);
	LIST_INIT(&agent->tunnels);
	LIST_INSERT_HEAD(&publish->agents[agent_bucket(id)], agent, in_bucket);
	return agent;
}

static struct tunnel *tunnel_find(
	struct publish *publish, uint64_t link, uint64_t id)
{
	struct tunnel *tunnel;

	LIST_FOREACH (
		tunnel, &publish->tunnels[tunnel_bucket(link, id)], in_bucket) {
		if (tunnel->link == link && tunnel->id == id)
			return tunnel;
	}
	return NULL;
}

/* ---- agents ---- */

static const struct tunnel *newest_tunnel(const struct agent *agent)
{
	const struct tunnel *newest = NULL;
	const struct tunnel *tunnel;

	LIST_FOREACH (tunnel, &agent->tunnels, in_agent) {
		if (!newest || tunnel->since_ms > newest->since_ms ||
			(tunnel->since_ms == newest->since_ms &&
				tunnel->order > newest->order))
			newest = tunnel;
	}
	return newest;
}

static struct bytes wanted_of(const struct agent *agent)
{
	const struct tunnel *newest = newest_tunnel(agent);

	return newest ? newest->record : (struct bytes){0};
}

static void set_published(
	struct publish *publish, struct agent *agent, struct bytes bytes)
{
	publish->published_count -= agent->published.data != NULL;
	bytes_clear(&agent->published);
	agent->published = bytes;
	publish->published_count += agent->published.data != NULL;
}

static void agent_mark(struct publish *publish, struct agent *agent)
{
	if (agent->dirty)
		return;
	agent->dirty = true;
	publish->dirty_count++;
	TAILQ_INSERT_TAIL(&publish->dirty, agent, in_dirty);
}

static void agent_unmark(struct publish *publish, struct agent *agent)
{
	if (!agent->dirty)
		return;
	agent->dirty = false;
	publish->dirty_count--;
	TAILQ_REMOVE(&publish->dirty, agent, in_dirty);
}

/* Forgets an agent about whom nothing is left to say. */
static void agent_settle(struct publish *publish, struct agent *agent)
{
	if (agent->dirty || agent->flying || agent->published.data ||
		!LIST_EMPTY(&agent->tunnels))
		return;
	LIST_REMOVE(agent, in_bucket);
	bytes_clear(&agent->refused);
	free(agent);
}

/* ---- reports ---- */

static void tunnel_remove(struct publish *publish, struct tunnel *tunnel)
{
	struct agent *agent = tunnel->agent;

	LIST_REMOVE(tunnel, in_bucket);
	LIST_REMOVE(tunnel, in_agent);
	bytes_clear(&tunnel->record);
	free(tunnel);
	publish->tunnel_count--;
	agent_mark(publish, agent);
}

static struct tunnel *tunnel_add(struct publish *publish, struct agent *agent,
	uint64_t link, uint64_t id)
{
	struct tunnel *tunnel = xcalloc(1, sizeof(*tunnel));

	tunnel->agent = agent;
	tunnel->link = link;
	tunnel->id = id;
	tunnel->order = ++publish->order;
	LIST_INSERT_HEAD(
		&publish->tunnels[tunnel_bucket(link, id)], tunnel, in_bucket);
	LIST_INSERT_HEAD(&agent->tunnels, tunnel, in_agent);
	publish->tunnel_count++;
	return tunnel;
}

int publish_up(struct publish *publish, uint64_t link, uint64_t tunnel_id,
	const Peerway__Record__TunnelRecord *record)
{
	struct tunnel *tunnel = tunnel_find(publish, link, tunnel_id);

	/* A worker's tunnel never changes agents; if it says so, it is another
	 * tunnel. */
	if (tunnel && strcmp(tunnel->agent->id, record->agent_id) != 0) {
		tunnel_remove(publish, tunnel);
		tunnel = NULL;
	}
	if (!tunnel) {
		if (publish->tunnel_count >= publish->tunnels_max)
			return -ENOSPC;
		tunnel = tunnel_add(publish,
			agent_get(publish, record->agent_id), link, tunnel_id);
	}
	bytes_clear(&tunnel->record);
	tunnel->record = bytes_of(record, publish->proxy_id);
	tunnel->since_ms = record->since_ms;
	tunnel->stale = false;
	agent_mark(publish, tunnel->agent);
	return 0;
}

void publish_down(struct publish *publish, uint64_t link, uint64_t tunnel_id)
{
	struct tunnel *tunnel = tunnel_find(publish, link, tunnel_id);

	if (tunnel)
		tunnel_remove(publish, tunnel);
}

static void remove_of_link(
	struct publish *publish, uint64_t link, bool only_stale)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct tunnel *tunnel = LIST_FIRST(&publish->tunnels[i]);

		while (tunnel) {
			struct tunnel *next = LIST_NEXT(tunnel, in_bucket);

			if (tunnel->link == link &&
				(tunnel->stale || !only_stale))
				tunnel_remove(publish, tunnel);
			tunnel = next;
		}
	}
}

void publish_sync_begin(struct publish *publish, uint64_t link)
{
	struct tunnel *tunnel;

	for (size_t i = 0; i < BUCKETS; i++) {
		LIST_FOREACH (tunnel, &publish->tunnels[i], in_bucket) {
			if (tunnel->link == link)
				tunnel->stale = true;
		}
	}
}

void publish_sync_end(struct publish *publish, uint64_t link)
{
	remove_of_link(publish, link, true);
}

void publish_link_gone(struct publish *publish, uint64_t link)
{
	remove_of_link(publish, link, false);
}

/* ---- moves ---- */

static struct tunnel *unasked_in(
	struct publish *publish, size_t bucket, int64_t since)
{
	struct tunnel *tunnel;

	LIST_FOREACH (tunnel, &publish->tunnels[bucket], in_bucket) {
		if (!tunnel->asked || tunnel->asked < since)
			return tunnel;
	}
	return NULL;
}

bool publish_next_unasked(
	struct publish *publish, int64_t since, struct publish_tunnel *out)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		size_t bucket = publish->bucket++ % BUCKETS;
		struct tunnel *tunnel = unasked_in(publish, bucket, since);

		if (!tunnel)
			continue;
		memcpy(out->agent_id, tunnel->agent->id, sizeof(out->agent_id));
		out->link = tunnel->link;
		out->tunnel_id = tunnel->id;
		return true;
	}
	return false;
}

void publish_set_asked(
	struct publish *publish, uint64_t link, uint64_t tunnel_id, int64_t now)
{
	struct tunnel *tunnel = tunnel_find(publish, link, tunnel_id);

	if (tunnel)
		tunnel->asked = now;
}

size_t publish_asked(const struct publish *publish, int64_t since)
{
	const struct tunnel *tunnel;
	size_t count = 0;

	for (size_t i = 0; i < BUCKETS; i++)
		LIST_FOREACH (tunnel, &publish->tunnels[i], in_bucket)
			count += tunnel->asked && tunnel->asked >= since;
	return count;
}

/* ---- batches ---- */

/* What authd is to be told of the agent; the size that adds. */
static size_t batch_add(struct publish_batch *batch, struct agent *agent)
{
	agent->said = wanted_of(agent);
	agent->said = bytes_copy(&agent->said);
	if (!agent->said.data) {
		batch->removed[batch->removed_count++] = xstrdup(agent->id);
		return sizeof(agent->id);
	}
	batch->put[batch->put_count++] = peerway__record__tunnel_record__unpack(
		NULL, agent->said.size, agent->said.data);
	return agent->said.size;
}

/* Nothing is to be said of an agent whose wanted record authd has, or will not
 * have. */
static bool is_settled(const struct agent *agent, const struct bytes *wanted)
{
	if (agent->refused.data && bytes_equal(wanted, &agent->refused))
		return true;
	return !agent->uncertain && bytes_equal(wanted, &agent->published);
}

bool publish_next(struct publish *publish, struct publish_batch *batch_out)
{
	size_t max = publish->one_by_one > 0 ? 1 : PUBLISH_BATCH_MAX;
	struct agent *agent;
	size_t bytes = 0;

	assert(TAILQ_EMPTY(&publish->flying));
	memset(batch_out, 0, sizeof(*batch_out));
	while (publish->flying_count < max && bytes < PUBLISH_BATCH_BYTES &&
		(agent = TAILQ_FIRST(&publish->dirty))) {
		struct bytes wanted = wanted_of(agent);

		agent_unmark(publish, agent);
		if (is_settled(agent, &wanted)) {
			agent_settle(publish, agent);
			continue;
		}
		bytes += batch_add(batch_out, agent);
		agent->flying = true;
		publish->flying_count++;
		TAILQ_INSERT_TAIL(&publish->flying, agent, in_flying);
	}
	if (publish->one_by_one > 0)
		publish->one_by_one--;
	return publish->flying_count > 0;
}

static void batch_clear(struct publish_batch *batch)
{
	for (size_t i = 0; i < batch->put_count; i++)
		peerway__record__tunnel_record__free_unpacked(
			batch->put[i], NULL);
	for (size_t i = 0; i < batch->removed_count; i++)
		free(batch->removed[i]);
	batch->put_count = 0;
	batch->removed_count = 0;
}

bool publish_refused(struct publish *publish, struct publish_batch *batch)
{
	struct agent *agent = TAILQ_FIRST(&publish->flying);
	bool alone = publish->flying_count == 1;

	if (!alone) {
		publish->one_by_one = publish->flying_count;
	} else if (agent->said.data) {
		bytes_clear(&agent->refused);
		agent->refused = bytes_copy(&agent->said);
	}
	publish_done(publish, batch, false);
	return alone;
}

void publish_done(
	struct publish *publish, struct publish_batch *batch, bool stored)
{
	struct agent *agent;

	while ((agent = TAILQ_FIRST(&publish->flying))) {
		TAILQ_REMOVE(&publish->flying, agent, in_flying);
		agent->flying = false;
		publish->flying_count--;
		agent->uncertain = !stored;
		if (stored) {
			set_published(publish, agent, agent->said);
			agent->said = (struct bytes){0};
		} else {
			bytes_clear(&agent->said);
			agent_mark(publish, agent);
		}
		agent_settle(publish, agent);
	}
	batch_clear(batch);
}

void publish_reset(struct publish *publish)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct agent *agent = LIST_FIRST(&publish->agents[i]);

		while (agent) {
			struct agent *next = LIST_NEXT(agent, in_bucket);

			set_published(publish, agent, (struct bytes){0});
			agent->uncertain = false;
			bytes_clear(&agent->refused);
			if (!LIST_EMPTY(&agent->tunnels))
				agent_mark(publish, agent);
			else
				agent_unmark(publish, agent);
			agent_settle(publish, agent);
			agent = next;
		}
	}
}

size_t publish_published(const struct publish *publish)
{
	return publish->published_count;
}

size_t publish_pending(const struct publish *publish)
{
	return publish->dirty_count + publish->flying_count;
}

/* Nonzero: fn has had enough. */
static int show(const struct agent *agent,
	int (*fn)(void *arg, const Peerway__Record__TunnelRecord *record),
	void *arg)
{
	struct bytes wanted = wanted_of(agent);
	Peerway__Record__TunnelRecord *record;
	int ret;

	if (!wanted.data)
		return 0;
	record = peerway__record__tunnel_record__unpack(
		NULL, wanted.size, wanted.data);
	ret = fn(arg, record);
	peerway__record__tunnel_record__free_unpacked(record, NULL);
	return ret;
}

void publish_each(const struct publish *publish,
	int (*fn)(void *arg, const Peerway__Record__TunnelRecord *record),
	void *arg)
{
	const struct agent *agent;

	for (size_t i = 0; i < BUCKETS; i++) {
		LIST_FOREACH (agent, &publish->agents[i], in_bucket) {
			if (show(agent, fn, arg))
				return;
		}
	}
}

/* ---- the whole ---- */

struct publish *publish_new(const char *proxy_id, size_t tunnels_max)
{
	struct publish *publish = xcalloc(1, sizeof(*publish));

	snprintf(publish->proxy_id, sizeof(publish->proxy_id), "%s", proxy_id);
	publish->tunnels_max = tunnels_max;
	TAILQ_INIT(&publish->dirty);
	TAILQ_INIT(&publish->flying);
	return publish;
}

void publish_set_max(struct publish *publish, size_t tunnels_max)
{
	publish->tunnels_max = tunnels_max;
}

void publish_free(struct publish *publish)
{
	if (!publish)
		return;
	for (size_t i = 0; i < BUCKETS; i++) {
		while (!LIST_EMPTY(&publish->tunnels[i]))
			tunnel_remove(
				publish, LIST_FIRST(&publish->tunnels[i]));
	}
	publish_reset(publish);
	free(publish);
}
