/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three hash tables over one list of tunnels. New entries go to the head of
 * their chain, so the first one found of an agent is its newest.
 *
 * What a newcomer gets wrong: one agent may be here twice, when it came back
 * before its old connection was seen to be dead; peerd then has one closed.
 */
#include <stdlib.h>
#include <string.h>

#include "proxy/registry.h"
#include "shared/alloc.h"

#define BUCKETS 4096

TAILQ_HEAD(entry_list, registry_entry);
LIST_HEAD(entry_chain, registry_entry);

struct registry {
	struct entry_list all;
	size_t count;
	uint64_t next_id;
	struct entry_chain by_tunnel[BUCKETS];
	struct entry_chain by_id[BUCKETS];
	struct entry_chain by_name[BUCKETS];
};

/* FNV-1a: both keys come from certificates that our own CA signed. */
static unsigned bucket_of(const char *key)
{
	uint32_t hash = 2166136261u;

	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * 16777619u;
	return hash % BUCKETS;
}

struct registry *registry_new(void)
{
	struct registry *registry = xcalloc(1, sizeof(*registry));

	TAILQ_INIT(&registry->all);
	return registry;
}

void registry_free(struct registry *registry)
{
	struct registry_entry *entry;

	if (!registry)
		return;
	while ((entry = TAILQ_FIRST(&registry->all)))
		registry_remove(registry, entry);
	free(registry);
}

struct registry_entry *registry_add(struct registry *registry,
	struct registration *registration, struct tunnel *tunnel,
	uint64_t since_ms, const char *remote_addr)
{
	struct registry_entry *entry = xcalloc(1, sizeof(*entry));

	entry->tunnel_id = ++registry->next_id;
	entry->registration = registration;
	entry->tunnel = tunnel;
	entry->since_ms = since_ms;
	entry->remote_addr = xstrdup(remote_addr);
	TAILQ_INSERT_TAIL(&registry->all, entry, all);
	LIST_INSERT_HEAD(&registry->by_tunnel[entry->tunnel_id % BUCKETS],
		entry, by_tunnel);
	LIST_INSERT_HEAD(&registry->by_id[bucket_of(registration->agent_id)],
		entry, by_id);
	LIST_INSERT_HEAD(&registry->by_name[bucket_of(registration->name)],
		entry, by_name);
	registry->count++;
	return entry;
}

void registry_update(
	struct registry_entry *entry, struct registration *registration)
{
	registration_free(entry->registration);
	entry->registration = registration;
}

void registry_remove(struct registry *registry, struct registry_entry *entry)
{
	TAILQ_REMOVE(&registry->all, entry, all);
	LIST_REMOVE(entry, by_tunnel);
	LIST_REMOVE(entry, by_id);
	LIST_REMOVE(entry, by_name);
	registry->count--;
	registration_free(entry->registration);
	free(entry->remote_addr);
	free(entry);
}

size_t registry_count(const struct registry *registry)
{
	return registry->count;
}

static struct registry_entry *first_of(
	struct registry_entry *entry, const char *agent_id)
{
	while (entry && strcmp(entry->registration->agent_id, agent_id) != 0)
		entry = LIST_NEXT(entry, by_id);
	return entry;
}

struct registry_entry *registry_newest(
	struct registry *registry, const char *agent_id)
{
	return first_of(
		LIST_FIRST(&registry->by_id[bucket_of(agent_id)]), agent_id);
}

struct registry_entry *registry_older(struct registry_entry *entry)
{
	return first_of(LIST_NEXT(entry, by_id), entry->registration->agent_id);
}

struct registry_entry *registry_by_tunnel(
	struct registry *registry, uint64_t tunnel_id)
{
	struct registry_entry *entry;

	LIST_FOREACH (
		entry, &registry->by_tunnel[tunnel_id % BUCKETS], by_tunnel) {
		if (entry->tunnel_id == tunnel_id)
			return entry;
	}
	return NULL;
}

struct registry_entry *registry_next(
	struct registry *registry, struct registry_entry *entry)
{
	return entry ? TAILQ_NEXT(entry, all) : TAILQ_FIRST(&registry->all);
}

/* Appends the services of one agent. */
static size_t add_services(const struct registration *registration,
	struct target_match *out, size_t count, size_t max)
{
	for (size_t i = 0; i < registration->service_count && count < max;
		i++) {
		const struct registration_service *service =
			&registration->services[i];
		struct target_match *match = &out[count++];

		memcpy(match->agent_id, registration->agent_id,
			sizeof(match->agent_id));
		memcpy(match->agent, registration->name, sizeof(match->agent));
		memcpy(match->service, service->name, sizeof(match->service));
		memcpy(match->type, service->type, sizeof(match->type));
		match->port = service->port;
	}
	return count;
}

size_t registry_match(struct registry *registry, const struct target *target,
	struct target_match *out, size_t max)
{
	struct registry_entry *entry;
	size_t count = 0;

	if (target->agent_id[0]) {
		entry = registry_newest(registry, target->agent_id);
		return entry ? add_services(entry->registration, out, 0, max)
			     : 0;
	}
	LIST_FOREACH (
		entry, &registry->by_name[bucket_of(target->agent)], by_name) {
		const struct registration *registration = entry->registration;

		if (strcmp(registration->name, target->agent) == 0 &&
			registry_newest(registry, registration->agent_id) ==
				entry)
			count = add_services(registration, out, count, max);
	}
	return count;
}
