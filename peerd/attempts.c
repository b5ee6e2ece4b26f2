/* SPDX-License-Identifier: Apache-2.0 */
/* A dial's history: see attempts.h. Owns its texts. */
#include "peerd/attempts.h"

#include <stdlib.h>

#include "shared/alloc.h"

void attempts_begin(struct attempts *attempts, Peerway__Ipc__Route route,
	const char *proxy_id, int64_t now)
{
	Peerway__Ipc__Attempt *attempt;

	attempts->started = now;
	if (attempts->count == ATTEMPTS_MAX)
		return;
	attempt = &attempts->list[attempts->count];
	attempts->pointers[attempts->count++] = attempt;
	peerway__ipc__attempt__init(attempt);
	attempt->route = route;
	attempt->proxy_id = xstrdup(proxy_id);
	attempt->error = xstrdup("");
}

void attempts_end(struct attempts *attempts, const char *error, int64_t now)
{
	Peerway__Ipc__Attempt *attempt;

	if (attempts->count == 0)
		return;
	attempt = &attempts->list[attempts->count - 1];
	free(attempt->error);
	attempt->error = xstrndup(error ? error : "", ATTEMPT_ERROR_MAX);
	attempt->ms = (uint32_t)(now - attempts->started);
}

void attempts_deinit(struct attempts *attempts)
{
	for (size_t i = 0; i < attempts->count; i++) {
		free(attempts->list[i].proxy_id);
		free(attempts->list[i].error);
	}
	attempts->count = 0;
}
