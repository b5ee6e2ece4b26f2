/* SPDX-License-Identifier: Apache-2.0 */
/* See changes.h. The list points into items, so it is made when it is lent. */
#include "auth/changes.h"

#include <stdlib.h>
#include <string.h>

#include "auth/records.h"
#include "shared/alloc.h"

void changes_add(struct changes *changes, const char *key, const uint8_t *value,
	size_t len, uint64_t revision)
{
	if (changes->count == changes->room) {
		changes->room = changes->room ? 2 * changes->room : 16;
		changes->items = xrealloc(changes->items,
			changes->room * sizeof(changes->items[0]));
	}
	if (!records_change(
		    key, value, len, revision, &changes->items[changes->count]))
		return;
	changes->count++;
	changes->bytes += strlen(key) + len;
}

void changes_lend(
	struct changes *changes, Peerway__Auth__WatchResponse *response)
{
	free(changes->list);
	changes->list = xcalloc(changes->count + 1, sizeof(changes->list[0]));
	for (size_t i = 0; i < changes->count; i++)
		changes->list[i] = &changes->items[i];
	response->changes = changes->list;
	response->n_changes = changes->count;
}

void changes_clear(struct changes *changes)
{
	for (size_t i = 0; i < changes->count; i++)
		records_change_deinit(&changes->items[i]);
	free(changes->items);
	free(changes->list);
	*changes = (struct changes){0};
}
