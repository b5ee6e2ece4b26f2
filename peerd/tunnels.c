/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of this host's tunnels: a tree of agents (tsearch), each with its
 * tunnels from newest to oldest. Told by worker_link.c, asked by everyone who
 * routes.
 */
#include "peerd/tunnels.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

struct agent {
	char *id;
	struct tunnel_entry *newest;
};

struct tunnels {
	void *agents; /* tree of struct agent, by id */
	void *refs;   /* tree of struct tunnel_entry, by link and number */
	uint64_t order;
	size_t count; /* of refs: told at each change, and a walk is long */
};

static int compare(const void *a, const void *b)
{
	const struct agent *left = a, *right = b;

	return strcmp(left->id, right->id);
}

static int compare_numbers(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int compare_refs(const void *a, const void *b)
{
	const struct tunnel_entry *left = a, *right = b;

	if (left->link != right->link)
		return compare_numbers(left->link, right->link);
	return compare_numbers(left->tunnel_id, right->tunnel_id);
}

static struct agent *find_agent(const struct tunnels *tunnels, const char *id)
{
	struct agent key = {.id = (char *)id};
	struct agent **node = tfind(&key, &tunnels->agents, compare);

	return node ? *node : NULL;
}

static struct agent *add_agent(struct tunnels *tunnels, const char *id)
{
	struct agent *agent = xcalloc(1, sizeof(*agent));

	agent->id = xstrdup(id);
	if (!tsearch(agent, &tunnels->agents, compare))
		abort(); /* out of memory */
	return agent;
}

static Peerway__Record__TunnelRecord *copy_record(
	const Peerway__Record__TunnelRecord *record)
{
	size_t len = peerway__record__tunnel_record__get_packed_size(record);
	uint8_t *bytes = xcalloc(1, len + 1);
	Peerway__Record__TunnelRecord *copy;

	peerway__record__tunnel_record__pack(record, bytes);
	copy = peerway__record__tunnel_record__unpack(NULL, len, bytes);
	free(bytes);
	if (!copy)
		abort(); /* out of memory: it was packed a moment ago */
	return copy;
}

static void entry_free(struct tunnel_entry *entry)
{
	if (entry->record)
		peerway__record__tunnel_record__free_unpacked(
			entry->record, NULL);
	free(entry->remote_addr);
	free(entry);
}

static void agent_free(void *ptr)
{
	struct agent *agent = ptr;

	while (agent->newest) {
		struct tunnel_entry *entry = agent->newest;

		agent->newest = entry->next;
		entry_free(entry);
	}
	free(agent->id);
	free(agent);
}

static void leave_alone(void *ptr)
{
}

struct tunnels *tunnels_new(void)
{
	return xcalloc(1, sizeof(struct tunnels));
}

void tunnels_free(struct tunnels *tunnels)
{
	if (!tunnels)
		return;
	tdestroy(tunnels->refs, leave_alone);
	tdestroy(tunnels->agents, agent_free);
	free(tunnels);
}

static bool is_newer(const struct tunnel_entry *a, const struct tunnel_entry *b)
{
	if (a->record->since_ms != b->record->since_ms)
		return a->record->since_ms > b->record->since_ms;
	return a->order > b->order;
}

static void insert(struct agent *agent, struct tunnel_entry *new)
{
	struct tunnel_entry **at = &agent->newest;

	while (*at && is_newer(*at, new))
		at = &(*at)->next;
	new->next = *at;
	*at = new;
}

static struct tunnel_entry *find_ref(
	const struct tunnels *tunnels, uint64_t link, uint64_t tunnel_id)
{
	struct tunnel_entry key = {.link = link, .tunnel_id = tunnel_id};
	struct tunnel_entry **node = tfind(&key, &tunnels->refs, compare_refs);

	return node ? *node : NULL;
}

static void remove_entry(struct tunnels *tunnels, struct tunnel_entry *entry)
{
	struct agent *agent = find_agent(tunnels, entry->record->agent_id);
	struct tunnel_entry **at = &agent->newest;

	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
	tdelete(entry, &tunnels->refs, compare_refs);
	tunnels->count--;
	entry_free(entry);
	if (agent->newest)
		return;
	tdelete(agent, &tunnels->agents, compare);
	agent_free(agent);
}

static struct tunnel_entry *add_entry(struct tunnels *tunnels, uint64_t link,
	uint64_t tunnel_id, const char *remote_addr)
{
	struct tunnel_entry *entry = xcalloc(1, sizeof(*entry));

	entry->link = link;
	entry->tunnel_id = tunnel_id;
	entry->remote_addr = xstrdup(remote_addr);
	entry->order = ++tunnels->order;
	if (!tsearch(entry, &tunnels->refs, compare_refs))
		abort(); /* out of memory */
	tunnels->count++;
	return entry;
}

bool tunnels_put(struct tunnels *tunnels, uint64_t link, uint64_t tunnel_id,
	const Peerway__Record__TunnelRecord *record, const char *remote_addr,
	struct tunnel_ref *loser_out)
{
	struct tunnel_entry *entry = find_ref(tunnels, link, tunnel_id);
	struct tunnel_entry *loser;
	struct agent *agent;

	if (entry && strcmp(entry->record->agent_id, record->agent_id) == 0) {
		peerway__record__tunnel_record__free_unpacked(
			entry->record, NULL);
		entry->record = copy_record(record);
		return false;
	}
	if (entry)
		remove_entry(tunnels, entry);
	agent = find_agent(tunnels, record->agent_id);
	if (!agent)
		agent = add_agent(tunnels, record->agent_id);
	entry = add_entry(tunnels, link, tunnel_id, remote_addr);
	entry->record = copy_record(record);
	insert(agent, entry);
	loser = agent->newest == entry ? entry->next : entry;
	if (!loser)
		return false;
	loser_out->link = loser->link;
	loser_out->tunnel_id = loser->tunnel_id;
	return true;
}

void tunnels_remove(struct tunnels *tunnels, uint64_t link, uint64_t tunnel_id)
{
	struct tunnel_entry *entry = find_ref(tunnels, link, tunnel_id);

	if (entry)
		remove_entry(tunnels, entry);
}

/* The nodes of a tree in order, so that a walk may change it. Gives list. */
struct gathered {
	void **list;
	size_t count;
	size_t room;
};

static void gather(const void *node, VISIT which, void *arg)
{
	struct gathered *all = arg;

	if (which != postorder && which != leaf)
		return;
	if (all->count == all->room) {
		all->room = all->room ? 2 * all->room : 64;
		all->list = xrealloc(all->list, all->room * sizeof(*all->list));
	}
	all->list[all->count++] = *(void *const *)node;
}

static struct gathered all_of(const void *tree)
{
	struct gathered all = {0};

	twalk_r(tree, gather, &all);
	return all;
}

void tunnels_remove_link(struct tunnels *tunnels, uint64_t link)
{
	struct gathered all = all_of(tunnels->refs);

	for (size_t i = 0; i < all.count; i++) {
		struct tunnel_entry *entry = all.list[i];

		if (entry->link == link)
			remove_entry(tunnels, entry);
	}
	free(all.list);
}

const struct tunnel_entry *tunnels_find(
	const struct tunnels *tunnels, const char *agent_id)
{
	struct agent *agent = find_agent(tunnels, agent_id);

	return agent ? agent->newest : NULL;
}

size_t tunnels_count(const struct tunnels *tunnels, uint64_t link)
{
	struct gathered all;
	size_t count = 0;

	if (link == 0)
		return tunnels->count;
	all = all_of(tunnels->refs);
	for (size_t i = 0; i < all.count; i++)
		count += ((struct tunnel_entry *)all.list[i])->link == link;
	free(all.list);
	return count;
}

void tunnels_each(const struct tunnels *tunnels,
	void (*fn)(void *arg, const struct tunnel_entry *entry), void *arg)
{
	struct gathered all = all_of(tunnels->agents);

	for (size_t i = 0; i < all.count; i++)
		fn(arg, ((const struct agent *)all.list[i])->newest);
	free(all.list);
}
