/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* DNS names and IP addresses that a certificate may carry, in a bounded list.
 */

#include <jansson.h>
#include <stdbool.h>

#define NAMES_MAX 32

struct names {
	unsigned count;
	char *items[NAMES_MAX]; /* lower case */
};

bool names_is_address(const char *text);
/* Adds a copy unless it is there. 0; -EINVAL: neither an address nor a DNS name
 * (`*.` may stand in front), or a name of the cluster's own encoding, which
 * only authd gives; -ENOSPC. */
int names_add(struct names *names, const char *text);
bool names_has(const struct names *names, const char *text);
void names_deinit(struct names *names);

/* Gives an array. */
json_t *names_to_json(const struct names *names);
/* NULL or JSON null is the empty list. 0, -EINVAL, -ENOSPC; names is to be
 * deinitialised in any case. */
int names_from_json(const json_t *array, struct names *names);
