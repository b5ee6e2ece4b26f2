/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outages. Owns nothing but its notes: one for each address, the last reason.
 *
 * What one gets wrong: a name with two addresses fails for two reasons in turn,
 * and a busy proxy tells another time each time. Neither is news every second,
 * so what has changed waits for its turn too.
 */
#include "agent/outage.h"

#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

struct note {
	char *addr;
	char *why;
	bool busy;
	int64_t next;
};

struct outage {
	bool begun;
	int64_t since;
	struct note notes[OUTAGE_ADDRS_MAX];
	unsigned count;
	int64_t first; /* failure, of notes that were not said yet */
	bool changed;  /* since the last line */
	bool said;
	int64_t said_at;
};

struct outage *outage_new(void)
{
	return xcalloc(1, sizeof(struct outage));
}

static void remove_note(struct outage *outage, unsigned index)
{
	free(outage->notes[index].addr);
	free(outage->notes[index].why);
	outage->count--;
	memmove(&outage->notes[index], &outage->notes[index + 1],
		(outage->count - index) * sizeof(outage->notes[0]));
}

static void forget_all(struct outage *outage)
{
	while (outage->count)
		remove_note(outage, outage->count - 1);
	outage->begun = false;
	outage->said = false;
	outage->changed = false;
}

void outage_free(struct outage *outage)
{
	if (!outage)
		return;
	forget_all(outage);
	free(outage);
}

void outage_begin(struct outage *outage, int64_t now)
{
	if (outage->begun)
		return;
	forget_all(outage); /* what failed beside tunnels */
	outage->begun = true;
	outage->since = now;
}

static struct note *find(struct outage *outage, const char *addr)
{
	for (unsigned i = 0; i < outage->count; i++)
		if (strcmp(outage->notes[i].addr, addr) == 0)
			return &outage->notes[i];
	return NULL;
}

void outage_failed(struct outage *outage, const char *addr, const char *why,
	bool busy, int64_t now, int64_t next)
{
	struct note *note = find(outage, addr);

	if (!note && outage->count == OUTAGE_ADDRS_MAX)
		return;
	if (!outage->count)
		outage->first = now;
	if (!note) {
		note = &outage->notes[outage->count++];
		*note = (struct note){.addr = xstrdup(addr)};
	}
	if (!note->why ||
		(strcmp(note->why, why) != 0 && !(busy && note->busy)))
		outage->changed = true;
	free(note->why);
	note->why = xstrdup(why);
	note->busy = busy;
	note->next = next;
}

/* What should have been tried again long ago is wanted no more. */
static void forget_old(struct outage *outage, int64_t now)
{
	for (unsigned i = outage->count; i-- > 0;)
		if (outage->notes[i].next + OUTAGE_REPEAT_MS < now)
			remove_note(outage, i);
}

/* Whether the reason itself says which address it is about. */
static bool names_address(const char *why, const char *addr)
{
	size_t host = strcspn(addr, ":");

	return strncmp(why, addr, host) == 0 || strstr(why, addr);
}

static char *note_text(const struct note *note, int64_t now)
{
	int64_t left = note->next > now ? note->next - now + 999 : 0;

	if (names_address(note->why, note->addr))
		return xasprintf("%s, next attempt in %lld s", note->why,
			(long long)left / 1000);
	return xasprintf("%s (%s), next attempt in %lld s", note->addr,
		note->why, (long long)left / 1000);
}

/* Takes text. */
static char *append(char *text, const char *separator, char *more)
{
	char *joined = xasprintf("%s%s%s", text, separator, more);

	free(text);
	free(more);
	return joined;
}

char *outage_text(const struct outage *outage, int64_t now)
{
	unsigned named = outage->count < OUTAGE_NAMED_MAX ? outage->count
							  : OUTAGE_NAMED_MAX;
	char *text;

	if (!outage->count)
		return NULL;
	text = xstrdup("no proxy can be reached");
	for (unsigned i = 0; i < named; i++)
		text = append(text, i ? "; " : ": ",
			note_text(&outage->notes[i], now));
	if (named < outage->count)
		text = append(text, "; ",
			xasprintf("and %u others", outage->count - named));
	return text;
}

bool outage_is_busy(const struct outage *outage)
{
	for (unsigned i = 0; i < outage->count; i++)
		if (!outage->notes[i].busy)
			return false;
	return outage->count > 0;
}

char *outage_say(struct outage *outage, bool complete, int64_t now)
{
	forget_old(outage, now);
	if (!outage->count)
		return NULL;
	if (!outage->said && !complete &&
		now < outage->first + OUTAGE_GATHER_MS)
		return NULL;
	if (outage->said &&
		now < outage->said_at + (outage->changed ? OUTAGE_CHANGE_MS
							 : OUTAGE_REPEAT_MS))
		return NULL;
	outage->said = true;
	outage->said_at = now;
	outage->changed = false;
	return outage_text(outage, now);
}

int64_t outage_end(struct outage *outage, int64_t now)
{
	int64_t lasted = outage->said ? now - outage->since : 0;

	forget_all(outage);
	return lasted;
}
