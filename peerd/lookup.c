/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to authd, shared and remembered: see lookup.h. Asks by way of
 * routed_link.c; owns a topic for each agent and a waiter for each dial.
 *
 * A newcomer's trap: an answer is given in a later turn even when it is at
 * hand, so that a dial is never answered from within its own question.
 */
#include "peerd/lookup.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "peerd/idmap.h"
#include "peerd/routed_link.h"
#include "shared/alloc.h"

struct topic {
	TAILQ_ENTRY(topic) entry; /* in fresh, oldest first */
	struct lookups *lookups;
	char agent_id[64];
	uint64_t question; /* routed_link.h's; 0: answered */
	bool fresh;
	int64_t until;
	TAILQ_HEAD(, waiter) waiters; /* while asked */
	char *error;
	size_t count;
	char (*proxy_ids)[37];
};

struct waiter {
	TAILQ_ENTRY(waiter) entry; /* in topic->waiters, if it is set */
	struct topic *topic;
	struct lookups *lookups;
	uint64_t id;
	struct loop_task task; /* of an answer that is at hand */
	struct topic *at_hand; /* a copy of what was remembered */
	void (*on_answer)(void *arg, const struct lookup_answer *answer);
	void *arg;
};

struct lookups {
	struct peerd *peerd;
	void *topics; /* tree by agent_id */
	size_t topic_count;
	TAILQ_HEAD(, topic) fresh;
	struct timer *expiry;
	struct idmap *waiters;
};

static int compare(const void *a, const void *b)
{
	const struct topic *left = a, *right = b;

	return strcmp(left->agent_id, right->agent_id);
}

/* ---- topics ---- */

static void topic_free(struct topic *topic)
{
	if (!topic)
		return;
	free(topic->error);
	free(topic->proxy_ids);
	free(topic);
}

static void forget(struct topic *topic)
{
	struct lookups *lookups = topic->lookups;

	if (topic->fresh)
		TAILQ_REMOVE(&lookups->fresh, topic, entry);
	tdelete(topic, &lookups->topics, compare);
	lookups->topic_count--;
	topic_free(topic);
}

static void set_expiry(struct lookups *lookups)
{
	struct topic *oldest = TAILQ_FIRST(&lookups->fresh);
	int64_t left;

	if (!oldest) {
		timer_clear(lookups->expiry);
		return;
	}
	left = oldest->until - loop_now(lookups->peerd->loop);
	timer_set(lookups->expiry, left > 0 ? left : 0);
}

static void on_expiry(void *arg)
{
	struct lookups *lookups = arg;
	int64_t now = loop_now(lookups->peerd->loop);
	struct topic *topic;

	while ((topic = TAILQ_FIRST(&lookups->fresh)) && topic->until <= now)
		forget(topic);
	set_expiry(lookups);
}

static struct topic *topic_new(struct lookups *lookups, const char *agent_id)
{
	struct topic *topic = xcalloc(1, sizeof(*topic));

	topic->lookups = lookups;
	TAILQ_INIT(&topic->waiters);
	snprintf(topic->agent_id, sizeof(topic->agent_id), "%s", agent_id);
	return topic;
}

/* Keeps what was said, without the waiters. */
static struct topic *copy_answer(const struct topic *topic)
{
	struct topic *copy = topic_new(topic->lookups, topic->agent_id);

	copy->error = topic->error ? xstrdup(topic->error) : NULL;
	copy->count = topic->count;
	copy->proxy_ids = xcalloc(topic->count + 1, sizeof(*copy->proxy_ids));
	if (topic->count)
		memcpy(copy->proxy_ids, topic->proxy_ids,
			topic->count * sizeof(*copy->proxy_ids));
	return copy;
}

/* ---- waiters ---- */

static void waiter_free(void *arg)
{
	struct waiter *waiter = arg;

	topic_free(waiter->at_hand);
	free(waiter);
}

static void waiter_end(struct waiter *waiter)
{
	struct loop *loop = waiter->lookups->peerd->loop;

	idmap_remove(waiter->lookups->waiters, waiter->id);
	if (waiter->topic)
		TAILQ_REMOVE(&waiter->topic->waiters, waiter, entry);
	loop_cancel(loop, &waiter->task);
	loop_free_later(loop, waiter_free, waiter);
}

static void tell(struct waiter *waiter, const struct topic *topic)
{
	struct lookup_answer answer = {
		.error = topic->error,
		.count = topic->count,
		.proxy_ids = (const char(*)[37])topic->proxy_ids,
	};

	waiter_end(waiter);
	waiter->on_answer(waiter->arg, &answer);
}

