/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What `validate` finds, pure. A difference is an object: "between" (two of
 * "authd", "cache", "routed", "peerd"), "kind", what record it is about and of
 * when, and "text", a line for people.
 */

#include <jansson.h>

/* All differences of one look at the host, a new list: routed's answer to
 * validate, peerd's to tunnels and to status. */
json_t *differences_of(
	const json_t *routed, const json_t *tunnels, const json_t *status);
/* Those of list that are in another list too: what is on its way goes, what is
 * wrong stays. A new list. */
json_t *differences_lasting(const json_t *list, const json_t *other);
