/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What peerway.yaml(5) demands beyond types and ranges: names, addresses, keys
 * that need each other. Part of conf.c. Pure.
 */

#include "shared/conf.h"
#include "shared/conf_tree.h"

/* conf is loaded and has its defaults. */
bool conf_rules_check(const struct conf *conf, const struct conf_node *root,
	struct conf_error *error);