/* Takes topic. Whoever is answered may do anything, also to the topics. */
static void answer_later(struct waiter *waiter, struct topic *topic)
{
	if (waiter->topic)
		TAILQ_REMOVE(&waiter->topic->waiters, waiter, entry);
	waiter->topic = NULL;
	waiter->at_hand = topic;
	loop_defer(waiter->lookups->peerd->loop, &waiter->task);
}

static void run_at_hand(struct loop_task *task)
{
	struct waiter *waiter =
		(struct waiter *)((char *)task - offsetof(struct waiter, task));

	tell(waiter, waiter->at_hand);
}

/* ---- the answer ---- */

static void on_reply(void *arg, const Peerway__Ipc__LookupReply *reply)
{
	struct topic *topic = arg;
	struct lookups *lookups = topic->lookups;
	struct waiter *waiter;
	size_t count = reply->n_tunnels;

	topic->question = 0;
	if (reply->error[0])
		topic->error = xstrdup(reply->error);
	if (count > CANDIDATES_MAX)
		count = CANDIDATES_MAX;
	topic->proxy_ids = xcalloc(count + 1, sizeof(*topic->proxy_ids));
	for (size_t i = 0; i < count; i++)
		snprintf(topic->proxy_ids[i], sizeof(topic->proxy_ids[i]), "%s",
			reply->tunnels[i]->proxy_id);
	topic->count = count;
	topic->fresh = true;
	topic->until = loop_now(lookups->peerd->loop) + LOOKUP_FRESH_MS;
	TAILQ_INSERT_TAIL(&lookups->fresh, topic, entry);
	set_expiry(lookups);
	while ((waiter = TAILQ_FIRST(&topic->waiters)))
		answer_later(waiter, copy_answer(topic));
}

/* ---- asking ---- */

static struct topic *find(struct lookups *lookups, const char *agent_id)
{
	struct topic key = {0};
	struct topic **node;

	snprintf(key.agent_id, sizeof(key.agent_id), "%s", agent_id);
	node = tfind(&key, &lookups->topics, compare);
	return node ? *node : NULL;
}

/* A new topic, asked about; NULL, and why not. */
static struct topic *begin(
	struct lookups *lookups, const char *agent_id, const char **why_out)
{
	struct topic *topic;

	if (lookups->topic_count >= LOOKUP_AGENTS_MAX &&
		!TAILQ_EMPTY(&lookups->fresh))
		forget(TAILQ_FIRST(&lookups->fresh));
	if (lookups->topic_count >= LOOKUP_AGENTS_MAX) {
		*why_out = "too many questions to authd under way";
		return NULL;
	}
	topic = topic_new(lookups, agent_id);
	topic->question = routed_link_lookup(lookups->peerd->routed, agent_id,
		LOOKUP_LIMIT_MS, on_reply, topic);
	if (!topic->question) {
		*why_out = "routed is away";
		topic_free(topic);
		return NULL;
	}
	tsearch(topic, &lookups->topics, compare);
	lookups->topic_count++;
	return topic;
}

uint64_t lookups_ask(struct lookups *lookups, const char *agent_id,
	void (*on_answer)(void *arg, const struct lookup_answer *answer),
	void *arg)
{
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));
	struct topic *topic = find(lookups, agent_id);
	const char *why = NULL;

	waiter->lookups = lookups;
	waiter->on_answer = on_answer;
	waiter->arg = arg;
	waiter->id = idmap_add(lookups->waiters, waiter);
	waiter->task.run = run_at_hand;
	if (!topic)
		topic = begin(lookups, agent_id, &why);
	if (topic && !topic->fresh) {
		waiter->topic = topic;
		TAILQ_INSERT_TAIL(&topic->waiters, waiter, entry);
		return waiter->id;
	}
	topic = topic ? copy_answer(topic) : topic_new(lookups, agent_id);
	if (why)
		topic->error = xstrdup(why);
	answer_later(waiter, topic);
	return waiter->id;
}

void lookups_cancel(struct lookups *lookups, uint64_t id)
{
	struct waiter *waiter = idmap_find(lookups->waiters, id);

	if (waiter)
		waiter_end(waiter);
}

struct lookups *lookups_new(struct peerd *peerd)
{
	struct lookups *lookups = xcalloc(1, sizeof(*lookups));

	lookups->peerd = peerd;
	TAILQ_INIT(&lookups->fresh);
	lookups->waiters = idmap_new();
	lookups->expiry = timer_new(peerd->loop, on_expiry, lookups);
	return lookups;
}

static void free_topic(void *node)
{
	struct topic *topic = node;

	if (topic->question)
		routed_link_cancel(
			topic->lookups->peerd->routed, topic->question);
	topic_free(topic);
}

void lookups_free(struct lookups *lookups)
{
	if (!lookups)
		return;
	timer_free(lookups->expiry);
	tdestroy(lookups->topics, free_topic);
	idmap_free(lookups->waiters);
	free(lookups);
}
