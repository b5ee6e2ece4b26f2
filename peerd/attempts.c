/* SPDX-License-Identifier: Apache-2.0 */
/* A dial's history: see attempts.h. Owns its texts. */
#include "peerd/attempts.h"

#include <stdlib.h>

#include "shared/alloc.h"

size_t attempts_begin(struct attempts *attempts, Peerway__Ipc__Route route,
	const char *proxy_id, const char *hostname, int64_t now)
{
	size_t number = attempts->count;
	Peerway__Ipc__Attempt *attempt;

	if (number == ATTEMPTS_MAX)
		return number;
	attempt = &attempts->list[number];
	attempts->pointers[attempts->count++] = attempt;
	attempts->started[number] = now;
	peerway__ipc__attempt__init(attempt);
	attempt->route = route;
	attempt->proxy_id = xstrdup(proxy_id);
	attempt->hostname = xstrdup(hostname);
	attempt->error = xstrdup("");
	return number;
}

/* A peer's words may hold anything, and are shown in one line. */
static char *one_line(const char *text)
{
	char *line = xstrndup(text, ATTEMPT_ERROR_MAX);

	for (char *c = line; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	}
	return line;
}

void attempts_end(struct attempts *attempts, size_t number, const char *error,
	int64_t now)
{
	Peerway__Ipc__Attempt *attempt;

	if (number >= attempts->count)
		return;
	attempt = &attempts->list[number];
	free(attempt->error);
	attempt->error = one_line(error ? error : "");
	attempt->ms = (uint32_t)(now - attempts->started[number]);
}

void attempts_deinit(struct attempts *attempts)
{
	for (size_t i = 0; i < attempts->count; i++) {
		free(attempts->list[i].proxy_id);
		free(attempts->list[i].hostname);
		free(attempts->list[i].error);
	}
	attempts->count = 0;
}
