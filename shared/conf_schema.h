/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which keys there are and of what type. Part of conf.c. A new key is a field
 * here, a line in docs/man/peerway.yaml.5 (a test compares them) and, for a
 * number, a row in conf_number.c.
 */

#include <cyaml/cyaml.h>

#include "shared/conf.h"
#include "shared/conf_tree.h"

/* Of struct conf. What cyaml cannot load is CYAML_IGNORE here and loaded from
 * the tree: numbers with a unit, labels, proxy_server. */
extern const struct cyaml_schema_value conf_schema;

/* Each key exists and has its type. What is CYAML_IGNORE is not looked at. */
bool conf_schema_check(const struct conf_node *root, struct conf_error *error);
/* Calls fn for each key that holds a value, as "proxy_service.workers" or
 * "agent_service.services[].name". */
void conf_schema_keys(void (*fn)(void *arg, const char *path), void *arg);
