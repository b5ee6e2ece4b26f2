/* SPDX-License-Identifier: Apache-2.0 */
/* Peer addresses that more than one proxy advertises: see duplicates.h. */
#include "peerd/duplicates.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int compare(const void *a, const void *b)
{
	const struct advert *left = a, *right = b;
	int order = strcasecmp(left->addr, right->addr);

	return order ? order : strcmp(left->id, right->id);
}

void duplicates_find(struct advert *adverts, size_t count,
	void (*fn)(void *arg, const struct advert *group, size_t count),
	void *arg)
{
	size_t first = 0;

	qsort(adverts, count, sizeof(*adverts), compare);
	for (size_t i = 1; i <= count; i++) {
		if (i < count &&
			!strcasecmp(adverts[i].addr, adverts[first].addr))
			continue;
		if (i - first > 1)
			fn(arg, adverts + first, i - first);
		first = i;
	}
}
