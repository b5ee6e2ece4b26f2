/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * GET /webapi/find: cluster name, strategy and proxies, before there is a
 * tunnel to hear of them.
 */

#include "agent/https.h"
#include "shared/discovery.h"

struct find;
/* discovery: borrowed for the call; NULL: why says why not. Last call. */
typedef void find_fn(
	void *arg, const struct discovery *discovery, const char *why);
struct find *find_new(struct loop *loop, struct resolver *resolver,
	const struct connect_request *to, find_fn *fn, void *arg);
/* Ends it without a call; NULL is fine. */
void find_free(struct find *find);
