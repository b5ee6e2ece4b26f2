/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Proxies that advertise one peer address, pure. Whoever dials it reaches one
 * of them and finds the other's certificate wrong: so both are named.
 */

#include <stddef.h>

struct advert {
	const char *id;
	const char *hostname;
	const char *addr;
};

/* Sorts adverts by address, in whatever case, then by id, and calls fn with
 * each group of two or more that share one. */
void duplicates_find(struct advert *adverts, size_t count,
	void (*fn)(void *arg, const struct advert *group, size_t count),
	void *arg);
