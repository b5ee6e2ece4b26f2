/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The registered tunnels that end in this worker: found by agent, newest
 * first, and by the names that targets are written with. Pure: it keeps what
 * agent_tunnel.c tells it and never looks into the tunnel itself.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "shared/registration.h"
#include "shared/target.h"

struct tunnel;

struct registry_entry {
	TAILQ_ENTRY(registry_entry) all; /* oldest first */
	LIST_ENTRY(registry_entry) by_tunnel;
	LIST_ENTRY(registry_entry) by_id;
	LIST_ENTRY(registry_entry) by_name;
	uint64_t tunnel_id; /* unique in the worker's life, never 0 */
	struct registration *registration;
	struct tunnel *tunnel; /* borrowed */
	uint64_t since_ms;     /* Unix time */
	char *remote_addr;
};

struct registry;

struct registry *registry_new(void);
/* Its entries go with it; NULL is fine. */
void registry_free(struct registry *registry);

/* Takes registration, borrows tunnel until registry_remove(). */
struct registry_entry *registry_add(struct registry *registry,
	struct registration *registration, struct tunnel *tunnel,
	uint64_t since_ms, const char *remote_addr);
/* Takes registration, which names the same agent. */
void registry_update(
	struct registry_entry *entry, struct registration *registration);
void registry_remove(struct registry *registry, struct registry_entry *entry);

size_t registry_count(const struct registry *registry);
/* The newest tunnel of the agent, or NULL. */
struct registry_entry *registry_newest(
	struct registry *registry, const char *agent_id);
/* The one of the same agent that is next in age, or NULL. */
struct registry_entry *registry_older(struct registry_entry *entry);
struct registry_entry *registry_by_tunnel(
	struct registry *registry, uint64_t tunnel_id);
/* All, oldest first: NULL begins, NULL ends. */
struct registry_entry *registry_next(
	struct registry *registry, struct registry_entry *entry);

/* Services of the agents that bear the target's name or uuid, one entry each
 * whatever their tunnels are; how many were written, at most max. */
size_t registry_match(struct registry *registry, const struct target *target,
	struct target_match *out, size_t max);
