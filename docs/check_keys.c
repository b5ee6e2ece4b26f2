/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_keys peerway.yaml.5: every configuration key has its item in the man
 * page, with the default and the range the program really has and whether a
 * reload takes it up; and no item is there whose key is not.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/conf_number.h"
#include "shared/conf_schema.h"
#include "shared/conf_use.h"

#define ITEM ".It Ic "

struct page {
	char **items; /* lines behind ITEM */
	bool *known;
	size_t count;
	int wrong;
};

static void read_page(struct page *page, const char *path)
{
	char line[1024];
	FILE *file = fopen(path, "re");

	if (!file) {
		perror(path);
		exit(1);
	}
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, ITEM, strlen(ITEM)))
			continue;
		page->items = xrealloc(
			page->items, (page->count + 1) * sizeof(*page->items));
		page->items[page->count++] = xstrdup(line + strlen(ITEM));
	}
	fclose(file);
	page->known = xcalloc(page->count + 1, sizeof(*page->known));
}

/* What the item of a key must say: for numbers, default and range too. */
static char *wanted_item(const char *path)
{
	const struct conf_use *use = conf_use_find(path);
	bool live = use && use->live;

	for (size_t i = 0; i < conf_number_count; i++) {
		const struct conf_number *n = &conf_numbers[i];
		char standard[32];
		char min[32];
		char max[32];

		if (strcmp(n->path, path))
			continue;
		conf_number_format(
			n->standard, n->unit, standard, sizeof(standard));
		conf_number_format(n->min, n->unit, min, sizeof(min));
		conf_number_format(n->max, n->unit, max, sizeof(max));
		return xasprintf("%s (default %s, %s to %s%s)", path, standard,
			min, max, live ? "; reload" : "");
	}
	return xasprintf("%s%s", path, live ? " (reload)" : "");
}

static void on_key(void *arg, const char *path)
{
	struct page *page = arg;
	char *wanted = wanted_item(path);
	size_t i = 0;

	while (i < page->count && strcmp(page->items[i], wanted))
		i++;
	if (i < page->count) {
		page->known[i] = true;
	} else {
		printf("missing: %s%s\n", ITEM, wanted);
		page->wrong++;
	}
	free(wanted);
}

int main(int argc, char **argv)
{
	struct page page = {0};

	if (argc != 2)
		return 2;
	read_page(&page, argv[1]);
	conf_schema_keys(on_key, &page);
	for (size_t i = 0; i < page.count; i++) {
		if (!page.known[i]) {
			printf("no such key: %s%s\n", ITEM, page.items[i]);
			page.wrong++;
		}
		free(page.items[i]);
	}
	free(page.items);
	free(page.known);
	return page.wrong ? 1 : 0;
}
